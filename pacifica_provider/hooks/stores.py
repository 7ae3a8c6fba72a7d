"""
Where Airflow keeps the record of a withdrawal: the task state store from 3.3 on, a Variable on 3.1 and 3.2.

Both turn whatever Airflow's own channel raises into ``StoreUnavailableError``; the protocol decides what that means.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.withdrawals.intents import IntentStore, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ENTRY_KEY = "pacifica_withdrawals"
DECISION_KEY = "pacifica_decision"


class TaskStateIntents:
    """
    Airflow 3.3's task state store, kept for ever.

    ``set`` fails for a try that Airflow has replaced, since every try has an id of its own; ``get`` does not, it
    answers as if nothing were there (both measured).
    """

    fenced = True

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def read(self) -> object | None:
        """Return the entry, ``None`` if there is none."""
        return self._get(ENTRY_KEY)

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Write the entry, never to expire."""
        from airflow.sdk import (  # type: ignore[attr-defined]  # missing in its stub
            NEVER_EXPIRE,
        )

        with _unavailable():
            self._accessor.set(ENTRY_KEY, dict(entry), retention=NEVER_EXPIRE)

    def read_decision(self) -> object | None:
        """Return the decision that waits to be applied."""
        return self._get(DECISION_KEY)

    def delete_decision(self) -> None:
        """Remove the decision."""
        with _unavailable():
            self._accessor.delete(DECISION_KEY)

    def _get(self, key: str) -> object | None:
        with _unavailable():
            value: object | None = self._accessor.get(key)
            return value


class VariableIntents:
    """
    An Airflow Variable named after the task instance. It has no fence: a replaced try can still write.

    :param name: see ``variable_name``.
    :param description: what a person sees beside it in Airflow's list of variables.
    """

    fenced = False

    def __init__(self, name: str, description: str) -> None:
        self._name = name
        self._description = description

    def read(self) -> object | None:
        """Return the entry, ``None`` if there is none."""
        return self._get(self._name)

    def write(self, entry: Mapping[str, Any], /) -> None:
        """Write the entry."""
        from airflow.sdk import Variable

        with _unavailable():
            Variable.set(self._name, json.dumps(dict(entry)), description=self._description)

    def read_decision(self) -> object | None:
        """Return the decision that waits to be applied."""
        return self._get(decision_variable(self._name))

    def delete_decision(self) -> None:
        """Remove the decision."""
        from airflow.sdk import Variable

        with _unavailable():
            Variable.delete(decision_variable(self._name))

    def _get(self, name: str) -> object | None:
        from airflow.sdk import Variable

        with _unavailable():
            text = Variable.get(name, default=None)
        if text is None:
            return None
        try:
            value: object = json.loads(text)
        except ValueError:
            raise ConfigurationError(
                f"The Airflow Variable {name} does not hold JSON. Money may have moved. Nothing was sent by this "
                "try, and the variable was left as it is."
            ) from None
        return value


def variable_name(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """
    Return the name of a task instance's Variable.

    A digest, because Airflow masks the values of variables whose name holds words such as "token".
    """
    digest = hashlib.sha256(json.dumps([dag_id, run_id, task_id, map_index]).encode("ascii")).hexdigest()
    return f"pacifica_withdrawals_{digest[:32]}"


def decision_variable(name: str) -> str:
    """Return the name of the Variable that holds the decision beside a record's Variable."""
    return f"{name}_decision"


def store_for(context: Mapping[str, Any], dag_id: str, run_id: str, task_id: str, map_index: int) -> IntentStore:
    """Return the store that this Airflow has for the running task instance."""
    accessor: Callable[..., Any] | None = context.get("task_state_store")
    if accessor is not None:
        return TaskStateIntents(accessor)
    name = variable_name(dag_id, run_id, task_id, map_index)
    return VariableIntents(name, f"Withdrawals of {dag_id} / {run_id} / {task_id} / {map_index}; do not delete")


@contextmanager
def _unavailable() -> Iterator[None]:
    # The channel to the supervisor breaks with OSError or EOFError, and answers AirflowRuntimeError.
    try:
        yield
    except (AirflowRuntimeError, OSError, EOFError) as error:
        raise StoreUnavailableError(f"{type(error).__name__}: {str(error)[:160]}") from None
