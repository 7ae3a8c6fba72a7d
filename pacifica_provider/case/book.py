"""Where the case of one task instance is kept, seen from outside a task: Airflow's database, not a task's channel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pacifica_provider.hooks.stores import DECISION_KEY, ENTRY_KEY, decision_variable, variable_name


@dataclass(frozen=True, slots=True)
class CaseBook:
    """
    The stored entry of one task instance, and the decision beside it.

    Airflow 3.3 and later keep both in the task state store, earlier ones in Airflow Variables, as
    ``hooks/stores.py`` does.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def entry(self) -> object | None:
        """Return the stored entry, ``None`` if there is none."""
        return self._read(ENTRY_KEY, self._variable)

    def decision(self) -> object | None:
        """Return the decision that waits for the next try, ``None`` if there is none."""
        return self._read(DECISION_KEY, decision_variable(self._variable))

    def decide(self, decision: dict[str, Any]) -> None:
        """Leave a decision for the next try, in place of one that waits."""
        text = json.dumps(decision)
        store = _state_store()
        if store is None:
            from airflow.models.variable import Variable

            Variable.set(
                decision_variable(self._variable), text, description=f"Decision on {self.dag_id} / {self.run_id}"
            )
            return
        backend, scope_class = store
        backend.set(scope_class(self.dag_id, self.run_id, self.task_id, self.map_index), DECISION_KEY, text)

    @property
    def _variable(self) -> str:
        return variable_name(self.dag_id, self.run_id, self.task_id, self.map_index)

    def _read(self, key: str, variable: str) -> object | None:
        store = _state_store()
        if store is None:
            from airflow.models.variable import Variable

            text = Variable.get(variable, default_var=None)
        else:
            backend, scope_class = store
            text = backend.get(scope_class(self.dag_id, self.run_id, self.task_id, self.map_index), key)
        if text is None:
            return None
        value: object = json.loads(text)
        return value


def _state_store() -> tuple[Any, Any] | None:
    """Return Airflow's state backend and its scope class, ``None`` before Airflow 3.3."""
    try:
        from airflow.state import TaskScope, get_state_backend
    except ImportError:
        return None
    return get_state_backend(), TaskScope
