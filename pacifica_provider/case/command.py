"""``airflow pacifica case``: show one task's withdrawal, and take a person's decision on it. Reading needs no key."""

from __future__ import annotations

import getpass
import shlex
import sys
import time
import uuid
from typing import TYPE_CHECKING

from pacifica_provider.case import report
from pacifica_provider.case.book import CaseBook
from pacifica_provider.case.options import case_command
from pacifica_provider.exceptions import PacificaError
from pacifica_provider.withdrawals.decisions import Decision, apply_decision
from pacifica_provider.withdrawals.look import Policy
from pacifica_provider.withdrawals.records import Entry, Record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pacifica_provider.withdrawals.records import Row

DONE, NOT_FOUND, REFUSED = 0, 1, 2
_TIMEOUT_S = 10.0


def run_and_exit(args: argparse.Namespace) -> None:
    """Run as ``airflow pacifica case``, whose exit status is this one's."""
    sys.exit(run(args))


def run(args: argparse.Namespace) -> int:
    """Show the case, or take the decision; return 0 if done, 1 if there is no such case, 2 if refused."""
    book = CaseBook(args.dag_id, args.run_id, args.task_id, args.map_index)
    stored = book.entry()
    if stored is None:
        print(_NO_ENTRY)
        return NOT_FOUND
    try:
        records = [
            record
            for record in Entry.from_json(stored).records.values()
            if args.withdrawal_ref in {None, record.identity.withdrawal_ref}
        ]
        if not args.decide:
            return _show(book, records, args)
        if len(records) != 1:
            print(f"There are {len(records)} such withdrawals; name one with --withdrawal-ref.")
            return NOT_FOUND
        return _decide(book, records[0], args)
    except PacificaError as error:
        print(error)
        return REFUSED


_NO_ENTRY = (
    "Airflow holds no record of withdrawals for this task instance: it never ran, its record was wiped, or the "
    "names are others. Whether money moved shows Pacifica's withdrawal history."
)


def _show(book: CaseBook, records: Sequence[Record], args: argparse.Namespace) -> int:
    for record in records:
        rows = _rows(record) if record.state not in {"accepted", "void"} else ()
        print(report.describe(record))
        if record.state not in {"accepted", "void"}:
            print(report.describe_rows(rows))
        print(
            report.describe_choices(
                record,
                rows,
                case_command(args.dag_id, args.run_id, args.task_id, args.map_index, record.identity.withdrawal_ref),
            )
        )
    if not records:
        print("No withdrawal was ever begun here.")
    if book.decision() is not None:
        print("A decision waits for the next try. Clear the task to have it applied.")
    return DONE


def _decide(book: CaseBook, record: Record, args: argparse.Namespace) -> int:
    decision = Decision.from_json(
        {
            "key": record.key,
            "action": args.decide,
            "by": args.by or getpass.getuser(),
            "why": args.why,
            "batch_nonce": args.batch_nonce,
            "rows": [row.strip() for row in args.rows.split(",") if row.strip()],
            "outside_window": args.outside_window,
            "decision_id": uuid.uuid4().hex,
        }
    )
    if record.state in {"accepted", "void"}:
        print(f"This withdrawal is {record.state}; nothing is left to decide.")
        return REFUSED
    rows = () if decision.action == "void" else _rows(record)
    # The same function that the next try applies, so that what it would refuse is refused now.
    apply_decision(record, decision, rows, now_ms=_now_ms(), skew_ms=Policy().skew_ms)
    book.decide(decision.to_json())
    clear = ["airflow", "tasks", "clear", args.dag_id, "--task-regex", f"^{args.task_id}$", "--yes"]
    print(
        f"Taken: {decision.action} {record.order} by {decision.by}. It is applied by the task's next try: clear the "
        f"task in Airflow's page (keep its task state where you are asked), or its run's with\n{shlex.join(clear)}"
    )
    return DONE


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _rows(record: Record) -> Sequence[Row]:
    """Read the candidates as they are listed now. The lists are public: neither connection nor key is needed."""
    from pacifica_provider.api.client import Endpoints, PacificaClient
    from pacifica_provider.api.transports import RequestsTransport
    from pacifica_provider.withdrawals.candidates import Reading, candidates, history_since_ms

    skew_ms = Policy().skew_ms
    client = PacificaClient(
        Endpoints(record.base_url, record.identity.account), RequestsTransport(timeout_s=_TIMEOUT_S)
    )
    reading = Reading(
        client.pending_withdrawals().rows,
        client.withdrawal_history(history_since_ms(record, skew_ms)).rows,
        client.bridge_parameters(record.order.symbol).withdrawal_fee,
    )
    return candidates(record, [reading], skew_ms=skew_ms)
