"""The public names, importable under their documented paths with exactly these signatures."""

from __future__ import annotations

import importlib
import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest

import pacifica_provider
from pacifica_provider import exceptions
from pacifica_provider.withdrawals import withdraw as withdraw_module
from pacifica_provider.withdrawals.ledger import Ledger

ROOT = Path(__file__).parents[2]
SIGNATURES = {
    "api.signing:Signer.from_base58": "(secret: str) -> Signer",
    "withdrawals.withdraw:withdraw": (
        "(identity: RunIdentity, order: Order | SettleOrder, base_url: str, *, context: TryContext, ledger: Ledger, "
        "exchange: ReadingExchange, make_signer: Callable[[], SigningExchange], policy: Policy, runtime: Runtime)"
        " -> StoredReceipt"
    ),
    "withdrawals.withdraw:Runtime": (
        "(now_ms: Callable[[], int], sleep_s: Callable[[float], None], new_id: Callable[[], str], "
        "jitter: Callable[[], float], log: Callable[[str], None]) -> None"
    ),
    "withdrawals.withdraw:TryContext": (
        "(first_try: bool, run_after_ms: int, adoption: Literal[window, never, amount] = window, "
        "instance: str | None = None, case_command: str = , sweeps: bool = False) -> None"
    ),
    "withdrawals.withdraw:Policy": (
        "(key_trust_ms: int = 540000, skew_ms: int = 5000, list_lag_ms: int = 30000, posts_per_try: int = 2, "
        "try_budget_ms: int = 180000) -> None"
    ),
    "cli:main": "(arguments: Sequence[str] | None = None) -> int",
    "cli:get_pacifica_cli_commands": "() -> list[CLICommand]",
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
        "reserve: object = None, minimum: object = None, allow_backfill: bool = False) -> Receipt"
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
        *("poll_interval", "settlement_timeout", "allow_backfill", "reserve", "minimum", "approvals"),
        *("preflight", "dry_run", "tag_amount", "retries", "retry_delay"),
    ),
    "sensors.withdrawal:WithdrawalBatchSensor": ("symbol", "batch_nonce", "amount", "pacifica_conn_id", "deferrable"),
}
# Every default of an operator's own parameters; a parameter without one must be given.
DEFAULTS: dict[str, dict[str, object]] = {
    "operators.withdraw:WithdrawSpotAssetOperator": {
        "withdrawal_ref": None,
        "pacifica_conn_id": "pacifica_default",
        "wait_for_settlement": False,
        "deferrable": False,
        "poll_interval": 30,
        "settlement_timeout": timedelta(hours=72),
        "allow_backfill": False,
        "reserve": None,
        "minimum": None,
        "approvals": (),
        "preflight": False,
        "dry_run": False,
        "tag_amount": False,
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
    },
    "sensors.withdrawal:WithdrawalBatchSensor": {
        "amount": None,
        "pacifica_conn_id": "pacifica_default",
        "deferrable": False,
    },
}
TEMPLATE_FIELDS = {
    "operators.withdraw:WithdrawSpotAssetOperator": ("symbol", "amount", "withdrawal_ref", "reserve", "minimum"),
    "sensors.withdrawal:WithdrawalBatchSensor": ("symbol", "batch_nonce", "amount"),
}
# The parts of the seam that an outside harness has to write or fill in.
SEAM = ("TryContext", "Policy", "Runtime", "ReadingExchange", "SigningExchange")
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


@pytest.mark.parametrize("path", DEFAULTS)
def test_an_operator_has_its_documented_defaults(path: str) -> None:
    """A DAG that says nothing gets these; three retries, a minute apart, come while Pacifica knows the key (F97)."""
    found = named(path)
    assert isinstance(found, type)
    parameters = inspect.signature(found.__init__).parameters.values()  # type: ignore[misc]  # as above

    assert DEFAULTS[path] == {each.name: each.default for each in parameters if each.default is not each.empty}


@pytest.mark.parametrize("path", TEMPLATE_FIELDS)
def test_an_operator_has_its_documented_template_fields(path: str) -> None:
    """Nothing else is rendered: a connection, a limit or a time is what the DAG's author wrote."""
    assert TEMPLATE_FIELDS[path] == tuple(getattr(named(path), "template_fields"))  # noqa: B009 - named() has no type


def test_the_ledger_is_the_state_of_one_asset() -> None:
    """Name and URI are where every record lies: with another one, all of them would seem lost."""
    assets = importlib.import_module("pacifica_provider.assets")

    assert (assets.WITHDRAWALS.name, assets.WITHDRAWALS.uri) == ("pacifica_withdrawals", "pacifica://withdrawals/")


@pytest.mark.parametrize("name", SEAM)
def test_a_part_of_the_seam_has_six_members_at_most(name: str) -> None:
    """An outside harness writes each in minutes."""
    found = named(f"withdrawals.withdraw:{name}")
    assert isinstance(found, type)

    assert 0 < len(members(found)) <= 6


def test_the_ledger_of_the_seam_has_six_members_at_most() -> None:
    """A dictionary will do."""
    assert members(Ledger) == {"fenced", "get", "set", "delete"}


def test_the_seam_is_what_its_module_offers() -> None:
    """``from … import *`` gives an outside harness what it fills in, and nothing else."""
    assert set(withdraw_module.__all__) == {"Policy", "Runtime", "TryContext", "withdraw"}


def members(kind: type) -> set[str]:
    """Return the public fields and methods that a dataclass or protocol asks for; what is derived does not count."""
    fields = set(inspect.get_annotations(kind))
    methods = {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}
    return fields | methods


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


def test_the_changelog_s_newest_heading_is_the_version() -> None:
    """The version is written once in the package; what it brings is told under it."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == pacifica_provider.__version__
    assert headings[0].count(".") == 2
