"""
The pages for users are run as they stand: a reader pastes one block after the other, and so does this.

A block of Python is run, or is the file that a comment before it names; a block without a language is for the shell.
What cannot be run here says why in a comment: ``<!-- not run: … -->``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.configuration import retrieve_configuration_description

from pacifica_provider.withdrawals.decisions import action, read_decision
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (file|not run): ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:`|^|; )((?:make|python -m|airflow pacifica) [^`:;#\n]+)", re.MULTILINE)
USERS_PROJECT = Path(__file__).parent / "users_project"
TEST_OF_PAGES = """
import asyncio
from contextlib import aclosing
from types import SimpleNamespace

from dags.approval import dag as approval
from dags.daily_withdrawal import dag
from dags.half_of_it import dag as half_of_it
from dags.payments import dag as payments
from dags.sweep import dag as sweep
from dags.when_settled import dag as when_settled
from dags.when_settled import settled, watcher
from dags.withdraw_then_wait import dag as withdraw_then_wait


def test_it_pays_once(pacifica_exchange):
    assert dag.test().state == "success"
    pacifica_exchange.assert_paid_once("1.5", "SOL")


def test_it_sweeps_all_but_the_reserve_though_the_answer_is_lost(pacifica_exchange):
    pacifica_exchange.lost_answer()
    assert sweep.test().state == "success"
    pacifica_exchange.assert_paid_once("999997.5", "SOL")


def test_nobody_can_approve_in_a_test(pacifica_exchange):
    assert [each.task_id for each in approval.topological_sort()] == ["prepare", "approve", "withdraw"]


def test_it_pays_both(pacifica_exchange):
    assert payments.test().state == "success"
    pacifica_exchange.assert_paid(("1.5", "SOL"), ("0.25", "BTC"))


def test_the_second_task_waits_until_it_is_on_chain(pacifica_exchange):
    began = pacifica_exchange.now
    assert withdraw_then_wait.test().state == "success"
    pacifica_exchange.assert_paid_once("1.5", "SOL")
    assert (pacifica_exchange.now - began).total_seconds() >= 60


def test_it_withdraws_half(pacifica_exchange):
    assert half_of_it.test().state == "success"
    pacifica_exchange.assert_paid_once("500000", "SOL")


def test_what_has_settled_is_an_event_that_starts_it(pacifica_exchange, capsys):
    async def first_event():
        async with aclosing(watcher.trigger.run()) as events:
            return await anext(events)

    assert dag.test().state == "success"
    watcher.trigger.since = 0  # it has settled before the trigger starts
    payload = asyncio.run(first_event()).payload
    book = when_settled.get_task("book").python_callable
    book(triggering_asset_events={settled: [SimpleNamespace(extra={"payload": payload})]})

    assert capsys.readouterr().out.splitlines()[-1] == f"1.499 SOL {payload['batch_nonce']} {payload['transaction_id']}"
    assert when_settled.test().state == "success"
"""


@dataclass(frozen=True)
class Block:
    """A block of code on a page: what to do with it, for the reason or under the name ``what``."""

    language: str
    text: str
    how: str = ""
    what: str = ""


def blocks_of(page: str) -> list[Block]:
    """Return the blocks in their order."""
    return [Block(language, text, how, what) for how, what, language, text in BLOCK.findall(page)]


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for Airflow with a database in it."""
    home = tmp_path_factory.mktemp("airflow")
    run_there(home, home, "airflow db migrate")
    return home


def run_there(folder: Path, home: Path, script: str) -> str:
    """Run a script as a user's shell does, in a session of its own, and return what it printed."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "COV_", "PYTEST"))}
    environment = {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'jobs -p | xargs -r kill; wait' EXIT\n{script}"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def script_of(blocks: list[Block], folder: Path) -> str:
    """Write the files that the blocks are, and return the others as one script."""
    lines = []
    for block in blocks:
        if block.how == "not run" or block.language == "text":
            continue
        if block.how == "file":
            path = folder / block.what
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            lines.append(f"python - <<'THE_END'\n{block.text}THE_END")
        else:
            assert block.language in {"", "bash"}, f"nobody runs {block.language}"
            lines.append(block.text)
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_closed_and_known(page: Path) -> None:
    """No block escapes the pattern, and nothing is excused without a reason."""
    text = page.read_text(encoding="utf-8")

    assert len(blocks_of(text)) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE))
    assert text.count("<!-- not run: ") + text.count("<!-- file: ") == sum(bool(each.how) for each in blocks_of(text))


@pytest.mark.parametrize("name", ["docs/connection.md", "docs/sandbox.md"])
def test_a_page_runs(name: str, tmp_path: Path, airflow_home: Path) -> None:
    """All of its blocks, in order, in one shell; a second time over what the first left there."""
    script = script_of(blocks_of((ROOT / name).read_text(encoding="utf-8")), tmp_path)
    if name == "docs/connection.md":
        script += "airflow connections get pacifica_default -o json"

    printed = [run_there(tmp_path, airflow_home, script) for _ in range(2 if name == "docs/sandbox.md" else 1)]

    if name == "docs/sandbox.md":
        assert all('"debits"' in each for each in printed)
    else:
        assert '"conn_type": "pacifica"' in printed[0]


def test_every_other_page_has_nothing_to_run() -> None:
    """What is not run above is marked, or is the runbook's JSON, which is read below."""
    run = {"README.md", "approval.md", "connection.md", "howto.md", "sandbox.md", "sweeps.md", "testing.md"}
    left = [(page.name, block) for page in PAGES for block in blocks_of(page.read_text()) if page.name not in run]

    assert {(name, block.language) for name, block in left if block.how != "not run" and block.language != "text"} == {
        ("unknown.md", "json")
    }


