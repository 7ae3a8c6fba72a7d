"""The ledger against the DAG runs: what each withdrawal of a chaos run came to, and whether that keeps the promise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals.identity import RunIdentity
from tests.lab.airflow_rest import NOT_FOUND, RestRefused

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster
    from tests.lab.runs import Run

# What a failed task may stay at: each of these claims waits for a person, or is an answer.
FINAL_CLAIMS = ("OutcomeUnknown", "WithdrawalRejected", "ParameterMismatch", "ConfigurationError")


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
        if run.dag_id == "pay_mapped":
            return [cls(run, "withdraw", index) for index in range(3)]
        if run.dag_id == "pay_by_hook":
            two = [cls(run, "by_current_context", -1, ref, n) for n, ref in enumerate(("first", "second"))]
            return [cls(run, "by_context"), *two]
        return [cls(run, "withdraw")]

    @property
    def keys(self) -> list[str]:
        """Every key it may have: which reference a mapped task has depends on how the mapping was ordered."""
        references = [f"ref-{n}" for n in range(3)] if self.run.dag_id == "pay_mapped" else [self.reference]
        identity = (self.run.payer.account, self.run.dag_id, self.run.run_id, self.task_id)
        return [RunIdentity(*identity, reference).idempotency_key() for reference in references]

    def __str__(self) -> str:
        place = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.run.dag_id} {self.run.run_id} {self.task_id}{place} {self.reference or ''}".rstrip()


class Checker:
    """Reads ledger, task states, receipts and records once, then says what is true of each withdrawal."""

    def __init__(self, cluster: TestCluster, withdrawals: list[Withdrawal]) -> None:
        self._airflow = cluster.airflow
        self._withdrawals = withdrawals
        ledger = cluster.default.ledger()
        self._posts: list[dict[str, Any]] = ledger["posts"]
        self._debits: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for debit in ledger["debits"]:
            self._debits[str(debit["idempotency_key"])].append(debit)
        runs = {(each.run.dag_id, each.run.run_id) for each in withdrawals}
        self._tasks = {
            (dag_id, run_id, task["task_id"], task["map_index"]): task
            for dag_id, run_id in sorted(runs)
            for task in self._airflow.task_instances(dag_id, run_id)
        }
        self._claims: dict[str, str] = {}

    def wants_another_try(self, withdrawal: Withdrawal) -> bool:
        """Say whether its task failed for want of retries, so that another try would go on."""
        return self._state(withdrawal) == "failed" and not self._claim(withdrawal).startswith(FINAL_CLAIMS)

    def verdict(self) -> dict[str, Any]:
        """Return the figures, and every violation of the promise."""
        outcomes, unknown, tries = Counter[str](), Counter[str](), Counter[str]()
        violations = self._ledger_violations()
        for each in self._withdrawals:
            state, claim = self._state(each), ""
            tries[f"{self._task(each).get('try_number')} tries"] += 1
            if state == "success":
                violations += self._success_violations(each)
            elif state == "failed":
                claim = self._claim(each)
                violations += self._failure_violations(each, claim)
                if claim.startswith("OutcomeUnknown"):
                    unknown[_cause(claim)] += 1
            elif state != "upstream_failed":
                violations.append(f"{each} never ended: it is {state}")
            outcomes[" ".join([str(state), claim.split(":")[0]]).strip()] += 1
        return {
            "withdrawals": len(self._withdrawals),
            "outcomes": dict(outcomes),
            "unknown": dict(unknown),
            "tries": dict(tries),
            "debits": sum(len(each) for each in self._debits.values()),
            "posts": len(self._posts),
            "violations": violations,
        }

    def _ledger_violations(self) -> list[str]:
        known = {key for each in self._withdrawals for key in each.keys}
        twice = [f"key {key} has {len(debits)} debits" for key, debits in self._debits.items() if len(debits) > 1]
        strange = [f"key {key} belongs to no run" for key in self._debits if key not in known]
        return twice + strange

    def _success_violations(self, withdrawal: Withdrawal) -> list[str]:
        receipt = self._receipt(withdrawal)
        if receipt is None:
            return [f"{withdrawal} succeeded without a receipt"]
        debits = self._debits.get(receipt["idempotency_key"], [])
        if receipt["idempotency_key"] not in withdrawal.keys or len(debits) != 1:
            return [f"{withdrawal} succeeded with {len(debits)} debits under {receipt['idempotency_key']}"]
        (debit,) = debits
        if (receipt["batch_nonce"], receipt["symbol"]) != (debit["batch_nonce"], debit["symbol"]):
            return [f"{withdrawal} names batch {receipt['batch_nonce']}, its debit is in {debit['batch_nonce']}"]
        return []

    def _failure_violations(self, withdrawal: Withdrawal, claim: str) -> list[str]:
        if not claim.startswith(FINAL_CLAIMS):
            return [f"{withdrawal} did not end although the trouble did: {claim[:200]}"]
        paid = any(self._debits.get(key) for key in withdrawal.keys)
        if claim.startswith("WithdrawalRejected") and withdrawal.map_index < 0 and paid:
            return [f"{withdrawal} was said to be rejected, but there is a debit"]
        return []

    def _task(self, withdrawal: Withdrawal) -> dict[str, Any]:
        run = withdrawal.run
        return self._tasks.get((run.dag_id, run.run_id, withdrawal.task_id, withdrawal.map_index), {})

    def _state(self, withdrawal: Withdrawal) -> str:
        # A mapped task that was never expanded has nothing to answer for.
        return str(self._task(withdrawal).get("state", "upstream_failed"))

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
        if str(withdrawal) not in self._claims:
            run = withdrawal.run
            task, number = (run.dag_id, run.run_id, withdrawal.task_id), int(self._task(withdrawal)["try_number"])
            log = self._airflow.task_log(*task, number, withdrawal.map_index)
            found = re.findall(r"'exc_type': '(\w+)', 'exc_value': ['\"](.*?)['\"], ", log)
            self._claims[str(withdrawal)] = ": ".join(found[-1]) if found else f"no error is logged by try {number}"
        return self._claims[str(withdrawal)]


def _cause(claim: str) -> str:
    """Return why an outcome is unknown, without what differs from case to case."""
    told = re.search(r"Why: (.*?)\.?(?:\\n|$)", claim)
    return re.sub(r"\d+", "n", told[1] if told else claim)[:140]
