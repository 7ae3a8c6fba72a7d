"""
Where Airflow keeps the ledger: the state of the asset ``WITHDRAWALS`` from 3.3 on, Variables on 3.1 and 3.2.

``ledger_for`` is for a running task, which reaches Airflow through its supervisor; ``ledger_from_outside`` is for a
command, which reaches Airflow's database. Both turn whatever Airflow raises into ``LedgerUnavailableError``.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.ledger import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pacifica_provider.withdrawals.ledger import Ledger, WholeLedger

VARIABLE_PREFIX = "pacifica_"
VARIABLE_DESCRIPTION = "Part of the ledger of Pacifica withdrawals; do not delete"
PROBE_ENTRY = "ledger_probe"
_PROBE_VALUE = {"purpose": "read between two readings of an entry that seems to be missing"}
_METASTORE = "airflow.state.metastore.MetastoreBackend"


class AssetStateLedger:
    """
    The state of ``WITHDRAWALS``: nothing expires it, and no clear or deletion of a run touches it.

    Airflow deletes all of it at once when no DAG names the asset any more, neither as inlet nor as outlet. ``set``
    fails for a try that Airflow has replaced. ``get`` does not, nor does ``delete`` before 3.4; ``get`` answers
    ``None`` as well while the asset is inactive, when ``set`` fails.

    :param accessor: ``context["asset_state_store"][WITHDRAWALS]``.
    """

    fenced = True

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def get(self, name: str, /) -> object | None:
        """Return the entry, ``None`` if there is none."""
        with _unavailable():
            value: object | None = self._accessor.get(name)
            return value

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole; return only once Airflow has committed it."""
        with _unavailable():
            self._accessor.set(name, dict(value))

    def delete(self, name: str, /) -> None:
        """Remove the entry; nothing happens if there is none."""
        with _unavailable():
            self._accessor.delete(name)


