"""The hook: a Pacifica connection, checked, as a configured client; and the one way to withdraw."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from pacifica_provider.exceptions import ConfigurationError, KeyMaterialError, Retryable, Unresolved
from pacifica_provider.hooks.failures import failing_without_retry
from pacifica_provider.hooks.settings import ConnectionSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from airflow.providers.common.compat.sdk import Connection

    from pacifica_provider.api.client import PacificaClient
    from pacifica_provider.api.models import PendingWithdrawal, SettledWithdrawal, SpotBalance
    from pacifica_provider.api.signing import Signer
    from pacifica_provider.withdrawals.look import Surroundings
    from pacifica_provider.withdrawals.tracking import Sighting, Tracked


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
        settings: ConnectionSettings = ConnectionSettings.of_connection(self._connection)
        if settings.api_config_key:
            mask_secret(settings.api_config_key)
        return settings

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

    def sight(self, tracked: Tracked, fee: Decimal | None = None) -> Sighting:
        """
        Look where an accepted withdrawal stands; history is read only once it has left the pending list.

        :param fee: what was deducted, where a receipt says it; else the asset's present fee is read.
        """
        from pacifica_provider.withdrawals.tracking import is_pending, matches, sight

        with failing_without_retry():
            pending = self._reader.pending_withdrawals().rows
            if is_pending(tracked, pending):
                return sight(tracked, pending, (), None)
            if fee is None and tracked.amount is not None:
                fee = self._reader.bridge_parameters(tracked.symbol).withdrawal_fee
            found = False

            def past_it(row: SettledWithdrawal) -> bool:
                nonlocal found
                ours = matches(tracked, row, fee)
                found = found or ours
                return found and not ours  # an equal row may follow on the next page

            return sight(tracked, pending, self._reader.withdrawal_history(enough=past_it).rows, fee)

    def withdraw_spot_asset(
        self,
        symbol: object,
        amount: object,
        *,
        context: Mapping[str, Any],
        withdrawal_ref: str | None = None,
        allow_backfill: bool = False,
    ) -> dict[str, Any]:
        """
        Withdraw once for the DAG run that the context belongs to, whatever retry, clear or backfill this is.

        The same protocol as ``WithdrawSpotAssetOperator``; see its documentation. Several withdrawals in one task
        need a ``withdrawal_ref`` each, and each must be finished before the next.

        :param context: the running task's, as Airflow hands it to ``execute`` or ``get_current_context()`` returns it.
        :return: the receipt, plain JSON; amounts are decimal text, times Unix milliseconds.
        :raises PacificaError: one of ``pacifica_provider.exceptions``. Those that a retry cannot help are an
            ``AirflowFailException`` as well.
        """
        from pacifica_provider.hooks.receipts import receipt_json
        from pacifica_provider.hooks.run import TaskRun
        from pacifica_provider.withdrawals.identity import Order
        from pacifica_provider.withdrawals.look import Policy
        from pacifica_provider.withdrawals.submit import Submission

        with failing_without_retry():
            run = TaskRun.from_context(context)
            with run.speaking_for_this_try():
                order = Order.parse(symbol, amount)
                settings = self.settings
                identity = run.identity(settings.account, settings.idempotency_scope, withdrawal_ref)
            self.log.info(
                "Pacifica %s, account %s, scope %r: %s for this run, idempotency key %s",
                settings.environment,
                settings.account,
                settings.idempotency_scope,
                order,
                identity.idempotency_key(),
            )

            def unlock() -> PacificaClient:
                run.refuse_backfill(allow_backfill=allow_backfill)
                settings.check_limit(order)
                return self._client(self._signer())

            receipt = Submission(
                run=run.facts(withdrawal_ref),
                store=run.store,
                reader=self._reader,
                unlock=unlock,
                policy=Policy(key_trust_ms=settings.key_trust_ms),
                around=self._surroundings(),
            ).run(identity, order, settings.base_url)
            return receipt_json(receipt, settings, order.symbol, identity.idempotency_key())

    def recorded_receipt(self, context: Mapping[str, Any], symbol: str, batch_nonce: int) -> dict[str, Any]:
        """
        Return the receipt that the running task has on record for this batch; nothing is sent or looked up at Pacifica.

        :raises Unresolved: if it is not there or cannot be read; a retry of the task recalls or settles it.
        """
        from pacifica_provider.hooks.receipts import receipt_json
        from pacifica_provider.hooks.run import TaskRun
        from pacifica_provider.withdrawals.intents import Journal, StoreUnavailableError

        try:
            entry = Journal(TaskRun.from_context(context).store, lambda: uuid.uuid4().hex).recall()
        except StoreUnavailableError:
            entry = None
        for record in entry.records.values() if entry else ():
            receipt = record.receipt
            if receipt is not None and (record.order.symbol, receipt.batch_nonce) == (symbol, batch_nonce):
                return receipt_json(receipt, self.settings, symbol, record.key)
        raise Unresolved(
            f"The withdrawal of {symbol} in batch {batch_nonce} is on chain, but its receipt cannot be read from "
            "Airflow's store. Nothing was sent; a retry recalls it."
        )

    def test_connection(self) -> tuple[bool, str]:
        """
        Check the fields, the key and that the account can be read, without signing or moving anything.

        The sentences are fixed or written by this package; no exception of a library is repeated.
        """
        try:
            signer = self._signer() if self._connection.password else None
            self._reader.spot_balances()
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
        return True, f"Pacifica ({settings.environment}) knows account {settings.account}. {key}"

    @cached_property
    def _held(self) -> _Unshown:
        return _Unshown(self.get_connection(self.pacifica_conn_id))

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
        signer = Signer.from_base58(self._connection.password)
        signer.mask_with(mask_secret)
        if settings.agent_wallet not in {None, signer.public_key}:
            raise KeyMaterialError(
                f"The connection pins agent wallet {settings.agent_wallet}, but its private key is that of "
                f"{signer.public_key}. Nothing was sent."
            )
        if signer.public_key == settings.account:
            self.log.warning(
                "The private key is the account's own: whoever reads it owns the wallet that withdrawals land in. "
                "An agent key (app.pacifica.fi/apikey) risks less."
            )
        return signer

    def _surroundings(self) -> Surroundings:
        from pacifica_provider.hooks.run import surroundings

        return surroundings(self.log.info)


class _Unshown:
    """Holds Airflow's connection, whose own ``repr`` shows the password to whatever prints locals."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
