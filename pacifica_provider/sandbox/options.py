"""The switches: everything about Pacifica that is unknown, and the knobs of the sandbox itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pacifica_provider.sandbox.errors import BadControl

Check = Callable[[object], bool]


def _option(default: object, says: str, check: Check) -> Any:
    return field(default=default, metadata={"says": says, "check": check})


def _one_of(*values: str) -> Any:
    return _option(values[0], f"one of {', '.join(values)}", lambda value: value in values)


def _flag(*, default: bool) -> Any:
    return _option(default, "true or false", lambda value: isinstance(value, bool))


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[operator,arg-type]  # `number` says it is one


def _number(default: float) -> Any:
    return _option(default, "a number, zero or more", _is_number)


def _number_or_null(default: float | None = None) -> Any:
    return _option(default, "a number, zero or more, or null", lambda value: value is None or _is_number(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(default: int) -> Any:
    return _option(default, "a whole number above zero", _is_count)


@dataclass(frozen=True, slots=True)
class Options:
    """The first value of each is the default. `docs/sandbox.md` says what each one does."""

    # what a repeated key meets
    duplicate_body: str = _one_of("envelope", "text", "empty")
    burn_keys: bool = _flag(default=False)
    key_retention_s: float | None = _number_or_null()
    conflict_in_progress: bool = _flag(default=False)
    balance_before_key: bool = _flag(default=False)
    # signatures
    future_tolerance_ms: float | None = _number_or_null()
    expiry_checked: str = _one_of("commit", "arrival")
    # batches and lists
    nonce_scope: str = _one_of("asset", "global")
    nonce_as_text: bool = _flag(default=False)
    shared_batches: bool = _flag(default=False)
    history_amount: str = _one_of("net", "gross")
    history_time: str = _one_of("accepted", "settled")
    history_page_size: int = _count(100)
    list_lag_s: float = _number(0)
    settle_gap_s: float = _number(0)
    settle_after_s: float | None = _number_or_null()
    transaction_id_delay_s: float = _number(0)
    # a day's limit, of each asset of each account
    daily_limit_usd: float | None = _number_or_null()
    over_daily_limit: str = _one_of("queue", "refuse")
    # credits and the WebSocket
    enforce_credits: bool = _flag(default=False)
    quota: int = _count(100)
    quota_with_key: int = _count(300)
    history_cost: float | None = _number_or_null()
    ws_idle_timeout_s: float = _number(60)
    ws_max_age_s: float = _number(86_400)

    def updated(self, changes: Mapping[str, object]) -> Options:
        """Return the options with `changes` made; an unknown name or a wrong value is refused by name."""
        known = {each.name: each for each in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise BadControl(f"unknown option {name!r}; known are {', '.join(sorted(known))}")
            if not known[name].metadata["check"](value):
                raise BadControl(f"option {name!r} must be {known[name].metadata['says']}, not {value!r}")
        return replace(self, **changes)  # type: ignore[arg-type]  # each value has just been checked

    def as_json(self) -> dict[str, object]:
        """Return every option by name."""
        return asdict(self)
