"""Where the record is kept: Airflow's channels, and what their failures become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import NEVER_EXPIRE, Variable  # type: ignore[attr-defined]  # missing in its stub
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.stores import (
    DECISION_KEY,
    ENTRY_KEY,
    TaskStateIntents,
    VariableIntents,
    decision_variable,
    store_for,
    variable_name,
)
from pacifica_provider.withdrawals.intents import StoreUnavailableError
from tests.support.desk import FakeTaskState

RUN = ("pay", "scheduled__2026-11-23", "withdraw", -1)
NAME = variable_name(*RUN)
BROKEN = [
    BrokenPipeError("supervisor gone"),
    ConnectionResetError(),
    EOFError(),
    TimeoutError("no answer"),
    AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503})),
    AirflowRuntimeError(ErrorResponse(error=ErrorType.PERMISSION_DENIED)),
    AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "x" * 10_000})),
]


class Variables:
    """Airflow's Variables without a supervisor: the calls that the store makes of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[str, str] = {}
        self.descriptions: dict[str, str | None] = {}
        self.error: BaseException | None = None
        monkeypatch.setattr(Variable, "get", self.get)
        monkeypatch.setattr(Variable, "set", self.set)
        monkeypatch.setattr(Variable, "delete", self.delete)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a variable's text."""
        self._fail()
        return self.values.get(key, default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        """Set a variable."""
        self._fail()
        self.values[key], self.descriptions[key] = value, description

    def delete(self, key: str) -> None:
        """Delete a variable."""
        self._fail()
        self.values.pop(key, None)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    """Return a table of variables."""
    return Variables(monkeypatch)


def test_the_task_state_store_is_used_where_there_is_one() -> None:
    """Airflow 3.3 hands it over in the context, fence included; its presence decides."""
    store = store_for({"task_state_store": FakeTaskState()}, *RUN)

    assert isinstance(store, TaskStateIntents)
    assert store.fenced


@pytest.mark.parametrize("context", [{}, {"task_state_store": None}])
def test_a_variable_is_used_where_there_is_no_store(context: dict[str, Any], variables: Variables) -> None:
    """Airflow 3.1 and 3.2 have Variables only, and those have no fence."""
    store = store_for(context, *RUN)
    store.write({"a": 1})

    assert isinstance(store, VariableIntents)
    assert not store.fenced
    assert variables.values == {NAME: '{"a": 1}'}
    assert variables.descriptions[NAME] == "Withdrawals of pay / scheduled__2026-11-23 / withdraw / -1; do not delete"


def test_an_entry_in_the_task_state_store_never_expires() -> None:
    """The default of thirty days would wipe the record of a run that is cleared later (F54)."""
    state = FakeTaskState()
    store = TaskStateIntents(state)
    before = store.read()
    store.write({"records": {"k": {"amount": "1.5"}}})

    assert before is None
    assert store.read() == {"records": {"k": {"amount": "1.5"}}}
    assert state.retention == {ENTRY_KEY: NEVER_EXPIRE}


def test_the_decision_lies_beside_the_entry() -> None:
    """It is read and removed without touching the record."""
    state = FakeTaskState()
    store = TaskStateIntents(state)
    store.write({"a": 1})
    state.set(DECISION_KEY, {"action": "void"})
    decision = store.read_decision()
    store.delete_decision()

    assert decision == {"action": "void"}
    assert store.read_decision() is None
    assert store.read() == {"a": 1}


def test_the_decision_of_a_variable_lies_beside_it(variables: Variables) -> None:
    """It is another Variable, so that it never races the record."""
    store = VariableIntents(NAME, "")
    store.write({"a": 1})
    variables.set(decision_variable(NAME), '{"action": "void"}')
    decision = store.read_decision()
    store.delete_decision()

    assert decision == {"action": "void"}
    assert store.read_decision() is None
    assert variables.values == {NAME: '{"a": 1}'}


@pytest.mark.parametrize("error", BROKEN, ids=[f"{type(error).__name__}-{at}" for at, error in enumerate(BROKEN)])
@pytest.mark.parametrize("call", ["read", "write", "read_decision", "delete_decision"])
@pytest.mark.parametrize("kind", ["task state", "variable"])
def test_a_broken_channel_is_a_store_that_is_down(
    kind: str, call: str, error: BaseException, variables: Variables
) -> None:
    """Whatever Airflow's channel raises is one error, named in one short line (F44)."""
    state = FakeTaskState()
    state.error = variables.error = error
    store = TaskStateIntents(state) if kind == "task state" else VariableIntents(NAME, "")
    with pytest.raises(StoreUnavailableError, match=type(error).__name__) as caught:
        getattr(store, call)(*([{"a": 1}] if call == "write" else []))

    assert len(str(caught.value)) < 250
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["task state", "variable"])
def test_what_is_no_failure_of_the_channel_passes(kind: str, variables: Variables) -> None:
    """A task's timeout and a mistake of ours are not taken for a store that is down (F40)."""
    state = FakeTaskState()
    store = TaskStateIntents(state) if kind == "task state" else VariableIntents(NAME, "")
    for error in (KeyboardInterrupt(), TypeError("a mistake")):
        state.error = variables.error = error
        with pytest.raises(type(error)):
            store.read()


@pytest.mark.parametrize("text", ["", "not json", "{", "***"])
def test_a_variable_that_is_no_json_is_refused(text: str, variables: Variables) -> None:
    """It is not overwritten, and money may have moved (F48)."""
    variables.values[NAME] = text
    with pytest.raises(ConfigurationError, match=r"does not hold JSON. Money may have moved.*left as it is"):
        VariableIntents(NAME, "").read()

    assert variables.values == {NAME: text}


def test_the_name_of_a_variable_is_frozen() -> None:
    """Another name would lose every record there is; and it holds no word that Airflow takes for a secret's."""
    assert NAME == "pacifica_withdrawals_7849df3c0fd3135a102b59b195601988"


@pytest.mark.parametrize(
    "other",
    [
        ("pay2", *RUN[1:]),
        ("pay", "other", *RUN[2:]),
        (*RUN[:2], "other", -1),
        (*RUN[:3], 0),
        ("pay/scheduled__2026-11-23", "", *RUN[2:]),
        ("token-of-the-secret-password", *RUN[1:]),
    ],
)
def test_every_task_instance_has_a_variable_of_its_own(other: tuple[str, str, str, int]) -> None:
    """DAG, run, task and map index are framed, and none of them shows in the name, which Airflow might mask."""
    name = variable_name(*other)

    assert name != NAME
    assert "token" not in name
    assert decision_variable(name) == f"{name}_decision"


def test_an_entry_survives_both_stores_alike(variables: Variables) -> None:
    """What is read is what was written, JSON types included."""
    entry = json.loads('{"version": 1, "records": {"k": {"nonce": 18446744073709551615, "net": null, "was": [true]}}}')
    for store in (TaskStateIntents(FakeTaskState()), VariableIntents(NAME, "")):
        store.write(entry)
        assert entry == store.read()
