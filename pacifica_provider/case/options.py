"""The case command's options, once for ``argparse`` and for Airflow's command line, and how to spell a call of it."""

from __future__ import annotations

import shlex
from importlib import metadata
from typing import Any

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--dag-id", {"required": True, "help": "the DAG"}),
    ("--run-id", {"required": True, "help": "the run"}),
    ("--task-id", {"required": True, "help": "the withdrawing task"}),
    ("--map-index", {"type": int, "default": -1, "help": "of a mapped task"}),
    ("--withdrawal-ref", {"help": "which withdrawal, if the task has several"}),
    ("--decide", {"choices": ["adopt", "repost", "void"], "help": "take a decision; the next try applies it"}),
    ("--batch-nonce", {"type": int, "help": "adopt: the row that is this withdrawal"}),
    ("--outside-window", {"action": "store_true", "help": "adopt a row made while no request was valid"}),
    ("--rows", {"default": "", "help": "repost: batch nonces, comma separated, that are not this withdrawal"}),
    ("--why", {"help": "the reason; kept in the record"}),
    ("--by", {"help": "who decides; your user name if left out"}),
)


def case_command(dag_id: str, run_id: str, task_id: str, map_index: int = -1, withdrawal_ref: str | None = None) -> str:
    """Return the command line that shows a case, ready to paste where Airflow runs."""
    words = ["airflow", "pacifica", "case"] if _has_provider_commands() else ["python", "-m", "pacifica_provider.case"]
    words += ["--dag-id", dag_id, "--run-id", run_id, "--task-id", task_id]
    if map_index >= 0:
        words += ["--map-index", str(map_index)]
    if withdrawal_ref is not None:
        words += ["--withdrawal-ref", withdrawal_ref]
    return shlex.join(words)


def _has_provider_commands() -> bool:
    """Say whether this Airflow reads a provider's ``cli`` section, as 3.2 and later do."""
    major, minor = metadata.version("apache-airflow-core").split(".")[:2]
    return (int(major), int(minor)) >= (3, 2)
