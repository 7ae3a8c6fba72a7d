"""What a context says of a try: its identity, what it knows of itself, and what is said before the record is read."""

from __future__ import annotations

import shlex
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.requests import WithdrawalRequest
from pacifica_provider.hooks.task_context import TaskRun, case_command, runtime
from pacifica_provider.withdrawals.identity import RunIdentity

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.withdraw import TryContext

RUN_AFTER = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


def context(**changes: Any) -> dict[str, Any]:
    """Return a context with some of it changed."""
    ti = {"dag_id": "pay", "run_id": "r 1", "task_id": "group.withdraw", "map_index": -1, "try_number": 1}
    run = {"clear_number": 0, "run_after": RUN_AFTER, "run_type": "scheduled"}
    made = {
        "ti": SimpleNamespace(**{name: changes.get(name, value) for name, value in ti.items()}),
        "dag_run": SimpleNamespace(**{name: changes.get(name, value) for name, value in run.items()}),
    }
    return made if "loop" not in changes else {**made, "loop": changes["loop"]}


def of_try(
    reference: str | None = None, *, one_reference: bool = True, tagged: bool = False, **changes: Any
) -> TryContext:
    """Return what the protocol is told of such a try."""
    request = WithdrawalRequest("SOL", "1", reference, one_reference=one_reference, tag_amount=tagged)
    return TaskRun.from_context(context(**changes)).try_context(request)


def test_the_identity_is_the_run_s() -> None:
    """Account and scope of the connection, DAG, run and full task id of the run, and the reference (F63, F64)."""
    identity = TaskRun.from_context(context()).identity("acc", "staging", "ref")

    assert identity == RunIdentity("acc", "pay", "r 1", "group.withdraw", "ref", "staging")


@pytest.mark.parametrize(
    "changes",
    [
        {"try_number": 9},
        {"clear_number": 3},
        {"run_type": "backfill"},
        {"run_after": RUN_AFTER + timedelta(days=9)},
        {"map_index": 4},
    ],
)
def test_nothing_of_the_try_is_in_the_identity(changes: dict[str, Any]) -> None:
    """Try, clear, backfill, time and map index change no key (F53, F57, F62)."""
    keys = {
        TaskRun.from_context(context(**each)).identity("acc", "", "ref").idempotency_key() for each in ({}, changes)
    }

    assert len(keys) == 1


@pytest.mark.parametrize(
    ("changes", "first_try"),
    [
        ({}, True),
        ({"try_number": 0}, True),
        ({"try_number": 2}, False),
        ({"clear_number": 1}, False),
        ({"clear_number": None}, True),
        ({"try_number": 2, "clear_number": 1}, False),
    ],
)
def test_only_the_first_try_of_a_run_never_cleared_proves_anything(changes: dict[str, Any], first_try: bool) -> None:
    """For every other try an absent record may be a lost one (F47, F96)."""
    assert first_try == of_try(**changes).first_try


def test_an_airflow_without_clear_numbers_counts_as_never_cleared() -> None:
    """Airflow 3.1 does not tell; the try number still does, since clearing raises it there."""
    bare = context()
    del bare["dag_run"].clear_number

    assert TaskRun.from_context(bare).clear_number == 0


LOOP = SimpleNamespace(index=0)


@pytest.mark.parametrize(
    ("changes", "repeated"),
    [
        ({}, False),
        ({"map_index": None}, False),
        ({"map_index": 0}, True),
        ({"map_index": 12}, True),
        ({"loop": LOOP}, True),
        ({"loop": None}, False),
    ],
)
def test_a_task_that_runs_several_times_in_its_run_is_known_as_such(changes: dict[str, Any], repeated: bool) -> None:
    """Index 0 is mapped too, and the first iteration is in a loop (F61, F100)."""
    assert repeated == TaskRun.from_context(context(**changes)).is_repeated


@pytest.mark.parametrize(
    ("reference", "words", "adoption"),
    [
        (None, {}, "window"),
        ("ref", {}, "window"),
        ("ref", {"map_index": 0}, "never"),
        ("ref", {"loop": LOOP}, "never"),
        (None, {"one_reference": False}, "window"),
        ("ref", {"one_reference": False}, "never"),
        ("ref", {"map_index": 0, "tagged": True}, "amount"),
        (None, {"tagged": True}, "amount"),
    ],
)
def test_only_the_one_withdrawal_of_a_task_is_adopted_by_its_window(
    reference: str | None, words: dict[str, Any], adoption: str
) -> None:
    """Where an equal withdrawal of the same task may stand beside it, a person says which is which (F62, F94, F100)."""
    assert adoption == of_try(reference, **words).adoption


