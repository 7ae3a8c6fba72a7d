"""The ledger against the DAG runs: what each withdrawal of a chaos run came to, and whether that keeps the promise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals.identity import RunIdentity
from tests.lab.airflow_rest import NOT_FOUND, RestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tests.lab.chaos_nemesis import Strike
    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Run

# What a failed task may stay at: each of these claims waits for a person, or is an answer.
FINAL_CLAIMS = ("OutcomeUnknown", "WithdrawalRejected", "ParameterMismatch", "ConfigurationError")
DRIFTING = "pay_drifting"  # it asks for another amount at every try, so that a mismatch is its own doing
MAPPED = ("pay_mapped", "pay_many")
# What was away comes back so long after it was started again.
AFTERMATH = timedelta(seconds=10)
# Where a try has got an end, it lies in the history under its id; the last one lies in the other table.
TRIES = "select dag_id, run_id, task_id, map_index, {}, start_date, end_date, try_number from {}"


@dataclass(frozen=True)
class Withdrawal:
    """One withdrawal that a run was asked for; ``position`` says where its receipt is, if a task returns several."""

    run: Run
    task_id: str
    map_index: int = -1
    reference: str | None = None
    position: int | None = None

    @classmethod
    def of(cls, run: Run) -> list[Withdrawal]:
        """Return the withdrawals of a run, by its DAG."""
        if run.dag_id in MAPPED:
            return [cls(run, "withdraw", index) for index in range(3)]
        if run.dag_id == "pay_by_hook":
            two = [cls(run, "by_current_context", -1, ref, n) for n, ref in enumerate(("first", "second"))]
            return [cls(run, "by_context"), *two]
        return [cls(run, "withdraw")]

    def __str__(self) -> str:
        place = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.run.dag_id} {self.run.run_id} {self.task_id}{place} {self.reference or ''}".rstrip()


@dataclass(frozen=True)
class Try:
    """One try of a task: its id, and from when to when Airflow took it for running."""

    id: str
    begun: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Seen:
    """What Airflow says of one withdrawal; ``keys`` is every key that it may have."""

    name: str
    account: str
    keys: tuple[str, ...]
    state: str
    drifting: bool = False
    tries: tuple[Try, ...] = ()
    accident: bool = False
    receipt: Mapping[str, Any] | None = None
    claim: str = ""


@dataclass(frozen=True)
class Told:
    """What the exchange and our own ledger say; ``records`` are its entries by key."""

    debits: Sequence[Mapping[str, Any]]
    posts: Sequence[Mapping[str, Any]]
    records: Mapping[str, Mapping[str, Any]]
    strikes: Sequence[Strike] = ()


@dataclass
class Judge:
    """
    Says what is true of each withdrawal. Pure: it reads nothing.

    The promise is broken by a key with two debits or one that no run has, a success without exactly its own debit,
    "nothing moved" where there is a debit, money that moved without a record, a record that says otherwise, a
    withdrawal that never ended, and one that is unknown or failed although nothing befell it.
    """

    told: Told
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._debits: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for debit in self.told.debits:
            self._debits[str(debit["idempotency_key"])].append(debit)
        self._faulty = {str(post["key"]) for post in self.told.posts if post["fault"] is not None}

    def verdict(self, seen: Sequence[Seen]) -> dict[str, Any]:
        """Return the figures, and every violation of the promise."""
        outcomes, why_unknown, tries = Counter[str](), Counter[str](), Counter[str]()
        ended = Counter(adopted=0, unknown_with_cause=0, failed_with_cause=0)
        self._judge_ledgers({key for each in seen for key in each.keys})
        for each in seen:
            before = len(self.violations)
            self._judge(each)
            kind = each.claim.split(":")[0]
            outcomes[f"{each.state} {kind}".strip()] += 1
            tries[f"{len(each.tries)} tries"] += 1
            if kind == "OutcomeUnknown":
                why_unknown[_why(each.claim)] += 1
            if len(self.violations) == before and each.state != "success":
                ended["unknown_with_cause" if kind == "OutcomeUnknown" else "failed_with_cause"] += 1
            ended["adopted"] += bool(each.receipt and each.receipt["adopted"])
        return {
            "withdrawals_asked": len(seen),
            "debits": len(self.told.debits),
            **ended,
            "posts": len(self.told.posts),
            "outcomes": dict(outcomes),
            "unknown": dict(why_unknown),
            "tries": dict(tries),
            "violations": self.violations,
        }

    def _judge_ledgers(self, known: set[str]) -> None:
        for key, debits in self._debits.items():
            if len(debits) > 1:
                self._broken(f"key {key} has {len(debits)} debits")
            if key not in known:
                self._broken(f"key {key} belongs to no run")
            elif not self.told.records.get(key, {}).get("attempts"):
                self._broken(f"key {key} has a debit, and no request of it is on record")

    def _judge(self, seen: Seen) -> None:
        if seen.state == "success":
            self._judge_success(seen)
        elif seen.state == "failed":
            self._judge_failure(seen)
        elif seen.state == "upstream_failed":
            if not self._caused(seen):
                self._broken(f"{seen.name} never began, and nothing befell its run")
        else:
            self._broken(f"{seen.name} never ended: it is {seen.state}")

    def _judge_success(self, seen: Seen) -> None:
        receipt = seen.receipt
        if receipt is None:
            self._broken(f"{seen.name} succeeded without a receipt")
            return
        key = receipt["idempotency_key"]
        debits = self._debits.get(key, [])
        if key not in seen.keys or len(debits) != 1:
            self._broken(f"{seen.name} succeeded with {len(debits)} debits under {key}")
            return
        (debit,) = debits
        here = (seen.account, receipt["symbol"], Decimal(receipt["requested_amount"]), receipt["batch_nonce"])
        there = (debit["account"], debit["symbol"], Decimal(debit["amount"]), debit["batch_nonce"])
        if here != there:
            self._broken(f"{seen.name} says that it paid {here}; its debit is {there}")
        if receipt.get("transaction_id") not in (None, debit["transaction_id"]):
            self._broken(f"{seen.name} says that it settled as {receipt['transaction_id']}; {debit['transaction_id']}")
        record = self.told.records.get(key, {})
        if record.get("state") != "accepted" or record["receipt"]["batch_nonce"] != receipt["batch_nonce"]:
            self._broken(f"{seen.name} succeeded, and its record is {record.get('state')}")

    def _judge_failure(self, seen: Seen) -> None:
        if not seen.claim.startswith(FINAL_CLAIMS):
            self._broken(f"{seen.name} did not end although the trouble did: {seen.claim[:200]}")
        elif seen.claim.startswith("ConfigurationError"):
            self._broken(f"{seen.name} blames the connection, which is right: {seen.claim[:200]}")
        elif seen.claim.startswith("ParameterMismatch"):
            if not seen.drifting:
                self._broken(f"{seen.name} saw another order, and there is only one: {seen.claim[:200]}")
        elif not self._caused(seen):
            self._broken(f"{seen.name} ended so, and nothing befell it: {seen.claim[:200]}")
        if "o money moved" in seen.claim and any(self._debits.get(key) for key in seen.keys):
            self._broken(f"{seen.name} was said to have moved nothing, but there is a debit: {seen.claim[:200]}")
        states = {self.told.records.get(key, {}).get("state") for key in seen.keys}
        if seen.claim.startswith("OutcomeUnknown") and "unknown" not in states:
            self._broken(f"{seen.name} is unknown, and its record is not: {states}")

    def _caused(self, seen: Seen) -> bool:
        """Tell whether anything befell it: an answer, one of its tries by name, or all of Airflow while it ran."""
        return (
            seen.accident
            or any(key in self._faulty for key in seen.keys)
            or any(_befell(strike, each) for strike in self.told.strikes for each in seen.tries)
        )

    def _broken(self, text: str) -> None:
        self.violations.append(text)


class Checker:
    """Reads ledger, task states, receipts and records once, for the judge."""

    def __init__(self, cluster: TestCluster, withdrawals: Sequence[Withdrawal]) -> None:
        self._airflow = cluster.airflow
        self._withdrawals = withdrawals
        self._history: dict[tuple[str, str, str, int], list[Try]] = defaultdict(list)
        tables = (TRIES.format("task_instance_id", "task_instance_history"), TRIES.format("id", "task_instance"))
        for row in self._airflow.database.query(f"{' union '.join(tables)} order by try_number"):
            dag_id, run_id, task_id, map_index, identifier, begun, ended, _number = row
            self._history[dag_id, run_id, task_id, map_index].append(Try(str(identifier), begun, ended))
        self._exchange = cluster.default
        runs = {(each.run.dag_id, each.run.run_id) for each in withdrawals}
        self._tasks = {
            (dag_id, run_id, task["task_id"], task["map_index"]): task
            for dag_id, run_id in sorted(runs)
            for task in self._airflow.task_instances(dag_id, run_id)
        }

    def unfinished(self) -> list[tuple[Withdrawal, list[str] | None]]:
        """Return what failed for want of retries, so that another try would go on, and which tasks to clear for it."""
        again: list[tuple[Withdrawal, list[str] | None]] = []
        for each in self._withdrawals:
            if self._state(each) == "upstream_failed":
                again.append((each, None))
            elif self._state(each) == "failed" and not self._claim(each).startswith(FINAL_CLAIMS):
                again.append((each, [each.task_id]))
        return again

    def verdict(self, strikes: Sequence[Strike]) -> dict[str, Any]:
        """Return the figures, and every violation of the promise."""
        ledger = self._exchange.ledger()
        states = self._airflow.entries()
        records = {each["key"]: each for name, each in states.items() if name.startswith("withdrawal_")}
        told = Told(ledger["debits"], ledger["posts"], records, strikes)
        return Judge(told).verdict([self._seen(each) for each in self._withdrawals])

    def _seen(self, withdrawal: Withdrawal) -> Seen:
        run, state = withdrawal.run, self._state(withdrawal)
        return Seen(
            name=str(withdrawal),
            account=run.payer.account,
            keys=self._keys(withdrawal),
            state=state,
            drifting=run.dag_id == DRIFTING,
            tries=self._tries(withdrawal),
            accident=(run.folder / "reached").exists(),
            receipt=self._receipt(withdrawal) if state == "success" else None,
            claim=self._claim(withdrawal) if state == "failed" else "",
        )

    def _keys(self, withdrawal: Withdrawal) -> tuple[str, ...]:
        """Return every key it may have: a mapped task shows which of its references it has once it has begun."""
        run, references = withdrawal.run, [withdrawal.reference]
        if run.dag_id in MAPPED:
            every = [f"ref-{n}" for n in range(3)]
            shown = self._task(withdrawal).get("rendered_map_index")
            references = [shown] if shown in every else [*every]
        identity = (run.payer.account, run.dag_id, run.run_id, withdrawal.task_id)
        return tuple(RunIdentity(*identity, reference).idempotency_key() for reference in references)

    def _task(self, withdrawal: Withdrawal) -> dict[str, Any]:
        run = withdrawal.run
        return self._tasks.get((run.dag_id, run.run_id, withdrawal.task_id, withdrawal.map_index), {})

    def _state(self, withdrawal: Withdrawal) -> str:
        # A mapped task that was never expanded is not there: what it was to be mapped over has failed.
        return str(self._task(withdrawal).get("state", "upstream_failed"))

    def _tries(self, withdrawal: Withdrawal) -> tuple[Try, ...]:
        """Return its tries; of one that was never expanded, those of the task it was to be mapped over."""
        run, there = withdrawal.run, bool(self._task(withdrawal))
        task_id, map_index = (withdrawal.task_id, withdrawal.map_index) if there else ("orders", -1)
        return tuple(self._history[run.dag_id, run.run_id, task_id, map_index])

    def _receipt(self, withdrawal: Withdrawal) -> dict[str, Any] | None:
        try:
            found = withdrawal.run.receipt(withdrawal.task_id, withdrawal.map_index)
        except RestRefused as error:
            if error.status != NOT_FOUND:
                raise
            return None
        return dict(found if withdrawal.position is None else found[withdrawal.position])

    def _claim(self, withdrawal: Withdrawal) -> str:
        """Return class and text of the error that the task's last try ended with."""
        run = withdrawal.run
        task, number = (run.dag_id, run.run_id, withdrawal.task_id), int(self._task(withdrawal)["try_number"])
        log = self._airflow.task_log(*task, number, withdrawal.map_index)
        found = re.findall(r"'exc_type': '(\w+)', 'exc_value': ['\"](.*?)['\"], ", log)
        return ": ".join(found[-1]) if found else f"no error is logged by try {number}"


def _befell(strike: Strike, each: Try) -> bool:
    """Tell whether the strike named this try, or concerned all of Airflow while the try ran."""
    if strike.tries is not None:
        return each.id in strike.tries
    begun, ended = each.begun or strike.begun, each.ended or strike.ended
    return strike.begun <= ended and begun <= strike.ended + AFTERMATH


def _why(claim: str) -> str:
    """Return why an outcome is unknown, without what differs from case to case."""
    told = re.search(r"Why: (.*?)\.?(?:\\n|$)", claim)
    return re.sub(r"\d+", "n", told[1] if told else claim)[:140]
