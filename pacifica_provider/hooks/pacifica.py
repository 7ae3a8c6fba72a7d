"""The hook: a Pacifica connection, checked, as a configured client; and the one way to withdraw."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk.log import mask_secret

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.exceptions import (
    ConfigurationError,
    KeyMaterialError,
    PacificaError,
    Retryable,
    Unresolved,
    WithdrawalRejected,
)
from pacifica_provider.hooks.arguments import NOTHING_BY_THIS_TRY, refuse_wrong
from pacifica_provider.hooks.failures import failing_without_retry
from pacifica_provider.hooks.requests import WithdrawalRequest
from pacifica_provider.hooks.settings import ConnectionSettings
from pacifica_provider.withdrawals.ledger import prepared_entry, withdrawal_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from airflow.providers.common.compat.sdk import Connection

    from pacifica_provider.api.client import PacificaClient
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal, SpotBalance
    from pacifica_provider.api.signing import Signer
    from pacifica_provider.api.solana import ChainStatus
    from pacifica_provider.hooks.receipts import PreparedOrder, Receipt, Rehearsal
    from pacifica_provider.hooks.requests import OrderSettler
    from pacifica_provider.hooks.task_context import TaskRun
    from pacifica_provider.withdrawals.identity import RunIdentity
    from pacifica_provider.withdrawals.ledger import Ledger
    from pacifica_provider.withdrawals.prepared import Prepared
    from pacifica_provider.withdrawals.settlement import Awaited, Settlement, Waiting
    from pacifica_provider.withdrawals.withdraw import Runtime


class PacificaHook(BaseHook):
    """
    A connection to Pacifica.

    Reading needs no private key, and never loads it. Withdrawing needs one, and happens only through
    ``withdraw_spot_asset`` with the context of a running task: there is no way past the protocol.

    :param pacifica_conn_id: the connection, of type ``pacifica``.
    """

    conn_name_attr = "pacifica_conn_id"
    default_conn_name = "pacifica_default"
    conn_type = "pacifica"
    hook_name = "Pacifica"

    def __init__(self, pacifica_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_wrong(type(self).__name__, {"pacifica_conn_id": pacifica_conn_id})
        self.pacifica_conn_id = pacifica_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields for Airflow 3.1, built from the provider info that later versions read."""
        from pacifica_provider.hooks.form import widgets

        built: dict[str, Any] = widgets()
        return built

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the standard fields' behaviour for Airflow 3.1, from the same source."""
        from pacifica_provider.hooks.form import field_behaviour

        behaviour: dict[str, Any] = field_behaviour()
        return behaviour

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The checked connection, without its key; ``ConfigurationError`` if it cannot be used."""
        with failing_without_retry():
            settings: ConnectionSettings = ConnectionSettings.of_connection(self._connection)
        for secret in settings.secrets:
            mask_secret(secret)
        return settings

    def shown_settings(self, symbol: str) -> dict[str, str] | None:
        """Return account, environment and the symbol's limit for people; ``None`` if the connection cannot be used."""
        try:
            settings = self.settings
        except PacificaError:  # whoever uses it raises it
            return None
        limits = settings.withdrawal_limits
        limit = "none" if limits is None else canonical_text(limits[symbol]) if symbol in limits else "not allowed"
        return {"account": settings.account, "environment": settings.environment, "withdrawal_limit": limit}

    def get_conn(self) -> PacificaClient:
        """Return a client that reads."""
        return self._reader

    def pending_withdrawals(self) -> tuple[PendingWithdrawal, ...]:
        """Return what is accepted and not yet on chain; amounts are ``Decimal``."""
        with failing_without_retry():
            return self._reader.pending_withdrawals().rows

    def withdrawal_history(self, since_ms: int | None = None) -> tuple[SettledWithdrawal, ...]:
        """Return the settled withdrawals, at least all since ``since_ms`` (Unix milliseconds)."""
        with failing_without_retry():
            return self._reader.withdrawal_history(since_ms).rows

    def spot_balances(self) -> tuple[SpotBalance, ...]:
        """Return the account's spot balances."""
        with failing_without_retry():
            return self._reader.spot_balances()

    def settlement(self, awaited: Awaited, before: Waiting, fee: Decimal | None = None) -> Settlement:
        """
        Look whether an accepted withdrawal is on chain; history is read only once it has left the pending list.

        Where the connection has a Solana RPC, that is asked once the history shows a transaction, and decides with it.

        :param before: what the look before this one came to; ``Waiting()`` at the first.
        :param fee: what was deducted, where a receipt says it; else the asset's present fee is read.
        :raises Retryable: if a list could not be read.
        :raises ConfigurationError: if the connection cannot be used, or the exchange refuses to show a list.
        """
        from pacifica_provider.withdrawals.settlement import Settled, is_pending, looked, matches, on_chain
        from pacifica_provider.withdrawals.withdraw import withdrawal_fee

        now_ms = time.monotonic_ns() // 1_000_000
        with failing_without_retry():
            pending = self._reader.pending_withdrawals().rows
            if is_pending(awaited, pending):
                return looked(awaited, before, pending, (), None, now_ms=now_ms)
            if fee is None and awaited.amount is not None:
                fee = withdrawal_fee(self._reader, awaited.symbol)
            found = False

            def past_it(page: Sequence[SettledWithdrawal]) -> bool:
                nonlocal found
                ours = [matches(awaited, row, fee) for row in page]
                found = found or any(ours)
                return found and not ours[-1]  # an equal row may follow on the next page

            history = self._reader.withdrawal_history(enough=past_it).rows
            seen = looked(awaited, before, pending, history, fee, now_ms=now_ms)
            if not isinstance(seen, Settled) or self.settings.solana_rpc_url is None:
                return seen
            return on_chain(seen, self._chain_statuses(*seen.transaction_ids), now_ms=now_ms)

    def _chain_statuses(self, *transaction_ids: str) -> dict[str, ChainStatus]:
        """Ask the connection's Solana RPC for transactions; whatever it does, nothing is raised."""
        from pacifica_provider.api.solana import ask_chain

        return ask_chain(str(self.settings.solana_rpc_url), transaction_ids, timeout_s=self.settings.timeout_s)

    def look_for(self, awaited: Awaited, before: Waiting, fee: Decimal | None = None) -> Settlement:
        """
        Look as ``settlement`` does, but a look that comes to nothing is no reason to stop waiting.

        A connection that the exchange refuses, or whose Solana RPC gives no answer, is read again at the next look, so
        it can be corrected meanwhile.
        """
        from pacifica_provider.withdrawals.settlement import Waiting, not_looked

        try:
            seen = self.settlement(awaited, before, fee)
        except Retryable as error:
            return not_looked(before, str(error))
        except ConfigurationError as error:
            self._forget_connection()
            return not_looked(before, str(error))
        if isinstance(seen, Waiting) and seen.chain == "no answer":
            self._forget_connection()
        return seen

    def _forget_connection(self) -> None:
        for name in ("_held", "_reader", "settings"):
            self.__dict__.pop(name, None)

    def withdraw_spot_asset(
        self,
        symbol: object,
        amount: object,
        *,
        context: Mapping[str, Any],
        withdrawal_ref: str | None = None,
        reserve: object = None,
        minimum: object = None,
        allow_backfill: bool = False,
    ) -> Receipt:
        """
        Withdraw once for the DAG run that the context belongs to, whatever retry, clear or backfill this is.

        The same protocol as ``WithdrawSpotAssetOperator``; see its documentation. The task needs the outlet that keeps
        its ledger: ``@task(outlets=[WITHDRAWALS])``. Several withdrawals in one task need a ``withdrawal_ref`` each,
        and one whose answer was lost is never adopted without a person.

        :param context: the running task's, as Airflow hands it to ``execute`` or ``get_current_context()`` returns it.
        :return: the receipt, plain JSON; amounts are decimal text, times Unix milliseconds.
        :raises PacificaError: one of ``pacifica_provider.exceptions``. Those that a retry cannot help are an
            ``AirflowFailException`` as well.
        :raises AirflowSkipException: for a sweep for which there is too little.
        """
        refuse_wrong(type(self).__name__, {"allow_backfill": allow_backfill}, says=NOTHING_BY_THIS_TRY)
        request = WithdrawalRequest(
            symbol, amount, withdrawal_ref, reserve=reserve, minimum=minimum, allow_backfill=allow_backfill
        )
        return self.withdraw_as_asked(request, context)

    def withdraw_as_asked(self, request: WithdrawalRequest, context: Mapping[str, Any]) -> Receipt:
        """Withdraw as ``withdraw_spot_asset`` does: the way of the operator, which can ask for more."""
        with failing_without_retry():
            return self._withdraw(request, context)

    def _withdraw(self, request: WithdrawalRequest, context: Mapping[str, Any]) -> Receipt:
        from pacifica_provider.hooks.receipts import receipt_json
        from pacifica_provider.withdrawals.withdraw import Policy, withdraw

        case = self._begin(request, context)
        settings, settle = self.settings, case.settle
        approvers: tuple[str, ...] = ()
        if request.approvals:
            with case.run.speaking_for_this_try():
                approvers = self._approved(request, case, context)
        try:
            receipt = withdraw(
                case.identity,
                settle if settle.reads else settle(None),
                settings.base_url,
                context=case.run.try_context(request),
                ledger=case.ledger,
                exchange=self._reader,
                make_signer=lambda: self._unlocked(request, case),
                policy=Policy(key_trust_ms=settings.key_trust_ms),
                runtime=self._runtime(),
            )
        except WithdrawalRejected as error:
            if error.status is not None:  # "Agent not authorized", say, tells neither address
                error.args = (f"{error} The account is {settings.account}, and {self._signer_text()}.",)
            raise
        case.run.note_withdrawn(request.withdrawal_ref)
        said = receipt_json(receipt, settings, settle.symbol, case.identity.idempotency_key())
        return {**said, "approved_by": list(approvers)} if approvers else said

    def rehearse(self, request: WithdrawalRequest, context: Mapping[str, Any]) -> Rehearsal:
        """
        Do everything that a withdrawal does, but for signing, sending, and writing anything down.

        :return: what the receipt would say. It is the order on record where there is one.
        :raises PacificaError: as a withdrawal would before it sends anything.
        :raises AirflowSkipException: for a sweep for which there is too little.
        """
        from pacifica_provider.hooks.receipts import rehearsal

        with failing_without_retry():
            case = self._begin(request, context)
            state, fee = self._rehearsed(request, case)
        order, key = case.settle.settled, case.identity.idempotency_key()
        self.log.info("%s: dry run, nothing is sent or written down; state of the record: %s", order, state)
        return rehearsal(order, fee, self.settings, key, state)

    def prepare(
        self, request: WithdrawalRequest, context: Mapping[str, Any], *, withdraw_task_id: str
    ) -> PreparedOrder:
        """
        Settle the order of another task of this run, check it as a dry run does, and write it down for approval.

        What is written never changes: the run withdraws that or nothing.

        :param withdraw_task_id: the task that will withdraw.
        :raises ParameterMismatch: if another order was prepared for it in this run.
        :raises PacificaError, AirflowSkipException: as ``rehearse``.
        """
        from pacifica_provider.hooks.receipts import prepared_json
        from pacifica_provider.withdrawals.prepared import Prepared

        with failing_without_retry():
            case = self._begin(request, context, withdraw_task_id)
            written = self._prepared(case)
            _, fee = self._rehearsed(request, case)
            order, settings = case.settle.settled, self.settings
            if written is None:
                now_ms = self._runtime().now_ms()
                written = Prepared.of(
                    case.identity, order, settings.base_url, environment=settings.environment, fee=fee, now_ms=now_ms
                )
                with _unwritten():
                    case.ledger.set(prepared_entry(*case.names), written.to_json())
            written.refuse_another(case.identity, settings.base_url, order)
        prepared = prepared_json(written)
        self.log.info("Prepared for approval, nothing is sent: %s", prepared["text"])
        return prepared

    def _rehearsed(self, request: WithdrawalRequest, case: _Case) -> tuple[str, Decimal | None]:
        """Settle and check the order, and return the state of its record, and the present fee."""
        from pacifica_provider.withdrawals.record import Record
        from pacifica_provider.withdrawals.withdraw import withdrawal_fee

        stored = self._entry(case, withdrawal_entry(*case.names))
        record = None if stored is None else Record.from_json(stored)
        order = case.settle(None if record is None else record.kept_order)
        self._unlocked(request, case)
        return "none" if record is None else record.state, withdrawal_fee(self._reader, order.symbol)

    def _prepared(self, case: _Case) -> Prepared | None:
        """Return what was prepared, if anything was; the order is settled by it then."""
        from pacifica_provider.withdrawals.prepared import Prepared

        stored = self._entry(case, prepared_entry(*case.names))
        if stored is None:
            return None
        prepared = Prepared.from_json(stored)
        case.settle.prepared = prepared.order
        return prepared

    def _entry(self, case: _Case, name: str) -> object | None:
        with _unwritten():
            return case.ledger.get(name)

    def _approved(self, request: WithdrawalRequest, case: _Case, context: Mapping[str, Any]) -> tuple[str, ...]:
        """Let the order be what was prepared, and return who approved that; it is noted before anything is sent."""
        from pacifica_provider.withdrawals.prepared import read_approval

        prepared = self._prepared(case)
        if prepared is None:
            raise ConfigurationError(
                "No order was prepared for this task: a PrepareWithdrawalOperator has to run before it is approved. "
                "Nothing was sent."
            )
        prepared.refuse_another(case.identity, self.settings.base_url, case.settle(prepared.order))
        if len(prepared.approved_by) < len(request.approvals):
            prepared = prepared.approved(
                [read_approval(task_id, _returned(context["ti"], task_id)) for task_id in request.approvals]
            )
            with _unwritten():
                case.ledger.set(prepared_entry(*case.names), prepared.to_json())
        self.log.info("%s: approved by %s", prepared.order, ", ".join(prepared.approved_by))
        return prepared.approved_by

    def _begin(
        self, request: WithdrawalRequest, context: Mapping[str, Any], withdraw_task_id: str | None = None
    ) -> _Case:
        """Check what a task asks for, and say it; nothing is read of the exchange yet."""
        from pacifica_provider.hooks.ledgers import ledger_for
        from pacifica_provider.hooks.requests import OrderSettler
        from pacifica_provider.hooks.task_context import TaskRun

        run = TaskRun.from_context(context)
        run = run if withdraw_task_id is None else replace(run, task_id=withdraw_task_id)
        with run.speaking_for_this_try():
            ledger = ledger_for(context)
            with _born_if_refused(ledger, self._runtime()):
                wanted, settings = request.wanted(), self.settings
                identity = run.identity(settings.account, settings.idempotency_scope, request.withdrawal_ref)
                key = identity.idempotency_key()
                settle = OrderSettler(wanted, request, key=key, exchange=self._reader)
            run.refuse_second_call(request.withdrawal_ref)
        self.log.info(
            "%s from account %s on Pacifica %s (reference %r, scope %r, idempotency key %s)",
            wanted,
            settings.account,
            settings.environment,
            request.withdrawal_ref,
            settings.idempotency_scope,
            key,
        )
        return _Case(run, identity, ledger, settle)

    def _unlocked(self, request: WithdrawalRequest, case: _Case) -> PacificaClient:
        """Check whatever can fail before anything is signed, and return the client that can sign."""
        case.run.refuse_backfill(allow_backfill=request.allow_backfill)
        self.settings.check_limit(case.settle.settled)
        return self._client(self._signer())

    def recorded_receipt(
        self, context: Mapping[str, Any], withdrawal_ref: str | None, symbol: str, batch_nonce: int
    ) -> Receipt:
        """
        Return the receipt that the running task has on record for this batch; nothing is sent or looked up at Pacifica.

        :raises Unresolved: if it is not there or cannot be read; a retry of the task recalls or settles it.
        """
        from pacifica_provider.hooks.ledgers import ledger_for
        from pacifica_provider.hooks.receipts import receipt_json
        from pacifica_provider.hooks.task_context import TaskRun
        from pacifica_provider.withdrawals.ledger import LedgerUnavailableError, withdrawal_entry
        from pacifica_provider.withdrawals.record import Record

        run = TaskRun.from_context(context)
        try:
            stored = ledger_for(context).get(withdrawal_entry(run.dag_id, run.run_id, run.task_id, withdrawal_ref))
        except LedgerUnavailableError:
            stored = None
        if stored is not None:
            record = Record.from_json(stored)
            receipt = record.receipt
            if receipt is not None and (record.order.symbol, receipt.batch_nonce) == (symbol, batch_nonce):
                return receipt_json(receipt, self.settings, symbol, record.key)
        raise Unresolved(
            f"The withdrawal of {symbol} in batch {batch_nonce} is on chain, but its receipt cannot be read from "
            "Airflow's ledger. Nothing was sent; a retry recalls it."
        )

    def test_connection(self) -> tuple[bool, str]:
        """
        Check the fields, the key and that the account can be read, without signing or moving anything.

        It says what was proved: address, account, whose key it is, limits, how far the clocks are apart, and whether
        the Solana RPC answers, where there is one. The sentences are fixed or written by this package; no exception of
        a library is repeated.
        """
        try:
            signer = self._signer() if self._connection.password else None
            balances = self._reader.spot_balances()
            pending = self._reader.pending_withdrawals()
        except (ConfigurationError, Retryable) as error:
            return False, str(error)
        settings = self.settings
        if signer is None:
            key = "There is no private key: this connection can read, but not withdraw."
        elif signer.public_key == settings.account:
            key = "The private key is the account's own; an agent key would risk less."
        else:
            key = (
                f"The private key is that of agent {signer.public_key}. Whether it is bound to the account shows at "
                "the first withdrawal."
            )
        clock = _clock_text(pending.server_time_ms)
        answers, chain = self._chain_text()
        return answers, (
            f"Pacifica ({settings.environment}, {settings.base_url}) knows account {settings.account} and shows its "
            f"{len(balances)} spot balances. {key} {_limits_text(settings)} {clock}{chain}"
        )

    def _chain_text(self) -> tuple[bool, str]:
        """Say whether the Solana RPC can be used, where there is one; it is asked for a transaction that cannot be."""
        if self.settings.solana_rpc_url is None:
            return True, ""
        from pacifica_provider.api.solana import NO_TRANSACTION

        status = self._chain_statuses(NO_TRANSACTION)[NO_TRANSACTION]
        if status.word != "no answer":
            return True, " The Solana RPC answers."
        return False, f" The Solana RPC gives no answer ({status.why}): no wait for settlement would end."

    @cached_property
    def _held(self) -> _Unshown:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        try:
            return _Unshown(self.get_connection(self.pacifica_conn_id))
        except AirflowNotFoundException:
            _check_that_airflow_answers(self.pacifica_conn_id)
            raise ConfigurationError(
                f"Airflow knows no connection {self.pacifica_conn_id!r} that it can read: define it, or mend "
                "pacifica_conn_id. Nothing was sent by this try."
            ) from None

    @property
    def _connection(self) -> Connection:
        return self._held.connection

    @cached_property
    def _reader(self) -> PacificaClient:
        return self._client(None)

    def _client(self, signer: Signer | None) -> PacificaClient:
        from pacifica_provider.api.client import Endpoints, PacificaClient
        from pacifica_provider.api.transports import RequestsTransport

        settings = self.settings
        return PacificaClient(
            Endpoints(settings.base_url, settings.account, api_config_key=settings.api_config_key),
            RequestsTransport(timeout_s=settings.timeout_s),
            signer=signer,
            expiry_window_ms=settings.expiry_window_ms,
        )

    def _signer(self) -> Signer:
        """Load the private key, register every form of it with Airflow's masker, and check that it fits."""
        from pacifica_provider.api.signing import Signer

        settings = self.settings
        if not self._connection.password:
            raise KeyMaterialError(
                f"The connection {self.pacifica_conn_id!r} holds no private key (password): it can read, but not "
                "withdraw. Nothing was sent."
            )
        if self._connection.password in {settings.account, settings.agent_wallet}:
            raise KeyMaterialError(
                f"The connection {self.pacifica_conn_id!r} holds an address in the place of the private key "
                "(password). Nothing was sent."
            )
        signer = Signer.from_base58(self._connection.password)
        signer.mask_with(mask_secret)
        if settings.agent_wallet not in {None, signer.public_key}:
            # The pin is not repeated: a seed looks like an address, and may have been written into the wrong field.
            raise KeyMaterialError(
                f"The connection pins another agent wallet than that of its private key, {signer.public_key}. Nothing "
                "was sent."
            )
        if signer.public_key == settings.account:
            self.log.warning(
                "The private key is the account's own: whoever reads it owns the wallet that withdrawals land in. "
                "An agent key (app.pacifica.fi/apikey) risks less."
            )
        return signer

    def _signer_text(self) -> str:
        from pacifica_provider.api.signing import Signer

        public_key = Signer.from_base58(str(self._connection.password)).public_key
        return "it signed itself" if public_key == self.settings.account else f"agent wallet {public_key} signed for it"

    def __reduce__(self) -> tuple[type[PacificaHook], tuple[str]]:
        """Pickle the connection's id alone: what was read of the connection holds the key."""
        return type(self), (self.pacifica_conn_id,)

    def _runtime(self) -> Runtime:
        from pacifica_provider.hooks.task_context import runtime

        return runtime(self.log.info)