@pytest.mark.parametrize(
    ("changes", "instance"),
    [
        ({}, "-1/None"),
        ({"map_index": 3}, "3/None"),
        ({"loop": SimpleNamespace(index=2)}, "-1/2"),
        ({"one_reference": False}, None),
        ({"try_number": 7, "clear_number": 7}, "-1/None"),
    ],
)
def test_an_instance_is_the_map_index_and_the_iteration(changes: dict[str, Any], instance: str | None) -> None:
    """It has one reference for ever; a ``@task`` that calls the hook may have several (F100, F101)."""
    assert instance == of_try("ref", **changes).instance


@pytest.mark.parametrize("changes", [{"map_index": 0}, {"loop": LOOP}, {"map_index": 3, "loop": LOOP}])
def test_a_repeated_task_needs_a_reference(changes: dict[str, Any]) -> None:
    """Neither index nor iteration is an identity (F61, F100)."""
    run = TaskRun.from_context(context(**changes))
    with pytest.raises(ConfigurationError, match=r"needs a withdrawal_ref, unique in the run.*Nothing was sent"):
        run.identity("acc", "", None)

    assert run.identity("acc", "", "ref").withdrawal_ref == "ref"


def test_run_after_is_in_unix_milliseconds() -> None:
    """No withdrawal of this run can be older."""
    assert of_try().run_after_ms == 1_795_413_600_000


def test_the_case_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with spaces and quotes arrive whole in a shell, and so does the reference."""
    monkeypatch.setattr("importlib.metadata.version", {"apache-airflow-core": "3.2.0"}.__getitem__)
    words = shlex.split(of_try("a 'b'", run_id="manual__2026 'x'; rm -rf $HOME", map_index=3).case_command)

    assert words == [
        *("airflow", "pacifica", "case", "--dag-id", "pay", "--run-id", "manual__2026 'x'; rm -rf $HOME"),
        *("--task-id", "group.withdraw", "--withdrawal-ref", "a 'b'"),
    ]


@pytest.mark.parametrize(
    ("version", "begins"),
    [
        ("3.1.8", "python -m pacifica_provider.cli case "),
        ("3.2.0", "airflow pacifica case "),
        ("3.10.0rc1", "airflow pacifica case "),
        ("4.0", "airflow pacifica case "),
    ],
)
def test_the_case_command_is_one_that_this_airflow_has(
    version: str, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow reads a provider's commands from 3.2 on; the module is there everywhere."""
    monkeypatch.setattr("importlib.metadata.version", {"apache-airflow-core": version}.__getitem__)

    assert case_command("pay", "run", "withdraw").startswith(begins)


def test_the_real_world_has_a_wall_clock_and_ids_of_its_own() -> None:
    """Unix milliseconds, ids that differ, jitter from 0 to 1, and the log that was given."""
    lines: list[str] = []
    world = runtime(lines.append)
    world.log("said")
    before = time.time() * 1000

    assert abs(world.now_ms() - before) < 5_000
    assert world.sleep_s is time.sleep
    assert len({world.new_id() for _ in range(9)}) == 9
    assert 0 <= world.jitter() <= 1
    assert lines == ["said"]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"ti": None, "dag_run": None},
        {"ti": context()["ti"]},
        {"dag_run": context()["dag_run"]},
        {**context(), "ti": SimpleNamespace(dag_id="pay")},
        {**context(), "dag_run": SimpleNamespace(run_type="manual")},
        context(run_after=None),
        context(try_number="first"),
        context(map_index="x"),
        context(loop=SimpleNamespace()),
        context(loop=SimpleNamespace(index="x")),
    ],
)
def test_a_context_that_is_no_task_s_is_refused(broken: dict[str, Any]) -> None:
    """There is no identity outside a run, and no fallback (F72)."""
    with pytest.raises(ConfigurationError, match=r"needs the context of a running task.*Nothing was sent"):
        TaskRun.from_context(broken)


def refused(**changes: Any) -> str:
    """Return what a refusal says in such a try."""
    run = TaskRun.from_context(context(**changes))
    with pytest.raises(ConfigurationError) as caught, run.speaking_for_this_try():
        raise ConfigurationError("The amount is odd. Nothing was sent.")
    return str(caught.value)


def test_a_first_try_s_refusal_speaks_for_the_whole_record() -> None:
    """Nothing can have been sent before the first try of a run never cleared."""
    assert refused() == "The amount is odd. Nothing was sent."


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"clear_number": 1}])
def test_a_later_try_s_refusal_points_to_what_is_on_record(changes: dict[str, Any]) -> None:
    """An earlier try may have sent the withdrawal, and the message says how to see it."""
    said = refused(**changes)

    assert "an earlier one may have sent the withdrawal" in said
    assert said.splitlines()[-1] == case_command("pay", "r 1", "group.withdraw")
