"""The commands in a shell that is not set up for an Airflow: a sentence that says what is missing, and no traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pacifica_provider import cli

ROOT = Path(__file__).parents[2]
SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
CASE = ("case", "--dag-id", "x", "--run-id", "y", "--task-id", "z")


def run(home: Path, *words: str, url: str | None = None) -> str:
    """Run a command in a fresh process, see that it is refused, and return its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PG"))}
    environment |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(ROOT)} | ({} if url is None else {SETTING: url})
    command = [sys.executable, "-m", "pacifica_provider.cli", *words]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr

    assert done.returncode == cli.REFUSED, said
    assert "Traceback" not in said
    assert "SELECT" not in said
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("words", [CASE, ("ledger", "restored"), ("ledger", "prune", "--before", "2020-01-01")])
def test_a_home_without_a_database_is_said_to_be(tmp_path: Path, words: tuple[str, ...]) -> None:
    """An empty AIRFLOW_HOME: the database has no tables, and the settings to look at are named."""
    said = run(tmp_path, *words)

    assert re.fullmatch(
        rf"Airflow's database cannot be used from here .*no such table.*AIRFLOW_HOME or {SETTING}.*", said
    )


def test_a_database_that_refuses_is_said_to_be(tmp_path: Path) -> None:
    """Nobody listens: the address is named, the password is not."""
    said = run(tmp_path, *CASE, url="postgresql+psycopg2://airflow:pass-of-it@127.0.0.1:9/airflow")

    assert re.fullmatch(rf"Airflow's database cannot be used .*127\.0\.0\.1.*{SETTING}.*", said)
    assert "pass-of-it" not in said


def test_a_database_that_answers_nothing_is_given_up(tmp_path: Path) -> None:
    """It takes the connection and is silent: the command ends after ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = run(tmp_path, *CASE, url=f"postgresql+psycopg2://airflow:pass-of-it@127.0.0.1:{port}/airflow")

    assert re.fullmatch(rf"Airflow's database cannot be used .*timeout.*{SETTING}.*", said)


@pytest.mark.parametrize("url", ["nonsense", "postgresql+no_such_driver://x"])
def test_a_database_setting_that_cannot_be_used_is_named(tmp_path: Path, url: str) -> None:
    """Airflow itself does not start with it."""
    said = run(tmp_path, *CASE, url=url)

    assert re.fullmatch(rf"Airflow's configuration cannot be used .*{SETTING}.*", said)


def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file without sections is none of Airflow's."""
    (tmp_path / "airflow.cfg").write_text("nonsense\n")

    assert re.fullmatch(r"Airflow's configuration cannot be used .*airflow\.cfg.*", run(tmp_path, *CASE))