def test_the_settings_of_the_page_on_clusters_are_airflow_s() -> None:
    """Airflow has each option; those of its Celery provider, which is not installed here, are left out."""
    (block,) = [each for each in blocks_of((ROOT / "docs/clusters.md").read_text()) if each.language == "ini"]
    given, known = ConfigParser(), retrieve_configuration_description(include_providers=False)
    given.read_string(block.text)
    named = {(section, option) for section in given.sections() for option in given[section]}
    missing = {each for each in named if each[0] in known and each[1] not in known[each[0]]["options"]}

    assert len(named) == len(re.findall(r"^\w+ =", block.text, re.MULTILINE)) == 7
    assert {section for section, _ in named} - set(known) == {"celery", "celery_broker_transport_options"}
    assert missing <= {("workers", "state_store_backend")}  # it came with Airflow 3.3
    assert known["scheduler"]["options"]["task_instance_heartbeat_timeout"]["default"] == "300"


def test_the_decisions_of_the_runbook_are_ones() -> None:
    """Each object of its JSON is read as the next try reads it."""
    (block,) = [each for each in blocks_of((ROOT / "docs/unknown.md").read_text()) if each.language == "json"]
    decoder, text, found = json.JSONDecoder(), block.text, []
    while text.strip():
        entry, end = decoder.raw_decode(text.lstrip())
        found.append(action(read_decision(entry)))
        text = text.lstrip()[end:]

    assert found == ["adopt", "repost", "void"]


def test_a_user_s_project_has_what_the_pages_promise(tmp_path: Path, airflow_home: Path) -> None:
    """
    Its DAGs are those of the pages, its tests those of docs/testing.md, of the others, and ``users_project``'s.

    They are run by what docs/testing.md says, in a pytest that knows nothing of this one.
    """
    project = tmp_path / "project"
    shutil.copytree(USERS_PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    for page in ("README.md", "docs/approval.md", "docs/howto.md", "docs/sweeps.md"):
        assert script_of(blocks_of((ROOT / page).read_text(encoding="utf-8")), project) == ""
    (project / "test_of_pages.py").write_text(TEST_OF_PAGES, encoding="utf-8")
    script = script_of(blocks_of((ROOT / "docs/testing.md").read_text(encoding="utf-8")), project)

    printed = run_there(project, airflow_home, script)

    passed = re.search(r"^=+ (\d+) passed(, 1 warning)? in", printed, re.MULTILINE)
    assert passed, printed
    assert int(passed[1]) >= sum(path.read_text().count("\ndef test_") for path in project.glob("test_*.py")) > 20


def test_the_fixture_says_what_it_lacks(tmp_path: Path) -> None:
    """Without Airflow's database a sentence, not a missing table; the first run of a new user."""
    (tmp_path / "test_first.py").write_text("def test_it(pacifica_exchange):\n    pass\n", encoding="utf-8")

    printed = run_there(tmp_path, tmp_path / "home", "! pytest")

    assert "is empty: run 'airflow db migrate' once" in printed
    assert "Traceback" not in printed


COMMANDS = sorted({each for page in PAGES for each in COMMAND.findall(page.read_text(encoding="utf-8"))})


def test_commands_are_found() -> None:
    """The pages name some."""
    assert {"make demo", "make ui"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make")])
def test_a_make_target_exists(command: str) -> None:
    """A page names no target that the Makefile does not have."""
    assert re.search(rf"^{re.escape(command.split()[1])}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


@pytest.mark.parametrize(
    "module",
    sorted(
        {"pacifica_provider.cli case", "pacifica_provider.cli ledger prune"}
        | {each.split()[2] for each in COMMANDS if each.startswith("python -m dev")}
    ),
)
def test_a_command_knows_what_the_pages_say_of_it(module: str) -> None:
    """Every option that a page writes after it stands in its help."""
    program, *verbs = module.split()
    help_text = subprocess.run(
        [sys.executable, "-m", program, *verbs, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    known = (f"python -m {module}", f"airflow pacifica {' '.join(verbs)}") if verbs else (f"python -m {module}",)
    options = {word for each in COMMANDS if each.startswith(known) for word in re.findall(r"--[a-z-]+", each)}

    assert {option for option in options if option not in help_text} == set()
