"""The error tree in Airflow's terms: what must not be retried is an ``AirflowFailException`` as well."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException

from pacifica_provider.exceptions import (
    ConfigurationError,
    KeyMaterialError,
    OutcomeUnknown,
    PacificaError,
    ParameterMismatch,
    WithdrawalRejected,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FINAL = (KeyMaterialError, ConfigurationError, WithdrawalRejected, ParameterMismatch, OutcomeUnknown)

E = TypeVar("E", bound=PacificaError)

_failing: dict[type[PacificaError], type[PacificaError]] = {
    kind: type(kind.__name__, (kind, AirflowFailException), {"__doc__": kind.__doc__}) for kind in FINAL
}


def without_retry(error: E) -> E:
    """Return the error as one that Airflow fails at once, or itself if Airflow may retry it."""
    failing = _failing.get(type(error))
    if failing is None:  # may be retried, or is one of them already
        return error
    final = failing(str(error))
    final.__dict__.update(error.__dict__)
    return cast("E", final.with_traceback(error.__traceback__))


@contextmanager
def failing_without_retry() -> Iterator[None]:
    """
    Let errors through that Airflow may retry; give the others a class that Airflow fails at once.

    ``except OutcomeUnknown`` still catches it, attributes included, and Airflow fails the task at once whatever its
    retries.
    """
    try:
        yield
    except FINAL as error:
        final = without_retry(error)
        if final is error:
            raise
        raise final from None