class VariableLedger:
    """
    One Airflow Variable an entry. It has no fence: a replaced try can still write.

    Below ``airflow.sdk.Variable``, which answers a failed call as "not there" and logs a failed write. Every write is
    read back. A missing Variable is asked for twice, because Airflow's server too answers "not found" when its
    database failed; in between, a Variable that is there must be readable.

    :param send: sends a message to the task's supervisor and returns its answer.
    """

    fenced = False

    def __init__(self, send: Callable[[Any], Any]) -> None:
        self._send = send

    def get(self, name: str, /) -> object | None:
        """Return the entry, ``None`` if there is none; ``ConfigurationError`` if the Variable does not hold JSON."""
        text = self._read(name)
        if text is None:
            self._check_that_reading_works()
            text = self._read(name)
        return None if text is None else _parsed(_variable(name), text)

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole; return only once it was read back as it was written."""
        from airflow.sdk.execution_time.comms import PutVariable

        text = _text(value)
        with _unavailable():
            self._send(PutVariable(key=_variable(name), value=text, description=VARIABLE_DESCRIPTION))
        if self._read(name) != text:
            raise LedgerUnavailableError(f"The Airflow Variable {_variable(name)} does not hold what was written to it")

    def delete(self, name: str, /) -> None:
        """Remove the entry and see that it is gone; nothing happens if there is none."""
        from airflow.sdk.execution_time.comms import DeleteVariable

        with _unavailable():
            self._send(DeleteVariable(key=_variable(name)))
        if self._read(name) is not None:
            raise LedgerUnavailableError(f"The Airflow Variable {_variable(name)} is still there after its deletion")

    def _check_that_reading_works(self) -> None:
        expected = _text(_PROBE_VALUE)
        if self._read(PROBE_ENTRY) != expected:
            self.set(PROBE_ENTRY, _PROBE_VALUE)

    def _read(self, name: str) -> str | None:
        from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, VariableResult

        with _unavailable():
            answer = self._send(GetVariable(key=_variable(name)))
        if isinstance(answer, VariableResult) and answer.value is not None:
            return answer.value
        if isinstance(answer, ErrorResponse) and answer.error == ErrorType.VARIABLE_NOT_FOUND:
            return None
        what = answer.error.value if isinstance(answer, ErrorResponse) else type(answer).__name__
        raise LedgerUnavailableError(f"Asked for the Airflow Variable {_variable(name)}, Airflow answered {what}")


def ledger_for(context: Mapping[str, Any]) -> Ledger:
    """
    Return the ledger that this Airflow has for the running task.

    Raises ``ConfigurationError`` where Airflow has a ledger that this task cannot use safely.
    """
    if not keeps_asset_state():
        send = supervisor()
        if send is None:
            raise LedgerUnavailableError("there is no supervisor: this is not a task that Airflow runs")
        return VariableLedger(send)
    _check_backends()
    from pacifica_provider.assets import WITHDRAWALS

    try:
        accessor = context["asset_state_store"][WITHDRAWALS]
    except KeyError:
        raise ConfigurationError(
            "This task may not use the ledger of withdrawals, because its outlets do not name it. Nothing was sent by "
            "this try. Write @task(outlets=[WITHDRAWALS]), after: from pacifica_provider.assets import WITHDRAWALS"
        ) from None
    return AssetStateLedger(accessor)


def keeps_asset_state() -> bool:
    """Say whether tasks of this Airflow have asset state, as from 3.3 on."""
    from airflow.sdk.execution_time import context

    return hasattr(context, "AssetStateStoreAccessors")


def _check_backends() -> None:
    """Refuse a place for state that Airflow writes to without checking that the try is still the current one."""
    from airflow.providers.common.compat.sdk import conf

    for section, key, harmless in (("workers", "state_store_backend", ""), ("state_store", "backend", _METASTORE)):
        configured = conf.get(section, key, fallback=harmless)
        if configured != harmless:
            raise ConfigurationError(
                f"Airflow's setting [{section}] {key} is {configured}. A try that Airflow has replaced can still "
                "write there, over the record of its successor, so withdrawals refuse to run with it. Nothing was "
                "sent by this try. Remove the setting."
            )


def supervisor() -> Callable[[Any], Any] | None:
    """Return what sends a message to the task's supervisor, ``None`` where Airflow runs no task."""
    from airflow.sdk.execution_time import task_runner

    # Set by Airflow when it starts a task, so there is nothing to import before.
    comms: Any = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return None if comms is None else comms.send


def ledger_from_outside() -> WholeLedger:
    """Return the ledger in the database of the Airflow that this process is configured for. Nothing of it is fenced."""
    return AssetStateTable() if keeps_asset_state() else VariableTable()


class AssetStateTable:
    """
    The state of ``WITHDRAWALS`` in Airflow's database.

    As long as no DAG with a withdrawal was parsed, Airflow does not know the asset: then there are no entries, and
    none can be written.
    """

    fenced = False

    def get(self, name: str, /) -> object | None:
        """Return the entry, ``None`` if there is none."""
        from airflow.state import get_state_backend

        with _unavailable_database():
            scope = self._scope()
            text = None if scope is None else get_state_backend().get(scope=scope, key=name)
        return None if text is None else _parsed(name, text)

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole. Refused while no DAG names the asset, since Airflow then deletes its state."""
        from airflow.state import get_state_backend

        with _unavailable_database():
            scope = self._scope(only_active=True)
            if scope is None:
                raise LedgerUnavailableError(
                    "Airflow has no active asset pacifica_withdrawals; it has one while it knows a DAG that withdraws"
                )
            get_state_backend().set(scope=scope, key=name, value=_text(value))

    def delete(self, name: str, /) -> None:
        """Remove the entry; nothing happens if there is none."""
        from airflow.state import get_state_backend

        with _unavailable_database():
            scope = self._scope()
            if scope is not None:
                get_state_backend().delete(scope=scope, key=name)

    def names(self) -> Sequence[str]:
        """Return the name of every entry, in order."""
        from airflow.models.asset_state_store import AssetStateStoreModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with _unavailable_database():
            scope = self._scope()
            if scope is None:
                return []
            entries = select(AssetStateStoreModel.key).where(AssetStateStoreModel.asset_id == scope.asset_id)
            with create_session() as session:
                return sorted(session.scalars(entries))

    @staticmethod
    def _scope(*, only_active: bool = False) -> Any:
        """Return what names the asset to Airflow's backend, ``None`` if Airflow does not know it."""
        from airflow.models.asset import AssetModel
        from airflow.state import AssetScope
        from airflow.utils.session import create_session
        from sqlalchemy import select

        from pacifica_provider.assets import WITHDRAWALS

        ids = select(AssetModel.id).where(AssetModel.name == WITHDRAWALS.name, AssetModel.uri == WITHDRAWALS.uri)
        if only_active:
            ids = ids.where(AssetModel.active.has())
        with create_session() as session:
            asset_id = session.scalar(ids)
        return None if asset_id is None else AssetScope(asset_id=asset_id)


