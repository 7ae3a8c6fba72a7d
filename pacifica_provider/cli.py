"""
The commands: ``airflow pacifica …`` from Airflow 3.2 on, ``python -m pacifica_provider.cli …`` everywhere.

``case`` shows one withdrawal and takes a person's decision on it; ``ledger prune`` and ``ledger restored`` look after
the ledger. They reach Airflow's database, as Airflow's own commands do. Reading the exchange's lists needs no key.
Airflow imports this module at every call of ``airflow``, so it imports next to nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from airflow.cli.cli_config import CLICommand

    from pacifica_provider.hooks.settings import ConnectionSettings
    from pacifica_provider.withdrawals.decisions import Decision
    from pacifica_provider.withdrawals.ledger import WholeLedger
    from pacifica_provider.withdrawals.matching import ListedRow
    from pacifica_provider.withdrawals.record import Attempt, Record

DONE, NOT_FOUND, REFUSED = 0, 1, 2
_TIMEOUT_S = 10.0
_WHY = "the reason; kept in the record"

Option = tuple[str, dict[str, Any]]
CASE: tuple[Option, ...] = (
    ("--dag-id", {"required": True, "help": "the DAG"}),
    ("--run-id", {"required": True, "help": "the run"}),
    ("--task-id", {"required": True, "help": "the withdrawing task"}),
    ("--withdrawal-ref", {"help": "which withdrawal, if the task names one"}),
    ("--conn-id", {"default": "pacifica_default", "help": "whose Solana RPC is asked for transactions, if it has one"}),
    ("--decide", {"choices": ["adopt", "repost", "void"], "help": "take a decision; the next try applies it"}),
    ("--batch-nonce", {"type": int, "help": "adopt: the row that is this withdrawal"}),
    ("--created-at", {"type": int, "help": "adopt: its created_at, where several rows share a batch"}),
    ("--rows", {"default": "", "help": "repost: batch nonces, comma separated, that are not this withdrawal"}),
    ("--why", {"help": _WHY}),
    ("--by", {"help": "who decides; your user name if left out"}),
)
PRUNE: tuple[Option, ...] = (
    ("--before", {"required": True, "help": "ISO time: forget withdrawals that ended before; older runs then ask"}),
)
RESTORED: tuple[Option, ...] = ()


def get_pacifica_cli_commands() -> list[CLICommand]:
    """Return the provider's commands for Airflow's own command line."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    def action(name: str, text: str, options: Sequence[Option]) -> ActionCommand:
        return ActionCommand(
            name=name,
            help=text,
            func=lazy_load_command(f"pacifica_provider.cli.{name}_and_exit"),
            args=tuple(Arg((flag,), **settings) for flag, settings in options),
        )

    ledger = GroupCommand(
        name="ledger",
        help="Look after the ledger of withdrawals",
        subcommands=(
            action("prune", "Forget withdrawals that ended long ago", PRUNE),
            action("restored", "Say that Airflow's database came back from a backup", RESTORED),
        ),
    )
    case = action("case", "Show one withdrawal and take a person's decision on it", CASE)
    return [GroupCommand(name="pacifica", help="Withdrawals from Pacifica", subcommands=(case, ledger))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the command; return its exit status."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m pacifica_provider.cli", description="Withdrawals from Pacifica")
    commands = parser.add_subparsers(required=True)
    ledger = commands.add_parser("ledger", help="look after the ledger of withdrawals").add_subparsers(required=True)
    for name, where, options, run in (
        ("case", commands, CASE, case),
        ("prune", ledger, PRUNE, prune),
        ("restored", ledger, RESTORED, restored),
    ):
        command = where.add_parser(name)
        command.set_defaults(run=run)
        for flag, settings in options:
            command.add_argument(flag, **settings)
    args = parser.parse_args(arguments)
    return _run(args.run, args)


