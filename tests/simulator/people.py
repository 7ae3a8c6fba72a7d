"""The person who decides about a case: mostly rightly, sometimes late, sometimes from wrong information."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pacifica_provider.api.amounts import canonical_text
from pacifica_provider.withdrawals.ledger import BIRTH_ENTRY, decision_entry, withdrawal_entry
from tests.simulator.history import Decided
from tests.simulator.profiles import HOUR, MINUTE

if TYPE_CHECKING:
    from tests.simulator.exchange import Row
    from tests.simulator.setting import Setting
    from tests.simulator.tasks import Payment, Task

_ASKS_FOR_A_PERSON = frozenset({"OutcomeUnknown", "Unresolved", "ConfigurationError"})
_MALFORMED: tuple[object, ...] = (
    "repost",
    17,
    [],
    {"action": "repost"},
    {"action": ["void"], "key": "k", "by": "ana", "why": "w"},
    {"action": "adopt", "key": "k", "by": "ana", "why": "w", "batch_nonce": 1.5},
)


def act_on(task: Task) -> bool:
    """Take a decision, if the task's end asks for one and somebody cares; return whether the task is to be cleared."""
    world = task.setting
    injector, rng = world.injector, world.rng
    if task.outcome not in _ASKS_FOR_A_PERSON or not injector.strikes(injector.profile.person):
        return False
    wrong = injector.strikes(injector.profile.person_wrong)
    decision = decide_wrongly(task) if wrong else decide_rightly(task)
    if decision is None:
        return False
    late_ms = 0
    if injector.strikes(injector.profile.person_late):
        world.seen["person: late"] += 1
        late_ms = rng.choice((5_000, MINUTE, 10 * MINUTE, 2 * HOUR))
    leave(task, decision, late_ms=late_ms)
    return True


def decide_rightly(task: Task) -> dict[str, Any] | None:
    """Decide as somebody does who knows what moved; wait where the lists or the ledger do not show it yet."""
    world, record = task.setting, record_of(task)
    if record is None or record["state"] not in {"open", "unknown"}:
        return None
    own = debits_of(world, task.payment.owner)
    if own:
        # Another order's, or older than the record, as another deployment's are: not shown, so not to be adopted.
        fitting = [
            row
            for row in own
            if (row.key, canonical_text(row.amount)) == (record["key"], record["order"]["amount"])
            and row.created_ms >= record["since_ms"] - 6_000
        ]
        if not fitting:
            return {"action": "void"}
        listed = [row for row in fitting if row.is_listed(world.scheduler.now_ms)]
        # Of two deployments' rows, a person takes that of the own one.
        listed.sort(key=lambda row: _deployment_of(world, row) != task.run.deployment.table.deployment)
        return _adopting(task, listed[0]) if listed else None
    if world.rng.random() < 0.5 or any(attempt["status"] == 409 for attempt in record["attempts"]):
        return {"action": "void"}
    return _reposting(task, record)


def decide_wrongly(task: Task) -> Any:
    """Decide without knowing: any row is ours, or nothing moved, or for another case altogether, or no decision."""
    world, rng = task.setting, task.setting.rng
    record = record_of(task) or {"fingerprint": "f", "attempts": []}
    choice = rng.randrange(7)
    rows = [row for row in world.exchange.rows if row.is_listed(world.scheduler.now_ms)]
    if choice == 0:
        return {"action": "void"}
    if choice == 1:
        return {**_reposting(task, record), "key": "00000000-0000-5000-8000-000000000000"}
    if choice == 2:
        return {**_reposting(task, record), "attempts": max(0, len(record["attempts"]) - 1)}
    if choice == 3:
        world.seen["decision malformed"] += 1
        return rng.choice(_MALFORMED)
    if choice in {4, 5} and rows:
        adopting = _adopting(task, rng.choice(rows))
        return {**adopting, "fingerprint": "of another order"} if rng.random() < 0.2 else adopting
    return _reposting(task, record)


def leave(task: Task, decision: Any, *, late_ms: int = 0) -> None:
    """Put the decision into the ledger, now or later, and note what it says and whether it is true now."""
    world, payment = task.setting, task.payment
    if isinstance(decision, dict) and "by" not in decision:
        decision = {"key": payment.identity.idempotency_key(), **decision}
        number = len(world.history.decided)
        decision = {**decision, "by": "ana", "why": "looked into it", "decision_id": f"decision-{number}"}
        _note(task, decision)
    world.history.tell(f"person t{task.number}", f"{decision}, in {late_ms / 1000:g} s")
    world.scheduler.at(world.scheduler.now_ms + late_ms, partial(_put, task, payment, decision))


def _put(task: Task, payment: Payment, decision: Any) -> None:
    identity = payment.identity
    name = decision_entry(identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
    task.run.deployment.table.put(name, json.dumps(decision))


def _note(task: Task, decision: dict[str, Any]) -> None:
    world, owner = task.setting, task.payment.owner
    own = debits_of(world, owner)
    action, nonce = decision["action"], decision.get("batch_nonce")
    right = {"adopt": any(row.batch_nonce == nonce for row in own), "repost": not own, "void": True}[action]
    world.history.decided.append(Decided(decision["decision_id"], action, owner, world.scheduler.now_ms, nonce, right))
    world.seen[f"person: {action}, {'rightly' if right else 'wrongly'}"] += 1


def _adopting(task: Task, row: Row) -> dict[str, Any]:
    """Name a row as the lists show it now."""
    world = task.setting
    pending = row.settles_ms > world.scheduler.now_ms
    record = record_of(task) or {"fingerprint": "f"}
    return {
        "action": "adopt",
        "fingerprint": record["fingerprint"],
        "batch_nonce": row.batch_nonce,
        "created_at_ms": row.created_ms if pending else world.exchange.shown_ms(row),
        "amount": canonical_text(row.amount if pending else world.exchange.shown_amount(row)),
    }


def _reposting(task: Task, record: dict[str, Any]) -> dict[str, Any]:
    """Say that nothing moved, naming every row that is listed and is not this payment's."""
    world = task.setting
    named = {row.batch_nonce for row in world.exchange.rows if row.is_listed(world.scheduler.now_ms)}
    own = {row.batch_nonce for row in debits_of(world, task.payment.owner)}
    if world.rng.random() < 0.5:  # in haste, without looking whose they are
        own = set()
    return {
        "action": "repost",
        "fingerprint": record["fingerprint"],
        "attempts": len(record["attempts"]),
        "rows": sorted(named - own),
        "restores": (task.run.deployment.table.json(BIRTH_ENTRY) or {}).get("restores", 0),
    }


def _deployment_of(setting: Setting, row: Row) -> int | None:
    return None if row.sender is None else setting.history.tries[row.sender.attempt].deployment


def record_of(task: Task) -> dict[str, Any] | None:
    """Return what the ledger holds of the payment that the task's last word was about."""
    identity = task.payment.identity
    name = withdrawal_entry(identity.dag_id, identity.run_id, identity.task_id, identity.withdrawal_ref)
    record: dict[str, Any] | None = task.run.deployment.table.json(name)
    return record


def debits_of(setting: Setting, owner: int) -> list[Row]:
    """Return what was in truth withdrawn for one payment."""
    return [row for row in setting.exchange.rows if row.sender is not None and row.sender.owner == owner]