class VariableTable:
    """The ledger's Variables in Airflow's database, past ``Variable.get``, which answers an error as "not there"."""

    fenced = False

    def get(self, name: str, /) -> object | None:
        """Return the entry, ``None`` if there is none."""
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with _unavailable_database(), create_session() as session:
            row = session.scalar(select(Variable).where(Variable.key == _variable(name)))
            text: str | None = None if row is None else row.val
        if row is None:
            return None
        if text is None:  # Airflow logs that it cannot decrypt the value, and goes on
            raise LedgerUnavailableError(f"Airflow cannot decrypt its Variable {_variable(name)}")
        return _parsed(_variable(name), text)

    def set(self, name: str, value: Mapping[str, Any], /) -> None:
        """Write the entry whole."""
        from airflow.models.variable import Variable

        with _unavailable_database():
            Variable.set(_variable(name), _text(value), description=VARIABLE_DESCRIPTION)
        if self.get(name) != dict(value):
            raise LedgerUnavailableError(f"The Airflow Variable {_variable(name)} does not hold what was written to it")

    def delete(self, name: str, /) -> None:
        """Remove the entry; nothing happens if there is none."""
        from airflow.models.variable import Variable

        with _unavailable_database():
            Variable.delete(_variable(name))

    def names(self) -> Sequence[str]:
        """Return the name of every entry, in order; the probe is none."""
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session
        from sqlalchemy import select

        keys = select(Variable.key).where(Variable.key.startswith(VARIABLE_PREFIX, autoescape=True))
        with _unavailable_database(), create_session() as session:
            names = {key.removeprefix(VARIABLE_PREFIX) for key in session.scalars(keys)}
        return sorted(names - {PROBE_ENTRY})


def _variable(name: str) -> str:
    return VARIABLE_PREFIX + name


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True)


def _parsed(where: str, text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        raise ConfigurationError(
            f"The ledger's entry {where} does not hold JSON. Money may have moved. Nothing was sent by this try, and "
            "the entry was left as it is."
        ) from None
    return value


@contextmanager
def _unavailable() -> Iterator[None]:
    # The channel to the supervisor breaks with OSError or EOFError, and answers AirflowRuntimeError.
    try:
        yield
    except (AirflowRuntimeError, OSError, EOFError) as error:
        raise LedgerUnavailableError(f"{type(error).__name__}: {str(error)[:160]}") from None


@contextmanager
def _unavailable_database() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        said = str(getattr(error, "orig", error)).partition("\n")[0]  # the driver's own words, without the statement
        raise LedgerUnavailableError(
            f"Airflow's database cannot be used from here ({type(error).__name__}: {said[:160]}). Run the command "
            "with the configuration of the Airflow that withdraws: where its scheduler runs, or with AIRFLOW_HOME or "
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN set as they are there."
        ) from None
