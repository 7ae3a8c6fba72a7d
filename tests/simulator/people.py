"""The person who decides about a case: mostly rightly, sometimes too early, sometimes from wrong information."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulator.exchange import Row
    from tests.simulator.setting import Setting
    from tests.simulator.tasks import Task

_ASKS_FOR_A_PERSON = frozenset({"OutcomeUnknown", "Unresolved", "ConfigurationError"})


def act_on(task: Task) -> bool:
    """Leave a decision in the task's store, if its end asks for one and somebody cares; return whether one was left."""
    world = task.setting
    if task.outcome not in _ASKS_FOR_A_PERSON or not world.weather.strikes(world.weather.profile.person):
        return False
    wrong = world.weather.strikes(world.weather.profile.person_wrong)
    decision = decide_wrongly(task) if wrong else decide_rightly(task)
    if decision is None:
        return False
    leave(task, decision)
    return True


def decide_rightly(task: Task) -> dict[str, Any] | None:
    """Decide as somebody does who knows what moved; wait where the lists do not show it yet."""
    world = task.setting
    own = debits_of(world, task.payment.owner)
    if own:
        listed = [row for row in own if row.is_listed(world.agenda.now_ms) and _as_asked(task, row)]
        return {"action": "adopt", "batch_nonce": listed[0].batch_nonce, "outside_window": True} if listed else None
    if world.rng.random() < 0.5:
        return {"action": "void"}
    return {"action": "repost", "rows": _named(task)}


def decide_wrongly(task: Task) -> dict[str, Any]:
    """Decide without knowing: any row is ours, or nothing moved, or for another case altogether."""
    world = task.setting
    choice = world.rng.randrange(5)
    if choice == 0:
        return {"action": "void"}
    if choice == 1:
        return {"action": "adopt", "batch_nonce": 7, "outside_window": True}
    if choice == 2:
        return {"action": "repost", "rows": [], "key": "00000000-0000-5000-8000-000000000000"}
    rows = [row for row in world.exchange.rows if row.is_listed(world.agenda.now_ms)]
    if choice == 3 and rows:
        row = world.rng.choice(rows)
        return {"action": "adopt", "batch_nonce": row.batch_nonce, "outside_window": world.rng.random() < 0.5}
    return {"action": "repost", "rows": _named(task)}


def _named(task: Task) -> list[int]:
    return sorted(set(task.last.nonces)) if task.last else []


def leave(task: Task, decision: dict[str, Any]) -> None:
    """Put the decision into the store, and note whether it is true."""
    world = task.setting
    own = debits_of(world, task.payment.owner)
    nonce = decision.get("batch_nonce")
    right = {
        "adopt": any(row.batch_nonce == nonce and _as_asked(task, row) for row in own),
        "repost": not own,
        "void": True,
    }[decision["action"]]
    world.chronicle.mark(task.number, decision["action"], nonce, right=right)
    world.chronicle.tell(f"person t{task.number}", f"{decision}, {'rightly' if right else 'wrongly'}")
    key = task.payment.identity.idempotency_key()
    task.shelf.decision = {"key": key, "by": "ana", "why": "looked into it", **decision}


def _as_asked(task: Task, row: Row) -> bool:
    return task.last is not None and row.amount == task.last.asked


def debits_of(setting: Setting, owner: int) -> list[Row]:
    """Return what was in truth withdrawn for one identity."""
    return [row for row in setting.exchange.rows if row.sender is not None and row.sender.owner == owner]
