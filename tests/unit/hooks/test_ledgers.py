"""Where the ledger is kept: Airflow's asset state and Variables, what their failures become, and who may use them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    DeleteVariable,
    ErrorResponse,
    GetVariable,
    OKResponse,
    PutVariable,
    VariableResult,
)

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks import ledgers
from pacifica_provider.hooks.ledgers import (
    PROBE_ENTRY,
    VARIABLE_PREFIX,
    AssetStateLedger,
    AssetStateTable,
    VariableLedger,
    VariableTable,
    ledger_for,
    ledger_from_outside,
)
from pacifica_provider.withdrawals.ledger import Ledger, LedgerUnavailableError, WholeLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAME = "withdrawal_0123456789abcdef"
RECORD: dict[str, Any] = {"state": "open", "attempts": [{"at_ms": 1, "amount": "1.50"}], "why": "né ☃", "row": None}
WHEN = datetime(2026, 11, 24, tzinfo=UTC)
OTHER = {"state": "accepted"}
VARIABLE = VARIABLE_PREFIX + NAME
BROKEN = [
    BrokenPipeError("supervisor gone"),
    ConnectionResetError(),
    EOFError(),
    TimeoutError("no answer"),
    AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})),
    AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "x" * 10_000})),
]
# What each method is called with: any of them may fail.
CALLS: dict[str, Callable[[Ledger], object]] = {
    "get": lambda ledger: ledger.get(NAME),
    "set": lambda ledger: ledger.set(NAME, RECORD),
    "delete": lambda ledger: ledger.delete(NAME),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
every_failure = pytest.mark.parametrize("error", BROKEN, ids=lambda error: f"{type(error).__name__}-{error}"[:40])


class AssetState:
    """Airflow's accessor of one asset's state, without a supervisor: values go through JSON, as they do there."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.error: BaseException | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        self._fail()
        return json.loads(self.texts[key]) if key in self.texts else default

    def set(self, key: str, value: Any) -> None:
        """Write a value."""
        self._fail()
        self.texts[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._fail()
        self.texts.pop(key, None)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class Supervisor:
    """
    A task's supervisor, as far as Variables go, with what may go wrong behind it.

    ``answers`` are given instead of the true ones, one a reading of ``about``; ``None`` is a true one.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.descriptions: dict[str, str | None] = {}
        self.error: BaseException | None = None
        self.about = VARIABLE
        self.answers: list[Any] = []
        self.loses_writes = False
        self.loses_deletions = False
        self.asked: list[str] = []

    def send(self, message: Any) -> Any:
        """Do what the message asks for."""
        if self.error is not None:
            raise self.error
        if isinstance(message, GetVariable):
            return self._get(message.key)
        if isinstance(message, PutVariable):
            assert message.value is not None
            self.asked.append(f"put {message.key}")
            if not self.loses_writes:
                self.texts[message.key], self.descriptions[message.key] = message.value, message.description
            return None
        assert isinstance(message, DeleteVariable)
        self.asked.append(f"delete {message.key}")
        if not self.loses_deletions:
            self.texts.pop(message.key, None)
        return OKResponse(ok=True)

    def _get(self, key: str) -> Any:
        self.asked.append(f"get {key}")
        if key == self.about and self.answers and (answer := self.answers.pop(0)) is not None:
            return answer
        if key in self.texts:
            return VariableResult(key=key, value=self.texts[key])
        return NOT_FOUND


NOT_FOUND = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": VARIABLE})


@pytest.fixture
def state() -> AssetState:
    """Return the state of an asset."""
    return AssetState()


@pytest.fixture
def supervisor() -> Supervisor:
    """Return a supervisor."""
    return Supervisor()


class TestAssetStateLedger:
    """The ledger of a task on Airflow 3.3 and later."""

    def test_what_is_set_is_got_whole(self, state: AssetState) -> None:
        """An entry comes back as it was written, through Airflow's JSON."""
        ledger = AssetStateLedger(state)

        ledger.set(NAME, RECORD)

        assert ledger.get(NAME) == RECORD

    def test_a_missing_entry_is_none(self, state: AssetState) -> None:
        """An entry that nobody wrote is no error."""
        assert AssetStateLedger(state).get(NAME) is None

    def test_what_is_deleted_is_gone(self, state: AssetState) -> None:
        """A deleted entry is missing, and may be deleted again."""
        ledger = AssetStateLedger(state)
        ledger.set(NAME, RECORD)

        ledger.delete(NAME)
        ledger.delete(NAME)

        assert ledger.get(NAME) is None

    def test_it_says_that_its_writes_are_fenced(self, state: AssetState) -> None:
        """Airflow refuses the write of a replaced try, so the protocol need not read it back."""
        assert AssetStateLedger(state).fenced

    @every_call
    @every_failure
    def test_a_broken_channel_is_an_unavailable_ledger(
        self, state: AssetState, call: Callable[[Ledger], object], error: BaseException
    ) -> None:
        """Whatever the channel to the supervisor raises, a refused write of a replaced try included, has one name."""
        state.error = error

        with pytest.raises(LedgerUnavailableError, match=type(error).__name__) as raised:
            call(AssetStateLedger(state))

        assert len(str(raised.value)) < 250

    def test_an_error_of_ours_is_not_hidden(self, state: AssetState) -> None:
        """A value that is no JSON is a fault of this package, not of the ledger."""
        with pytest.raises(TypeError):
            AssetStateLedger(state).set(NAME, {"no JSON": object()})


class TestVariableLedger:
    """The ledger of a task on Airflow 3.1 and 3.2."""

    def test_what_is_set_is_got_whole(self, supervisor: Supervisor) -> None:
        """An entry comes back as it was written, from a Variable of its own that asks not to be deleted."""
        ledger = VariableLedger(supervisor.send)

        ledger.set(NAME, RECORD)

        assert ledger.get(NAME) == RECORD
        assert "do not delete" in str(supervisor.descriptions[VARIABLE])

    def test_it_says_that_its_writes_are_not_fenced(self, supervisor: Supervisor) -> None:
        """A replaced try can still write a Variable, so the protocol has to look itself."""
        assert not VariableLedger(supervisor.send).fenced

    def test_every_write_is_read_back(self, supervisor: Supervisor) -> None:
        """A write that was logged as failed, or overtaken, is not taken for done (F84)."""
        supervisor.loses_writes = True

        with pytest.raises(LedgerUnavailableError, match=VARIABLE):
            VariableLedger(supervisor.send).set(NAME, RECORD)

    def test_a_write_that_another_overtook_is_not_taken_for_done(self, supervisor: Supervisor) -> None:
        """Reading back finds what a try at the same time wrote over it."""
        supervisor.answers = [VariableResult(key=VARIABLE, value=json.dumps(OTHER))]

        with pytest.raises(LedgerUnavailableError, match="does not hold what was written"):
            VariableLedger(supervisor.send).set(NAME, RECORD)

    def test_a_missing_entry_is_none_after_it_was_asked_for_twice(self, supervisor: Supervisor) -> None:
        """Between two answers "not found" a Variable that is there is read, and made where it is missing."""
        assert VariableLedger(supervisor.send).get(NAME) is None

        probe = VARIABLE_PREFIX + PROBE_ENTRY
        assert supervisor.asked == [
            f"get {VARIABLE}",
            f"get {probe}",
            f"put {probe}",
            f"get {probe}",
            f"get {VARIABLE}",
        ]

    def test_the_probe_is_made_once(self, supervisor: Supervisor) -> None:
        """Later entries that are missing cost two more readings and no write."""
        ledger = VariableLedger(supervisor.send)
        ledger.get(NAME)
        supervisor.asked.clear()

        ledger.get(NAME)

        assert [each for each in supervisor.asked if each.startswith("put")] == []

    def test_an_entry_that_the_server_missed_once_is_found(self, supervisor: Supervisor) -> None:
        """Airflow's server answers "not found" for a reading that failed; the second one finds the record."""
        ledger = VariableLedger(supervisor.send)
        ledger.set(NAME, RECORD)
        supervisor.answers = [NOT_FOUND]

        assert ledger.get(NAME) == RECORD

    def test_a_server_that_finds_nothing_proves_nothing(self, supervisor: Supervisor) -> None:
        """As long as a Variable that was just written is not found either, nothing counts as missing."""
        supervisor.about = VARIABLE_PREFIX + PROBE_ENTRY
        supervisor.answers = [NOT_FOUND, NOT_FOUND]

        with pytest.raises(LedgerUnavailableError, match=PROBE_ENTRY):
            VariableLedger(supervisor.send).get(NAME)

    @pytest.mark.parametrize("kind", [each for each in ErrorType if each != ErrorType.VARIABLE_NOT_FOUND])
    @every_call
    def test_an_error_is_not_a_missing_entry(
        self, supervisor: Supervisor, call: Callable[[Ledger], object], kind: ErrorType
    ) -> None:
        """Only "not found" means that there is none; every other error means that nobody knows (F84)."""
        supervisor.answers = [ErrorResponse(error=kind)]

        with pytest.raises(LedgerUnavailableError, match=kind.value):
            call(VariableLedger(supervisor.send))

    @pytest.mark.parametrize("answer", [VariableResult(key=VARIABLE, value=None), OKResponse(ok=True)])
    def test_an_answer_of_another_kind_is_not_a_missing_entry(self, supervisor: Supervisor, answer: Any) -> None:
        """A Variable without a value, or an answer to another question, is an unavailable ledger."""
        supervisor.answers = [answer]

        with pytest.raises(LedgerUnavailableError, match=type(answer).__name__):
            VariableLedger(supervisor.send).get(NAME)

    @every_call
    @every_failure
    def test_a_broken_channel_is_an_unavailable_ledger(
        self, supervisor: Supervisor, call: Callable[[Ledger], object], error: BaseException
    ) -> None:
        """Whatever the channel to the supervisor raises has one name."""
        supervisor.error = error

        with pytest.raises(LedgerUnavailableError, match=type(error).__name__) as raised:
            call(VariableLedger(supervisor.send))

        assert len(str(raised.value)) < 250

    def test_what_is_deleted_is_gone(self, supervisor: Supervisor) -> None:
        """A deleted entry is missing, and may be deleted again."""
        ledger = VariableLedger(supervisor.send)
        ledger.set(NAME, RECORD)

        ledger.delete(NAME)
        ledger.delete(NAME)

        assert ledger.get(NAME) is None

    def test_every_deletion_is_checked(self, supervisor: Supervisor) -> None:
        """An entry that is still there after its deletion is an unavailable ledger."""
        ledger = VariableLedger(supervisor.send)
        ledger.set(NAME, RECORD)
        supervisor.loses_deletions = True

        with pytest.raises(LedgerUnavailableError, match="still there"):
            ledger.delete(NAME)

    def test_a_variable_that_holds_no_json_is_left_as_it_is(self, supervisor: Supervisor) -> None:
        """A record that somebody edited badly is neither missing nor overwritten: a person has to mend it."""
        supervisor.texts[VARIABLE] = "{half a rec"

        with pytest.raises(ConfigurationError, match=f"{VARIABLE} does not hold JSON.*Nothing was sent"):
            VariableLedger(supervisor.send).get(NAME)

        assert supervisor.texts == {VARIABLE: "{half a rec"}


class Accessors:
    """``context["asset_state_store"]``: by asset, and only for those among the task's inlets and outlets."""

    def __init__(self, by_name: Mapping[str, AssetState]) -> None:
        self._by_name = by_name

    def __getitem__(self, asset: Any) -> AssetState:
        return self._by_name[asset.name]


class TestLedgerFor:
    """Which ledger a task gets, and which tasks get none."""

    @pytest.fixture(autouse=True)
    def _asset_state(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be an Airflow that keeps asset state, whichever this one is."""
        monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: True)

    def test_a_task_with_the_asset_gets_its_state(self, state: AssetState) -> None:
        """From Airflow 3.3 on the ledger is the state of the asset, not a sibling's."""
        context = {"asset_state_store": Accessors({"other": AssetState(), WITHDRAWALS.name: state})}

        ledger_for(context).set(NAME, RECORD)

        assert json.loads(state.texts[NAME]) == RECORD

    @pytest.mark.parametrize("context", [{}, {"asset_state_store": Accessors({"other": AssetState()})}])
    def test_a_task_without_the_asset_is_told_the_line_to_add(self, context: dict[str, Any]) -> None:
        """Neither a task without outlets nor one with others can pay; its author reads what to write."""
        with pytest.raises(ConfigurationError) as raised:
            ledger_for(context)

        for part in (
            "Nothing was sent",
            "@task(outlets=[WITHDRAWALS])",
            "from pacifica_provider.assets import WITHDRAWALS",
        ):
            assert part in str(raised.value)

    @pytest.mark.parametrize(("section", "key"), [("workers", "state_store_backend"), ("state_store", "backend")])
    def test_a_backend_without_a_fence_is_refused(
        self, state: AssetState, monkeypatch: pytest.MonkeyPatch, section: str, key: str
    ) -> None:
        """A configured backend takes the write of a replaced try, so no withdrawal runs with it (F86)."""
        monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{key.upper()}", "somebody.else.Backend")

        with pytest.raises(
            ConfigurationError, match=rf"\[{section}\] {key} is somebody.else.Backend.*Nothing was sent"
        ):
            ledger_for({"asset_state_store": Accessors({WITHDRAWALS.name: state})})

    def test_airflow_s_own_backend_is_accepted_by_name(
        self, state: AssetState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Settings that say what is so anyway are harmless."""
        monkeypatch.setenv("AIRFLOW__STATE_STORE__BACKEND", "airflow.state.metastore.MetastoreBackend")
        monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "")

        assert ledger_for({"asset_state_store": Accessors({WITHDRAWALS.name: state})}).fenced

    def test_before_airflow_3_3_a_task_gets_variables(
        self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there is no asset state the ledger is Variables, through the task's supervisor; no outlet is needed."""
        monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: False)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

        ledger_for({}).set(NAME, RECORD)

        assert json.loads(supervisor.texts[VARIABLE]) == RECORD

    def test_before_airflow_3_3_no_supervisor_is_an_unavailable_ledger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Outside a task there is nobody to ask for Variables."""
        monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: False)
        monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)

        with pytest.raises(LedgerUnavailableError, match="no supervisor"):
            ledger_for({})


def test_the_asset_is_found_under_the_uri_that_airflow_keeps() -> None:
    """Name and URI of the asset are for ever: records lie under them. Airflow adds the slash."""
    assert (WITHDRAWALS.name, WITHDRAWALS.uri) == ("pacifica_withdrawals", "pacifica://withdrawals/")


class Database(NamedTuple):
    """Airflow's database, with the tables that the ledger needs."""

    engine: Any
    tables: dict[str, Any]

    def run(self, statement: Any) -> None:
        """Run a statement and commit it."""
        with self.engine.begin() as connection:
            connection.execute(statement)


@pytest.fixture
def database() -> Iterator[Database]:
    """Yield the database of the Airflow of these tests, its tables empty."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    names = ("team", "asset", "asset_active", "asset_state_store", "variable")
    tables = {name: Base.metadata.tables[name] for name in names if name in Base.metadata.tables}
    Base.metadata.create_all(settings.engine, tables=[*tables.values()])
    yield Database(settings.engine, tables)
    Base.metadata.drop_all(settings.engine, tables=[*tables.values()])


def register_asset(database: Database, *, active: bool = True) -> None:
    """Do what parsing a DAG does: make the asset known."""
    from sqlalchemy import insert

    names = {"name": WITHDRAWALS.name, "uri": WITHDRAWALS.uri}
    extra = {column.name: "" for column in database.tables["asset"].columns if column.name == "group"}
    times = dict.fromkeys(("created_at", "updated_at"), WHEN)
    database.run(insert(database.tables["asset"]).values(**names, **extra, **times, extra={}))
    if active:
        database.run(insert(database.tables["asset_active"]).values(**names))


needs_asset_state = pytest.mark.skipif(not ledgers.keeps_asset_state(), reason="asset state came with Airflow 3.3")


@pytest.fixture(params=[pytest.param(AssetStateTable, marks=needs_asset_state), VariableTable])
def outside(request: pytest.FixtureRequest, database: Database) -> WholeLedger:
    """Return each ledger in a database in which the asset is known."""
    register_asset(database)
    ledger: WholeLedger = request.param()
    return ledger


class TestFromOutside:
    """The ledger in Airflow's database, as a person's command sees it."""

    def test_what_is_set_is_got_whole(self, outside: WholeLedger) -> None:
        """An entry comes back as it was written, and a second one in its place."""
        outside.set(NAME, RECORD)
        assert outside.get(NAME) == RECORD

        outside.set(NAME, OTHER)
        assert outside.get(NAME) == OTHER

    def test_a_missing_entry_is_none(self, outside: WholeLedger) -> None:
        """An entry that nobody wrote is no error."""
        assert outside.get(NAME) is None

    def test_every_entry_is_named_in_order(self, outside: WholeLedger) -> None:
        """A prune sees all entries, and nothing else."""
        for name in ("withdrawal_b", "ledger", "decision_a"):
            outside.set(name, RECORD)

        assert list(outside.names()) == ["decision_a", "ledger", "withdrawal_b"]

    def test_what_is_deleted_is_gone(self, outside: WholeLedger) -> None:
        """A deleted entry is missing, its name too, and it may be deleted again."""
        outside.set(NAME, RECORD)

        outside.delete(NAME)
        outside.delete(NAME)

        assert outside.get(NAME) is None
        assert list(outside.names()) == []

    def test_it_says_that_its_writes_are_not_fenced(self, outside: WholeLedger) -> None:
        """A command is no try, so Airflow never refuses its write."""
        assert not outside.fenced

    @every_call
    def test_a_database_that_fails_is_an_unavailable_ledger(
        self, outside: WholeLedger, database: Database, call: Callable[[Ledger], object]
    ) -> None:
        """Whatever the database raises has one name, and is not taken for a missing entry."""
        from airflow.models.base import Base

        Base.metadata.drop_all(database.engine, tables=[*database.tables.values()])

        with pytest.raises(LedgerUnavailableError, match="OperationalError"):
            call(outside)
        with pytest.raises(LedgerUnavailableError, match="OperationalError"):
            outside.names()

    def test_a_task_reads_what_a_command_wrote(
        self, outside: WholeLedger, database: Database, supervisor: Supervisor, state: AssetState
    ) -> None:
        """A decision left from outside is the same JSON that a task's ledger reads."""
        from airflow.models.variable import Variable

        outside.set(NAME, RECORD)

        if isinstance(outside, VariableTable):
            supervisor.texts[VARIABLE] = Variable.get(VARIABLE)
            assert VariableLedger(supervisor.send).get(NAME) == RECORD
        else:
            stored = database.tables["asset_state_store"]
            with database.engine.connect() as connection:
                state.texts[NAME] = connection.execute(stored.select()).one().value
            assert AssetStateLedger(state).get(NAME) == RECORD


@needs_asset_state
class TestAssetStateTable:
    """What is so of asset state alone."""

    def test_before_any_dag_was_parsed_it_is_empty(self, database: Database) -> None:
        """An Airflow that does not know the asset holds no entries, and there is nothing to delete."""
        ledger = AssetStateTable()

        ledger.delete(NAME)

        assert ledger.get(NAME) is None
        assert list(ledger.names()) == []

    @pytest.mark.parametrize("known", [False, True], ids=["unknown", "inactive"])
    def test_nothing_is_written_while_no_dag_names_the_asset(self, database: Database, known: bool) -> None:
        """Airflow deletes the state of an asset that no DAG names, so a decision would be lost there."""
        if known:
            register_asset(database, active=False)

        with pytest.raises(LedgerUnavailableError, match="no active asset"):
            AssetStateTable().set(NAME, RECORD)

    def test_a_new_airflow_uses_it(self) -> None:
        """From Airflow 3.3 on a command sees asset state."""
        assert isinstance(ledger_from_outside(), AssetStateTable)


class TestVariableTable:
    """What is so of Variables alone."""

    def test_variables_of_others_are_no_entries(self, database: Database) -> None:
        """Neither a Variable whose name only looks alike is named, nor the probe of this package."""
        from airflow.models.variable import Variable

        ledger = VariableTable()
        ledger.set(PROBE_ENTRY, RECORD)
        Variable.set("pacificaXlike", "1")
        Variable.set("other", "1")

        assert list(ledger.names()) == []

    def test_a_variable_that_cannot_be_decrypted_is_not_a_missing_entry(self, database: Database) -> None:
        """After Airflow's Fernet key was lost nobody knows what the record says; Airflow alone would say it is none."""
        from sqlalchemy import insert

        row = {"key": VARIABLE, "val": "gAAAAABnothing", "is_encrypted": True}
        database.run(insert(database.tables["variable"]).values(**row))

        with pytest.raises(LedgerUnavailableError, match="cannot decrypt"):
            VariableTable().get(NAME)

    def test_a_variable_that_holds_no_json_is_refused(self, database: Database) -> None:
        """A record that somebody edited badly is not taken for a missing one."""
        from airflow.models.variable import Variable

        Variable.set(VARIABLE, "{half a rec")

        with pytest.raises(ConfigurationError, match="does not hold JSON"):
            VariableTable().get(NAME)

    def test_a_write_that_a_secrets_backend_shadows_is_not_taken_for_done(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was written is read from the table that tasks' records lie in."""
        from airflow.models.variable import Variable

        monkeypatch.setattr(Variable, "set", staticmethod(lambda *args, **kwargs: None))

        with pytest.raises(LedgerUnavailableError, match="does not hold what was written"):
            VariableTable().set(NAME, RECORD)

    def test_an_old_airflow_uses_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before Airflow 3.3 a command sees Variables."""
        monkeypatch.setattr(ledgers, "keeps_asset_state", lambda: False)

        assert isinstance(ledger_from_outside(), VariableTable)
