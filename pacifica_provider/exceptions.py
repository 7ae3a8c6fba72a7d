"""
Errors, split by what the reader has to do next. Each is a claim about the whole record of a withdrawal.

::

    PacificaError
    ├── ConfigurationError          fix the connection or the DAG            → task fails, no retry
    │   └── KeyMaterialError        the private key itself is wrong
    ├── WithdrawalRejected          Pacifica said no, nothing moved          → task fails, no retry
    ├── ParameterMismatch           same run, another order; nothing sent by this try,
    │                               the recorded order may have moved        → fails, no retry
    ├── OutcomeUnknown              cannot be shown either way; remembered;
    │                               a person decides: adopt, repost or void  → fails, no retry
    ├── SettlementTimeout           accepted, not yet seen settled; never a
    │                               reason to post again                     → fails; a retry waits again
    └── Retryable                   safe to try again, the next try looks first → Airflow retries
        ├── Throttled               (retry_after_s)
        ├── Unreachable             nothing was sent
        └── Unresolved              something may have been sent; the next try settles it
"""

from __future__ import annotations


class PacificaError(Exception):
    """
    Root of the tree; never raised itself.

    Beside its prose an error carries, where they are known, the facts a person or a handler needs:
    ``idempotency_key``, ``symbol``, ``amount`` (decimal text), ``batch_nonces``, ``submitted_at_ms`` (when
    each attempt was signed, Unix milliseconds), ``status`` and ``code`` (HTTP status and business code).
    It never carries a response body, a request or a signature.
    """

    def __init__(
        self,
        message: str,
        *,
        idempotency_key: str | None = None,
        symbol: str | None = None,
        amount: str | None = None,
        batch_nonces: tuple[int, ...] = (),
        submitted_at_ms: tuple[int, ...] = (),
        status: int | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.idempotency_key = idempotency_key
        self.symbol = symbol
        self.amount = amount
        self.batch_nonces = batch_nonces
        self.submitted_at_ms = submitted_at_ms
        self.status = status
        self.code = code


class ConfigurationError(PacificaError):
    """The connection or the DAG is wrong and a retry cannot help; nothing was sent by this try."""


class KeyMaterialError(ConfigurationError):
    """The private key cannot be used; the message never contains any part of it."""


class WithdrawalRejected(PacificaError):
    """Pacifica refused the only request of this record, so nothing moved."""


class ParameterMismatch(PacificaError):
    """This run's record holds another order; this try sent nothing, the recorded order may have moved."""


class OutcomeUnknown(PacificaError):
    """Whether money moved cannot be shown; this is remembered, and only a person's decision goes on from it."""


class SettlementTimeout(PacificaError):
    """The withdrawal was accepted but not seen on chain in time; a retry waits again and never posts."""


class Retryable(PacificaError):
    """Another try is safe: it looks at the exchange before it sends anything."""


class Throttled(Retryable):
    """The exchange asked for fewer requests; nothing of this record can have moved money."""

    def __init__(self, message: str, *, retry_after_s: float, status: int | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Unreachable(Retryable):
    """The exchange, or Airflow's store, could not be used, and nothing was ever sent for this record."""


class Unresolved(Retryable):
    """Something may have been sent and has not been settled yet; the next try does that before any POST."""
