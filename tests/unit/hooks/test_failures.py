"""The error tree in Airflow's terms."""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from pacifica_provider import exceptions
from pacifica_provider.exceptions import OutcomeUnknown, PacificaError, Throttled
from pacifica_provider.hooks.failures import failing_without_retry

TREE = {
    name: kind
    for name, kind in vars(exceptions).items()
    if inspect.isclass(kind) and issubclass(kind, PacificaError) and kind is not PacificaError
}
FINAL = {"ConfigurationError", "KeyMaterialError", "WithdrawalRejected", "ParameterMismatch", "OutcomeUnknown"}


def raised(error: BaseException) -> BaseException:
    """Return what the context manager lets out."""
    with pytest.raises(type(error)) as caught, failing_without_retry():
        raise error
    return caught.value


def make(kind: Any) -> PacificaError:
    """Return an error with every attribute that it takes."""
    if kind is Throttled:
        error: PacificaError = kind("said", retry_after_s=3.0, status=429)
    else:
        error = kind("said", idempotency_key="k", symbol="SOL", amount="1", batch_nonces=(7,), status=422, code=62)
    return error


@pytest.mark.parametrize("name", sorted(TREE))
def test_what_no_retry_helps_fails_the_task_at_once(name: str) -> None:
    """Exactly five classes become ``AirflowFailException``; their own class, text and attributes stay."""
    error = make(TREE[name])
    out = raised(error)

    assert (name in FINAL) == isinstance(out, AirflowFailException)
    assert isinstance(out, TREE[name])
    assert (str(out), vars(out)) == ("said", vars(error))
    assert type(out).__name__ == name


@pytest.mark.parametrize("name", sorted(FINAL))
def test_a_failure_passes_twice_unchanged(name: str) -> None:
    """A hook's method inside an operator's is wrapped once."""
    out = raised(make(TREE[name]))

    assert out is raised(out)


def test_other_errors_pass_untouched() -> None:
    """Only the errors of this package are its business; not a task's timeout, which is a ``BaseException`` (F40)."""
    for error in (KeyError("x"), KeyboardInterrupt(), SystemExit()):
        assert error is raised(error)


def test_the_cause_is_not_shown_again() -> None:
    """The original is not chained: its frames may hold what a log must not show (S04)."""
    out = raised(OutcomeUnknown("said"))

    assert out.__cause__ is None
    assert out.__suppress_context__
    assert "During handling" not in "".join(traceback.format_exception(out))


def test_the_tree_is_the_documented_one() -> None:
    """Each class stands under the documented parent."""
    parents = {name: kind.__mro__[1].__name__ for name, kind in TREE.items()}

    assert parents == {
        "ConfigurationError": "PacificaError",
        "KeyMaterialError": "ConfigurationError",
        "WithdrawalRejected": "PacificaError",
        "ParameterMismatch": "PacificaError",
        "OutcomeUnknown": "PacificaError",
        "SettlementTimeout": "PacificaError",
        "Retryable": "PacificaError",
        "Throttled": "Retryable",
        "Unreachable": "Retryable",
        "Unresolved": "Retryable",
    }