def _run(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run the command; what it cannot do is said in a sentence, with exit status 2."""
    from pacifica_provider.exceptions import PacificaError
    from pacifica_provider.withdrawals.ledger import LedgerUnavailableError

    try:
        _begin_airflow()
        return command(args)
    except (PacificaError, LedgerUnavailableError) as error:
        print(error)
        return REFUSED


def _begin_airflow() -> None:
    """Let Airflow read its configuration; ``ConfigurationError`` if it cannot, in the place of a traceback."""
    import configparser
    import os

    from sqlalchemy.exc import ArgumentError

    from pacifica_provider.exceptions import ConfigurationError

    # PostgreSQL's library waits for a server that answers nothing as long as the server likes.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    try:
        import airflow.settings  # noqa: F401 - what is imported first reads the configuration
    except (ImportError, OSError, ValueError, configparser.Error, ArgumentError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"Airflow's configuration cannot be used from here ({type(error).__name__}: {said}). Run the command where "
            "Airflow's scheduler runs, or mend AIRFLOW_HOME, its airflow.cfg or AIRFLOW__DATABASE__SQL_ALCHEMY_CONN."
        ) from None


def case_and_exit(args: argparse.Namespace) -> None:
    """Run as ``airflow pacifica case``, whose exit status is this one's."""
    sys.exit(_run(case, args))


def prune_and_exit(args: argparse.Namespace) -> None:
    """Run as ``airflow pacifica ledger prune``."""
    sys.exit(_run(prune, args))


def restored_and_exit(args: argparse.Namespace) -> None:
    """Run as ``airflow pacifica ledger restored``."""
    sys.exit(_run(restored, args))


def case(args: argparse.Namespace) -> int:
    """Show the case, or take the decision; return 0 if done, 1 if there is no such case, 2 if refused."""
    from dataclasses import replace

    from pacifica_provider.hooks.ledgers import ledger_from_outside
    from pacifica_provider.withdrawals.ledger import LedgerState, decision_entry, withdrawal_entry
    from pacifica_provider.withdrawals.record import Record

    names = (args.dag_id, args.run_id, args.task_id, args.withdrawal_ref)
    ledger = ledger_from_outside()
    stored = ledger.get(withdrawal_entry(*names))
    if stored is None:
        print(_NO_ENTRY)
        print(_known_references(ledger, args))
        return NOT_FOUND
    # What is decided is decided on the ledger as it is now, which may have come back since the record was written.
    record = replace(Record.from_json(stored), restores=LedgerState.of(ledger, _now_ms()).restores)
    waiting = decision_entry(*names)
    if args.decide:
        return _decide(ledger, waiting, record, args)
    return _show(record, args, decision_waits=ledger.get(waiting) is not None, entry=withdrawal_entry(*names))


def prune(args: argparse.Namespace) -> int:
    """Forget the withdrawals that ended before a time; runs older than that ask from now on."""
    from datetime import UTC, datetime

    from pacifica_provider.hooks.ledgers import ledger_from_outside
    from pacifica_provider.withdrawals import ledger

    try:
        moment = datetime.fromisoformat(args.before)
    except ValueError:
        print(f"{args.before!r} is no ISO time, such as 2026-01-31. Nothing was done.")
        return REFUSED
    before_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if before_ms > _now_ms() - _LEAST_AGE_MS:
        print("Withdrawals of the last 30 days are kept: their runs may still be cleared. Nothing was done.")
        return REFUSED
    forgotten, unreadable = ledger.prune(ledger_from_outside(), before_ms, _now_ms())
    print(
        f"Withdrawals forgotten: {forgotten}. Runs from before {args.before} ask a person instead of paying from now "
        "on; so do those that catchup or a backfill makes later."
    )
    if unreadable:
        print(f"These entries cannot be read and were left as they are: {', '.join(unreadable)}.")
    return DONE


def restored(args: argparse.Namespace) -> int:  # noqa: ARG001 - a command's signature
    """Say that the ledger may lack what was written before now: runs older than now ask from now on."""
    from pacifica_provider.hooks.ledgers import ledger_from_outside
    from pacifica_provider.withdrawals import ledger

    ledger.restored(ledger_from_outside(), _now_ms())
    print("Noted. A run from before now whose withdrawal has not ended on record asks a person, if it is tried again.")
    return DONE


_LEAST_AGE_MS = 30 * 24 * 3_600_000
_NO_ENTRY = (
    "Airflow's ledger holds no record of this withdrawal: it was never sent, its record was lost, the names are "
    "others, or this command reads the database of another Airflow. Whether money moved shows Pacifica's withdrawal "
    "history."
)


def _known_references(ledger: WholeLedger, args: argparse.Namespace) -> str:
    """Return the references under which the task has withdrawn, for somebody who did not name one."""
    from pacifica_provider.exceptions import ConfigurationError
    from pacifica_provider.withdrawals.record import Record

    known = []
    for name in ledger.names():
        if name.startswith("withdrawal_"):
            try:
                identity = Record.from_json(ledger.get(name)).identity
            except ConfigurationError:  # another task's, as far as can be told
                continue
            if (identity.dag_id, identity.run_id, identity.task_id) == (args.dag_id, args.run_id, args.task_id):
                named = identity.withdrawal_ref
                known.append("  (none)" if named is None else f"  --withdrawal-ref {named!r}")
    return "This task has records under:\n" + "\n".join(sorted(known)) if known else "This task has no record at all."


def _show(record: Record, args: argparse.Namespace, *, decision_waits: bool, entry: str) -> int:
    from pacifica_provider.hooks.task_context import case_command

    print(_describe(record, entry))
    if record.state in {"accepted", "void"}:
        print("Nothing is left to decide.")
        return DONE
    listed = _listed(record)
    print(_describe_rows(record, listed, _chain_words(record, listed, args.conn_id)))
    command = case_command(args.dag_id, args.run_id, args.task_id, args.withdrawal_ref)
    print(_describe_choices(record, listed, command))
    if decision_waits:
        print("A decision waits for the next try. Clear the task to have it applied.")
    return DONE


def _decide(ledger: WholeLedger, waiting: str, record: Record, args: argparse.Namespace) -> int:
    import getpass
    import uuid

    from pacifica_provider.withdrawals import decisions

    if not (args.why or "").strip() or "…" in args.why:
        print("--why is missing: write the reason in the place of …, it is kept in the record. Nothing was decided.")
        return REFUSED
    said = {"by": args.by or getpass.getuser(), "why": args.why, "decision_id": uuid.uuid4().hex}
    listed = () if args.decide == "void" else _listed(record)
    if args.decide == "void":
        decision: Decision = decisions.Void(record.key, **said)
    elif args.decide == "repost":
        named = [int(nonce) for nonce in args.rows.split(",") if nonce.strip().isdigit()]
        decision = decisions.repost(record, named, **said)
    else:
        rows = [each.row for each in listed if each.row.batch_nonce == args.batch_nonce]
        rows = [row for row in rows if args.created_at in {None, row.created_at_ms}]
        if not rows or len({(row.created_at_ms, row.amount) for row in rows}) > 1:
            print(
                f"{len(rows)} listed withdrawals have batch_nonce {args.batch_nonce}; name one with --batch-nonce and "
                "--created-at. Nothing was decided."
            )
            return REFUSED
        decision = decisions.adopt(record, rows[0], **said)
    return _leave(ledger, waiting, record, decision, listed, args=args)


def _leave(
    ledger: WholeLedger,
    waiting: str,
    record: Record,
    decision: Decision,
    listed: Sequence[ListedRow],
    *,
    args: argparse.Namespace,
) -> int:
    from airflow.utils.cli import action_cli

    from pacifica_provider.withdrawals import decisions

    def pacifica_decision(_: argparse.Namespace) -> None:
        ledger.set(waiting, decisions.stored_form(decision))

    try:  # the same function that the next try applies, so that what it would drop is refused now
        decisions.apply_decision(record, decision, listed, tolerance_ms=_tolerance_ms())
    except decisions.StaleDecisionError as error:
        print(f"The decision cannot be taken: {error}. Nothing was decided.")
        return REFUSED
    # Airflow's audit log has the whole command line as the event cli_pacifica_decision of the task.
    action_cli(check_db=False)(pacifica_decision)(args)
    identity = record.identity
    print(
        f"Taken: {decisions.action(decision)} {record.order} by {decision.by}. It is applied by the task's next try. "
        f"Clear the task {identity.task_id!r} of the run {identity.run_id!r} of the DAG {identity.dag_id!r} on "
        "Airflow's page or with one call of its REST API, which names the run:\n"
        f"POST /api/v2/dags/{identity.dag_id}/clearTaskInstances\n{_clear_body(record)}"
    )
    return DONE


def _clear_body(record: Record) -> str:
    import json

    identity = record.identity
    return json.dumps(
        {"dry_run": False, "dag_run_id": identity.run_id, "task_ids": [identity.task_id], "only_failed": True}
    )


def _listed(record: Record) -> Sequence[ListedRow]:
    """Read the lists as they are now. They are public: neither connection nor key is needed."""
    from pacifica_provider.api.client import Endpoints, PacificaClient
    from pacifica_provider.api.transports import RequestsTransport
    from pacifica_provider.withdrawals.matching import Reading, Snapshot, history_since_ms, listed_rows
    from pacifica_provider.withdrawals.withdraw import withdrawal_fee

    tolerance_ms = _tolerance_ms()
    client = PacificaClient(
        Endpoints(record.base_url, record.identity.account), RequestsTransport(timeout_s=_TIMEOUT_S)
    )
    snapshot = Snapshot(0, 0, 0, client.pending_withdrawals().rows)
    history = client.withdrawal_history(history_since_ms(record, tolerance_ms)).rows
    reading = Reading(snapshot, history, withdrawal_fee(client, record.order.symbol))
    return listed_rows(record, reading, tolerance_ms=tolerance_ms)


def _chain_words(record: Record, listed: Sequence[ListedRow], conn_id: str) -> dict[str, str]:
    """Return what the connection's Solana RPC says of each listed transaction; nothing where there is no such RPC."""
    names = [each.row.transaction_id for each in listed if each.row.transaction_id]
    settings = _settings(conn_id) if names else None
    if settings is None or settings.solana_rpc_url is None:
        return {}
    if settings.base_url != record.base_url:  # its RPC may be that of another cluster
        return dict.fromkeys(names, "not asked")
    from pacifica_provider.api.solana import ask_chain

    statuses = ask_chain(settings.solana_rpc_url, names, timeout_s=_TIMEOUT_S)
    return {name: str(status) for name, status in statuses.items()}


def _settings(conn_id: str) -> ConnectionSettings | None:
    """Return the connection, without its key; ``None`` where it cannot be read: the case is shown all the same."""
    from airflow.models.connection import Connection
    from airflow.sdk.log import mask_secret

    from pacifica_provider.hooks.settings import ConnectionSettings

    try:
        settings = ConnectionSettings.of_connection(Connection.get_connection_from_secrets(conn_id))
    except Exception:  # noqa: BLE001 - a secrets backend may raise anything, and a case is shown without the chain
        return None
    for secret in settings.secrets if settings.solana_rpc_url else ():
        mask_secret(secret)
    return settings


def _tolerance_ms() -> int:
    from pacifica_provider.withdrawals.protocol import Policy

    return Policy().tolerance_ms


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


_STATES = {
    "open": "not finished: the next try goes on with it",
    "accepted": "accepted: no try will ever send it again",
    "rejected": "rejected: nothing moved; the next try begins anew",
    "unknown": "UNKNOWN: whether money moved cannot be shown; no try sends anything before you decide",
    "void": "voided by a person: no try will ever send it again",
}


def _describe(record: Record, entry: str) -> str:
    lines = [
        f"Withdrawal of {record.order}",
        f"  account          {record.identity.account} at {record.base_url}",
        f"  idempotency key  {record.key}",
        f"  reference        {record.identity.withdrawal_ref or '(none)'}",
        f"  ledger entry     {entry}",
        f"  state            {_STATES[record.state]}",
    ]
    if record.reason:
        lines.append(f"  reason           {record.reason}")
    if record.receipt is not None:
        how = ", adopted from Pacifica's lists" if record.receipt.adopted else ""
        lines.append(f"  receipt          batch_nonce {record.receipt.batch_nonce}{how}")
    if record.maybe_sent:
        lines.append("  earlier tries    a record of them may be lost; one may have sent it")
    lines += [f"  attempt {number}        {_attempt(a)}" for number, a in enumerate(record.attempts, 1)]
    return "\n".join(lines)


def _describe_rows(record: Record, listed: Sequence[ListedRow], chain: Mapping[str, str]) -> str:
    from pacifica_provider.withdrawals.messages import rows_text

    symbol = record.order.symbol
    if not listed:
        return f"Pacifica's lists show no withdrawal of {symbol} since the record began."
    return f"Pacifica lists these withdrawals of {symbol} since the record began:\n{rows_text(listed, chain)}"


def _describe_choices(record: Record, listed: Sequence[ListedRow], command: str) -> str:
    from pacifica_provider.withdrawals.decisions import to_be_named

    lines = ["Decide with one of these, then clear the task:"]
    for each in listed:
        if each.fit != "other":
            named = f"--batch-nonce {each.row.batch_nonce} --created-at {each.row.created_at_ms}"
            lines.append(f"  {command} --decide adopt {named} --why '…'")
    if record.duplicate:
        lines.append("  (repost is not possible: Pacifica has answered 409 to this idempotency key)")
    else:
        others = ",".join(str(nonce) for nonce in to_be_named(listed))
        rows_option = f" --rows {others}" if others else ""
        lines.append(f"  {command} --decide repost{rows_option} --why 'nothing moved, because …'")
    lines.append(f"  {command} --decide void --why 'settled elsewhere: …'")
    lines.append(
        "adopt: the row is this withdrawal. repost: nothing moved, and the rows named are somebody else's. void: "
        "this run never withdraws; a new one is a new run or a new withdrawal_ref."
    )
    return "\n".join(lines)


def _attempt(attempt: Attempt) -> str:
    from pacifica_provider.withdrawals.messages import utc_text

    status = "" if attempt.status is None else f" HTTP {attempt.status}"
    detail = f" ({attempt.detail})" if attempt.detail else ""
    return f"signed {utc_text(attempt.signed_ms)}: {attempt.outcome}{status}{detail}"


if __name__ == "__main__":
    sys.exit(main())