@dataclass(frozen=True, slots=True)
class _Case:
    """One try of one withdrawal, checked and not begun."""

    run: TaskRun
    identity: RunIdentity
    ledger: Ledger
    settle: OrderSettler

    @property
    def names(self) -> tuple[str, str, str, str | None]:
        """What the ledger names its entries by."""
        mine = self.identity
        return mine.dag_id, mine.run_id, mine.task_id, mine.withdrawal_ref


@contextmanager
def _born_if_refused(ledger: Ledger, runtime: Runtime) -> Iterator[None]:
    """
    Let the ledger begin even where the first try of all is refused: its connection is not set up, or not handed over.

    Else the try after the mending would find a ledger younger than its run, and would have to ask a person.
    """
    from pacifica_provider.withdrawals.ledger import LedgerState, LedgerUnavailableError

    try:
        yield
    except (ConfigurationError, Unresolved):
        with suppress(LedgerUnavailableError):
            LedgerState.of(ledger, runtime.now_ms())
        raise


def _check_that_airflow_answers(conn_id: str) -> None:
    """
    Raise ``Unresolved`` if it is not Airflow's API that says that there is no such connection.

    Airflow says "isn't defined" as well where its API server or its database did not answer (seen on 3.3.2). That
    passes, so it must not fail the task for good.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

    from pacifica_provider.hooks.ledgers import supervisor

    send = supervisor()
    if send is None:  # not in a task, where the database was asked
        return
    try:
        answer = send(GetConnection(conn_id=conn_id))
    except (AirflowRuntimeError, OSError, EOFError) as error:
        what = type(error).__name__
    else:
        if isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND:
            return
        what = answer.error.value if isinstance(answer, ErrorResponse) else "it answers now"
    raise Unresolved(
        f"Airflow did not hand over the connection {conn_id!r} ({what}). Nothing was sent by this try. Whether an "
        "earlier one sent something stands on record; the next try reads it first."
    )


@contextmanager
def _unwritten() -> Iterator[None]:
    """Say of a ledger that could not be used before anything was sent that this try sent nothing."""
    from pacifica_provider.withdrawals.ledger import LedgerUnavailableError
    from pacifica_provider.withdrawals.messages import unread

    try:
        yield
    except LedgerUnavailableError as error:
        raise unread(str(error)) from None


def _returned(ti: Any, task_id: str) -> object:
    """Return what another task of the run returned: the one of the same mapped group, or the only one."""
    said = ti.xcom_pull(task_ids=task_id)
    return ti.xcom_pull(task_ids=task_id, map_indexes=-1) if said is None else said


def _limits_text(settings: ConnectionSettings) -> str:
    if settings.withdrawal_limits is None:
        return "There are no withdrawal limits."
    limits = (f"{limit:f} {symbol}" for symbol, limit in settings.withdrawal_limits.items())
    return f"At most {', '.join(limits)} in one withdrawal, and nothing else."


def _clock_text(server_time_ms: int | None) -> str:
    """Compare this machine's clock with the exchange's, which tells whole seconds."""
    if server_time_ms is None:
        return "Its answers carry no Date, without which nothing is withdrawn."
    from pacifica_provider.withdrawals.withdraw import Policy

    behind_s = round((server_time_ms + 500) / 1000 - time.time())
    if abs(behind_s) <= 1:
        return "Its clock and this machine's agree."
    return (
        f"This machine's clock is {abs(behind_s)} s {'behind' if behind_s > 0 else 'ahead of'} Pacifica's; where a "
        f"worker's is more than {Policy().skew_ms / 1000:g} s off, nothing is withdrawn."
    )


class _Unshown:
    """Holds Airflow's connection, whose own ``repr`` shows the password to whatever prints locals."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
