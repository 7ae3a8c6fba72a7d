"""The operator that withdraws a spot asset once for a DAG run."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import Asset, BaseOperator, BaseOperatorLink, conf
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from pacifica_provider.assets import WITHDRAWALS
from pacifica_provider.exceptions import ConfigurationError, SettlementTimeout
from pacifica_provider.links import PortfolioLink, RecordsLink, RunbookLink, SolanaTransactionLink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from airflow.providers.common.compat.sdk import Context, XComArg

    from pacifica_provider.hooks.pacifica import PacificaHook
    from pacifica_provider.hooks.receipts import Receipt

# A worker that dies is missed after five minutes (Airflow's default); with its default delay of five more, the next try
# would come when the key may be forgotten, and would have to ask a person.
RETRIES = 3
RETRY_DELAY = timedelta(minutes=1)
REFERENCE = "{{ task.withdrawal_ref }}"
_ARGUMENTS = (
    *("wait_for_settlement", "deferrable", "allow_backfill", "tag_amount", "preflight", "dry_run"),
    "approvals",
    *("settlement_timeout", "poll_interval", "pacifica_conn_id"),
    *("symbol", "amount", "withdrawal_ref", "reserve", "minimum"),
)


def with_ledger(assets: Any) -> list[Any]:
    """
    Return the author's inlets or outlets, and the ledger's asset if it is not among them.

    As an outlet it makes each success an event. As an inlet it keeps the ledger: Airflow deletes the state of an asset
    that nothing names, and forgets the outlets of a DAG whose file is gone for a moment, but not its inlets (3.3, 3.4).
    """
    given = list(assets) if isinstance(assets, (list, tuple, set)) else [assets] if assets else []
    named = any(isinstance(each, Asset) and each.name == WITHDRAWALS.name for each in given)
    return given if named else [*given, WITHDRAWALS]


class _PartialWithLedger:
    """
    ``BaseOperator.partial`` with what ``__init__`` adds: the ledger's asset among inlets and outlets, and the retries.

    What is known to be wrong of it is refused when the DAG is parsed, of what it is expanded with when it runs. Airflow
    builds a mapped task's context from what ``partial`` was given.
    """

    def __get__(self, task: BaseOperator | None, owner: type[BaseOperator]) -> Callable[..., Any]:
        if task is not None:  # the base refuses it in its own words
            return super(WithdrawSpotAssetOperator, task).partial  # type: ignore[no-any-return,misc]  # as Airflow has it
        base = super(WithdrawSpotAssetOperator, owner).partial  # type: ignore[misc]  # as above

        def partial(**kwargs: Any) -> Any:
            from pacifica_provider.hooks.arguments import NOTHING_BY_THIS_TRY, refuse_wrong

            given = {name: kwargs[name] for name in _ARGUMENTS if kwargs.get(name) is not None}
            refuse_wrong(owner.__name__, given, says=NOTHING_BY_THIS_TRY)
            # Afterwards, as only then the outlets of default_args are among the arguments.
            made = base(**kwargs)
            for name in ("inlets", "outlets"):
                made.kwargs[name] = with_ledger(made.kwargs.get(name))
            # What stands at Airflow's own default was chosen by nobody, or by default_args; more retries pay no more.
            if "retries" not in kwargs and made.kwargs["retries"] == conf.getint("core", "default_task_retries"):
                made.kwargs["retries"] = RETRIES
            airflow_s = conf.getint("core", "default_task_retry_delay", fallback=300)
            if "retry_delay" not in kwargs and made.kwargs["retry_delay"] == timedelta(seconds=airflow_s):
                made.kwargs["retry_delay"] = RETRY_DELAY
            # What Airflow's page calls a mapped task: the withdrawal's name, not its place in a list.
            if made.kwargs.get("map_index_template") is None:
                made.kwargs["map_index_template"] = REFERENCE
            return made

        return partial


class ReceiptArg(PlainXComArg):
    """
    The receipt of a task that has not run yet, or with ``[name]`` one field of it.

    Airflow's own way, an XCom for each field, made a hundred mapped withdrawals last half as long again (measured).
    """

    def __init__(self, operator: Any, field: str | None = None) -> None:
        super().__init__(operator=operator)
        self._field = field

    def __getitem__(self, item: str) -> ReceiptArg:
        """Return a field of the receipt; an unknown one is an error of the DAG file."""
        from pacifica_provider.hooks.receipts import Receipt

        if item not in Receipt.__annotations__:
            raise ConfigurationError(f"A receipt has no field {item!r}, only {', '.join(Receipt.__annotations__)}.")
        return ReceiptArg(self.operator, item)

    def __str__(self) -> str:
        """Return it as a template, for use inside of a text."""
        whole = super().__str__()
        return whole if self._field is None else whole.replace(") }}", f")['{self._field}'] }}}}")

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value; of a mapped task the list of them, ``None`` where the task returned no receipt."""
        receipt = super().resolve(context)
        if self._field is None or receipt is None:
            return receipt
        if isinstance(receipt, Mapping):
            return receipt.get(self._field)
        return [each.get(self._field) for each in receipt]


