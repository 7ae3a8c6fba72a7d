"""The public names, importable under their documented paths with exactly these signatures."""

from __future__ import annotations

import importlib
import inspect

import pytest

import pacifica_provider
from pacifica_provider import exceptions

SIGNATURES = {
    "api.signing:Signer.from_base58": "(secret: str) -> Signer",
    "api.signing:Signer.sign": "(self, message: bytes) -> str",
    "api.signing:canonical_message": (
        "(operation_type: str, data: Mapping[str, Any], *, timestamp_ms: int, expiry_window_ms: int) -> bytes"
    ),
    "withdrawals.identity:RunIdentity": (
        "(account: str, dag_id: str, run_id: str, task_id: str, withdrawal_ref: str | None = None, scope: str = '')"
        " -> None"
    ),
    "withdrawals.identity:RunIdentity.idempotency_key": "(self) -> str",
    "hooks.pacifica:PacificaHook": "(pacifica_conn_id: str = 'pacifica_default', **kwargs: Any) -> None",
    "hooks.pacifica:PacificaHook.withdraw_spot_asset": (
        "(self, symbol: object, amount: object, *, context: Mapping[str, Any], withdrawal_ref: str | None = None, "
        "allow_backfill: bool = False) -> dict[str, Any]"
    ),
    "hooks.pacifica:PacificaHook.pending_withdrawals": "(self) -> tuple[PendingWithdrawal, ...]",
    "hooks.pacifica:PacificaHook.withdrawal_history": (
        "(self, since_ms: int | None = None) -> tuple[SettledWithdrawal, ...]"
    ),
    "hooks.pacifica:PacificaHook.spot_balances": "(self) -> tuple[SpotBalance, ...]",
    "hooks.pacifica:PacificaHook.test_connection": "(self) -> tuple[bool, str]",
    "api.client:PacificaClient.withdraw_spot_asset": (
        "(self, symbol: str, amount: Decimal, *, idempotency_key: str, timestamp_ms: int) -> Outcome"
    ),
    "api.outcomes:classify": "(result: Answer | TransportFailure) -> Outcome",
}
OPERATORS = {
    "operators.withdraw:WithdrawSpotAssetOperator": (
        *("symbol", "amount", "withdrawal_ref", "pacifica_conn_id", "wait_for_settlement", "deferrable"),
        *("poll_interval", "settlement_timeout", "allow_backfill"),
    ),
    "sensors.withdrawal:WithdrawalBatchSensor": ("symbol", "batch_nonce", "amount", "pacifica_conn_id", "deferrable"),
}
TREE = {
    "PacificaError": "Exception",
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


def named(path: str) -> object:
    """Return the object of ``module:qualified.name``."""
    module, _, name = path.partition(":")
    found: object = importlib.import_module(f"pacifica_provider.{module}")
    for step in name.split("."):
        found = getattr(found, step)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_public_name_has_its_documented_signature(path: str) -> None:
    """A change here breaks somebody's DAG: it is one for the changelog."""
    found = named(path)
    assert callable(found)
    signature = str(inspect.signature(found)).replace("'", "").replace('"', "")

    assert SIGNATURES[path].replace("'", "") == signature


@pytest.mark.parametrize("path", OPERATORS)
def test_an_operator_has_its_documented_parameters(path: str) -> None:
    """All by keyword, in the documented order, and what is not theirs goes to Airflow's base class."""
    found = named(path)
    assert isinstance(found, type)
    parameters = inspect.signature(found.__init__).parameters  # type: ignore[misc]  # a class's own constructor

    assert ("self", *OPERATORS[path], "kwargs") == tuple(parameters)


def test_the_trigger_takes_what_was_deferred_by_older_releases() -> None:
    """A deferred task outlives an upgrade: later arguments are optional."""
    found = named("triggers.withdrawal:WithdrawalBatchTrigger")
    assert isinstance(found, type)
    old = {
        "pacifica_conn_id": "c",
        "symbol": "SOL",
        "batch_nonce": 7,
        "amount": "1",
        "end_time": 9.0,
        "poll_interval": 30,
    }

    assert isinstance(found(**old), found)


def test_the_error_tree_is_the_documented_one() -> None:
    """Names and parents are what handlers catch."""
    tree = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(exceptions).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }

    assert tree == TREE


def test_the_package_itself_holds_its_version_only() -> None:
    """Importing it costs nothing."""
    public = {name for name in vars(pacifica_provider) if not name.startswith("_")}
    submodules = {name for name in public if inspect.ismodule(getattr(pacifica_provider, name))}

    assert public - submodules <= {"annotations"}
    assert pacifica_provider.__version__.count(".") == 2