class WithdrawSpotAssetOperator(BaseOperator):
    """
    Withdraw a spot asset from Pacifica, at most once for a DAG run, and return the receipt.

    The idempotency key derives from account, DAG, run, task and ``withdrawal_ref``, never from the try, the amount
    or a time. So a retry, a kill, a clear or a backfill of the same run recalls the first withdrawal instead of
    making a second:

        a run of 2026-11-23 posts 1 SOL and its worker dies before the answer arrives; the retry looks at Pacifica's
        lists, posts again under the same key, is answered 409, finds the row of the first request and returns its
        receipt.

    Where the outcome cannot be shown the task fails with ``OutcomeUnknown``, without retry, and waits for a person;
    the error says what to look at. A cleared task whose withdrawal was accepted returns the receipt and sends nothing.

    What can be known when the DAG is parsed is refused then, with ``ConfigurationError``.

    :param symbol: spot asset as Pacifica writes it, case sensitive. (templated)
    :param amount: gross amount as decimal text, such as ``"1.5"``, never a float; the fee is taken out of it. ``"all"``
        sweeps: what Pacifica says may be withdrawn is read once, and a retry withdraws that amount and no other.
        (templated)
    :param withdrawal_ref: tells several withdrawals of one task apart; required when the task is mapped, unique in
        the run. (templated)
    :param pacifica_conn_id: the connection, of type ``pacifica``.
    :param wait_for_settlement: wait until the withdrawal is on chain, and add ``transaction_id`` and
        ``seen_settled_at_ms`` (when that was seen, Unix milliseconds) to the receipt. Where the connection has a Solana
        RPC: until the transaction is finalized there too.
    :param deferrable: wait in the triggerer, without a worker slot.
    :param poll_interval: seconds between looks while waiting.
    :param settlement_timeout: how long one try waits; then ``SettlementTimeout``, and a retry waits again without
        posting. So does a withdrawal that is in neither of Pacifica's lists for 30 minutes.
    :param allow_backfill: let a run that a backfill created pay.
    :param reserve: what a sweep leaves. (templated)
    :param minimum: a sweep of less than this skips the task. (templated)
    :param approvals: the ids of the tasks, Airflow's ``ApprovalOperator``, in which somebody must have approved the
        order that a ``PrepareWithdrawalOperator`` prepared; several need as many people. Nothing else is withdrawn.
    :param preflight: read what may be withdrawn, and fail before anything is sent where Pacifica would certainly
        refuse: too little of it, an amount that the fee takes whole, an asset or bridge that is not active. A sweep
        always does.
    :param dry_run: do everything but sign, send and write down, and return what the receipt would say, its
        ``batch_nonce`` ``None``. No event is made of it.
    :param tag_amount: experimental. Take up to 0.00009999 off the amount, derived from the idempotency key, so that the
        withdrawal is recognised in Pacifica's lists by its amount alone and a lost answer needs no person, in a mapped
        task either. Whether Pacifica takes eight decimal places of every asset is not known.
    :param retries: three unless the DAG says otherwise; a retry settles what the try before it left.
    :param retry_delay: a minute unless the DAG says otherwise, so that a retry comes while Pacifica knows the key.
    :return: the receipt: ``account, environment, symbol, batch_nonce, requested_amount, fee_amount, net_amount,
        idempotency_key, submitted_at_ms, adopted``; amounts as decimal text. ``fee_amount`` and ``net_amount`` are
        ``None`` for an adopted withdrawal whose row does not show them.
    """

    partial = _PartialWithLedger()
    template_fields: Sequence[str] = ("symbol", "amount", "withdrawal_ref", "reserve", "minimum")
    ui_color = "#d9eef7"
    operator_extra_links: Collection[BaseOperatorLink] = (
        SolanaTransactionLink(),
        PortfolioLink(),
        RecordsLink(),
        RunbookLink(),
    )
    returned: Receipt | None = None
    """The receipt once there is one, for the link."""

    def __init__(
        self,
        *,
        symbol: str | XComArg,
        amount: str | int | Decimal | XComArg,
        withdrawal_ref: str | XComArg | None = None,
        pacifica_conn_id: str = "pacifica_default",
        wait_for_settlement: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 30,
        settlement_timeout: timedelta = timedelta(hours=72),
        allow_backfill: bool = False,
        reserve: str | int | Decimal | XComArg | None = None,
        minimum: str | int | Decimal | XComArg | None = None,
        approvals: str | Sequence[str] = (),
        preflight: bool = False,
        dry_run: bool = False,
        tag_amount: bool = False,
        retries: int | None = RETRIES,
        retry_delay: timedelta | float = RETRY_DELAY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.inlets = with_ledger(self.inlets)
        self.outlets = with_ledger(self.outlets)
        if self.map_index_template is None and withdrawal_ref is not None:
            self.map_index_template = REFERENCE
        self.symbol = symbol
        self.amount = amount
        self.withdrawal_ref = withdrawal_ref
        self.pacifica_conn_id = pacifica_conn_id
        self.wait_for_settlement = wait_for_settlement
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.settlement_timeout = settlement_timeout
        self.allow_backfill = allow_backfill
        self.reserve = reserve
        self.minimum = minimum
        self.approvals = approvals
        self.preflight = preflight
        self._rehearses = dry_run  # dry_run is a method of Airflow's
        self.tag_amount = tag_amount
        self._not_rendered: ConfigurationError | None = None
        self._hook: PacificaHook | None = None
        self._refuse_wrong()

    @property
    def output(self) -> ReceiptArg:
        """What this task will have returned: ``output["batch_nonce"]`` is a field of the receipt, for the sensor."""
        return ReceiptArg(self)

    @property
    def hook(self) -> PacificaHook:
        """The hook of this operator's connection, which a subclass may name as late as in its ``execute``."""
        from pacifica_provider.hooks.pacifica import PacificaHook

        if self._hook is None or self._hook.pacifica_conn_id != self.pacifica_conn_id:
            self._hook = PacificaHook(self.pacifica_conn_id)
        return self._hook

    @property
    def connection(self) -> dict[str, str] | None:
        """What is shown of the connection beside the rendered templates; ``None`` where it cannot be used."""
        return self.hook.shown_settings(str(self.symbol))

    def execute(self, context: Context) -> Receipt:
        """Withdraw, or recall the withdrawal of this run; then wait for it if asked to."""
        from pacifica_provider.hooks.requests import WithdrawalRequest

        if self._not_rendered is not None:
            raise self._not_rendered
        approvals = (self.approvals,) if isinstance(self.approvals, str) else tuple(self.approvals)
        preflight = self.preflight or self._rehearses
        request = WithdrawalRequest.of_task(self, preflight=preflight, approvals=approvals)
        if self._rehearses:
            rehearsal = self.hook.rehearse(request, context)
            self.outlets = []  # there is nothing to tell the readers of the asset
            return cast("Receipt", rehearsal)  # as far as it goes: batch_nonce is None
        receipt = self.hook.withdraw_as_asked(request, context)
        if not self.wait_for_settlement:
            return self._published(context, receipt)
        end_time = time.time() + self.settlement_timeout.total_seconds()
        if self.deferrable:
            self._link(context, receipt)
            if self.do_xcom_push:  # it may wait for hours: whoever looks meanwhile sees what was accepted
                context["ti"].xcom_push(key="return_value", value=receipt)
            self._defer(receipt, end_time)
        return self._published(context, self._wait(receipt, end_time))

    def execute_complete(
        self, context: Context, event: Mapping[str, Any] | None, receipt: Receipt | None = None
    ) -> Receipt:
        """
        Finish after the deferral, by the event and the receipt alone.

        Templates are rendered again on resume, maybe to something else.
        """
        from pacifica_provider.triggers.events import settled_row

        try:
            row = settled_row(event)
        except SettlementTimeout as error:
            raise _timeout(str(error), receipt) from None
        if receipt is None:  # dag.test() loses what was deferred with
            reference = cast("str | None", self.withdrawal_ref)  # rendered by now
            receipt = self.hook.recorded_receipt(context, reference, row["symbol"], row["batch_nonce"])
        return self._published(context, self._settled(receipt, row))

    def on_kill(self) -> None:
        """Do nothing: a withdrawal cannot be recalled, and the next try settles what this one left."""
        self.log.warning(
            "Killed. A withdrawal that was sent cannot be recalled; the next try settles it, and pays once."
        )

    def _refuse_wrong(self) -> None:
        """Refuse what is known to be wrong of the arguments: better now than once money has moved."""
        from pacifica_provider.hooks.arguments import (
            NOTHING_BY_THIS_TRY,
            refuse_parts_of_no_sweep,
            refuse_without_reference,
            refuse_wrong,
            templates_of,
        )

        given = {name: getattr(self, name) for name in _ARGUMENTS if name != "dry_run"}
        given["dry_run"] = self._rehearses
        if self.withdrawal_ref is None:
            refuse_without_reference(self, NOTHING_BY_THIS_TRY)
            del given["withdrawal_ref"]
        refuse_wrong(type(self).__name__, given, says=NOTHING_BY_THIS_TRY, templates=templates_of(self))
        refuse_parts_of_no_sweep(type(self).__name__, given, says=NOTHING_BY_THIS_TRY)

    def _do_render_template_fields(self, parent: Any, template_fields: Iterable[str], *how: Any, **named: Any) -> None:
        """
        Render as Airflow does, field by field; ``execute`` raises what is wrong with one.

        Airflow reads next what it shows of each field: ``connection`` is none until then, so it is never rendered.
        """
        from pacifica_provider.hooks.arguments import render_each

        render = super()._do_render_template_fields
        owner, names = type(self).__name__, [name for name in template_fields if name != "connection"]
        error = render_each(owner, parent, names, lambda name: render(parent, (name,), *how, **named))
        self._not_rendered = self._not_rendered or error
        if parent is self:
            self.template_fields = (*names, "connection")

    def _link(self, context: Context, receipt: Receipt) -> None:
        """Link to what there is to see: each link costs a round trip, and what a failure asks for is not needed now."""
        self.returned = receipt
        ti, links = cast("Any", context["ti"]), (SolanaTransactionLink(), PortfolioLink())
        self.operator_extra_links = tuple(link for link in links if link.get_link(self, ti_key=ti))

    def _published(self, context: Context, receipt: Receipt) -> Receipt:
        """Put the receipt into the event of every asset among the outlets; an alias names none, so it gets nothing."""
        self._link(context, receipt)
        outlet_events = context.get("outlet_events")
        if outlet_events is not None:
            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    outlet_events[outlet].extra.update(cast("dict[str, Any]", receipt))
        return receipt

    def _defer(self, receipt: Receipt, end_time: float) -> None:
        from pacifica_provider.triggers.withdrawal import WithdrawalBatchTrigger

        self.defer(
            trigger=WithdrawalBatchTrigger(
                pacifica_conn_id=self.pacifica_conn_id,
                symbol=receipt["symbol"],
                batch_nonce=receipt["batch_nonce"],
                amount=receipt["requested_amount"],
                end_time=end_time,
                poll_interval=self.poll_interval,
                fee_amount=receipt["fee_amount"],
                submitted_at_ms=receipt["submitted_at_ms"],
            ),
            method_name="execute_complete",
            kwargs={"receipt": receipt},
            timeout=self.settlement_timeout + timedelta(seconds=2 * self.poll_interval + 60),
        )

    def _wait(self, receipt: Receipt, end_time: float) -> Receipt:
        from pacifica_provider.api.amounts import parse_wire_amount
        from pacifica_provider.triggers.events import settled_json
        from pacifica_provider.withdrawals.settlement import Awaited, Expired, Settled, Waiting, log_level, timed_out

        awaited = Awaited(receipt["symbol"], receipt["batch_nonce"], parse_wire_amount(receipt["requested_amount"]))
        fee = None if receipt["fee_amount"] is None else parse_wire_amount(receipt["fee_amount"])
        waiting = Waiting()
        while True:
            seen = self.hook.look_for(awaited, waiting, fee)
            if isinstance(seen, Settled):
                return self._settled(receipt, settled_json(seen.row))
            if isinstance(seen, Waiting):
                self.log.log(log_level(seen), "%s: %s", awaited, seen.last_seen)
                waiting, seen = seen, timed_out(awaited, seen) if time.time() >= end_time else seen
            if isinstance(seen, Expired):
                raise _timeout(seen.text, receipt)
            time.sleep(self._pause_s(end_time))

    def _pause_s(self, end_time: float) -> float:
        """Return how long to sleep until the next look."""
        return max(0.0, min(self.poll_interval, end_time - time.time()))

    def _settled(self, receipt: Receipt, row: Mapping[str, Any]) -> Receipt:
        """Say the end of it, and complete the receipt."""
        seen_ms, submitted_ms = row["seen_settled_at_ms"], receipt["submitted_at_ms"]
        self.log.info(
            "%s %s settled: transaction %s, batch %s, seen on chain %.0f s after it was submitted",
            receipt["requested_amount"],
            receipt["symbol"],
            row["transaction_id"],
            receipt["batch_nonce"],
            (seen_ms - submitted_ms) / 1000,
        )
        return {**receipt, "transaction_id": row["transaction_id"], "seen_settled_at_ms": seen_ms}


def _timeout(text: str, receipt: Receipt | None) -> SettlementTimeout:
    """Return the error that the wait for this receipt is over."""
    error = SettlementTimeout(
        f"{text} The withdrawal WAS accepted and must not be made again: a retry, or clearing this task, waits on and "
        "sends nothing."
    )
    if receipt is not None:
        error.idempotency_key, error.symbol = receipt["idempotency_key"], receipt["symbol"]
        error.amount = receipt["requested_amount"]
        error.batch_nonces, error.submitted_at_ms = (receipt["batch_nonce"],), (receipt["submitted_at_ms"],)
    return error
