"""Faults on demand: what may go wrong, on which request, how often. How they travel is in `delivery.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pacifica_provider.sandbox.errors import BadControl

ROUTES = ("withdraw", "pending", "history", "account", "spot_assets", "bridge_info", "bridge_parameters")
MOMENTS = ("before_commit", "after_commit")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# A lie about the length is what the kind "truncate" is for.
FRAMING = ("content-length", "transfer-encoding", "connection")
Check = Callable[[object], bool]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_status(value: object) -> bool:
    return _is_count(value) and 200 <= value <= 599  # type: ignore[operator]  # _is_count says it is a number


def _is_redirect(value: object) -> bool:
    return _is_count(value) and 300 <= value <= 399  # type: ignore[operator]  # as above


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_header_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def _is_headers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and HEADER_NAME.fullmatch(name) and name.lower() not in FRAMING and _is_header_text(text)
        for name, text in value.items()
    )


def _is_body(value: object) -> bool:
    return isinstance(value, str | dict | list)


def _is_json(_value: object) -> bool:
    return True


SECONDS = (_is_seconds, "a number of seconds")
BYTES = (_is_count, "a number of bytes")
STATUS = (_is_status, "a status from 200 to 599")
TEXT = (_is_text, "text")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of fault must and may be told."""

    needs: Mapping[str, tuple[Check, str]] = field(default_factory=dict)
    takes: Mapping[str, tuple[Check, str]] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "reset": Kind(takes={"bytes": BYTES}),
    "reset_request": Kind(takes={"bytes": BYTES}),
    "close": Kind(),
    "hang": Kind(needs={"seconds": SECONDS}),
    "truncate": Kind(needs={"bytes": BYTES}),
    "drip": Kind(needs={"seconds": SECONDS}),
    "status": Kind(
        needs={"status": STATUS},
        takes={"body": (_is_body, "text, an object or a list"), "headers": (_is_headers, "an object of header texts")},
    ),
    "html": Kind(takes={"status": STATUS}),
    "redirect": Kind(
        needs={"location": (_is_header_text, "a printable ASCII URL")},
        takes={"status": (_is_redirect, "a status from 300 to 399")},
    ),
    "duplicate_in_progress": Kind(),
    "echo": Kind(takes={"symbol": TEXT, "amount": TEXT, "fee_amount": TEXT, "batch_nonce": (_is_json, "any JSON")}),
    "huge": Kind(needs={"bytes": BYTES}),
    "no_date": Kind(),
}
COMMON = ("route", "when", "kind", "count", "skip")
# One body may name all of these whatever its kind: what the kind has no use for is ignored, what it needs is this.
DEFAULTS: Mapping[str, object] = {"status": 503, "seconds": 2, "bytes": 10, "location": "/elsewhere"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as asked for. `count` None means until deleted."""

    route: str
    when: str
    kind: str
    count: int | None
    skip: int
    parameters: Mapping[str, object]

    def number(self, name: str, default: float = 0) -> float:
        """Return a numeric parameter."""
        value = self.parameters.get(name, default)
        return value if isinstance(value, int | float) else default

    @property
    def label(self) -> str:
        """How the ledger names it."""
        return f"{self.kind}/{self.when}"


def read_fault(wish: Mapping[str, object]) -> Fault:
    """Return the fault that `wish` describes, or say what is wrong with it."""
    kind = _choice(wish, "kind", tuple(KINDS), None)
    rules = KINDS[kind]
    allowed = {**rules.needs, **rules.takes}
    unused = DEFAULTS.keys() - allowed.keys()
    parameters = {name: value for name, value in DEFAULTS.items() if name in rules.needs}
    parameters |= {name: value for name, value in wish.items() if name not in COMMON and name not in unused}
    for name, value in parameters.items():
        if name not in allowed:
            known = ", ".join([*COMMON, *allowed])
            raise BadControl(f"fault kind {kind!r} takes no {name!r}; it takes {known}")
        check, says = allowed[name]
        if not check(value):
            raise BadControl(f"fault {name!r} must be {says}, not {value!r}")
    route = _choice(wish, "route", (*ROUTES, "*"), "withdraw")
    if kind in ("echo", "duplicate_in_progress") and route != "withdraw":
        raise BadControl(f"fault kind {kind!r} is for the route 'withdraw'")
    return Fault(
        route=route,
        when=_choice(wish, "when", MOMENTS, "before_commit"),
        kind=kind,
        count=_count(wish),
        skip=_skip(wish),
        parameters=parameters,
    )


def _choice(wish: Mapping[str, object], name: str, values: tuple[str, ...], default: str | None) -> str:
    value = wish.get(name, default)
    if not isinstance(value, str) or value not in values:
        raise BadControl(f"fault {name!r} must be one of {', '.join(values)}, not {value!r}")
    return value


def _count(wish: Mapping[str, object]) -> int | None:
    count = wish.get("count", 1)
    if count is None:
        return None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise BadControl(f"fault 'count' must be a whole number above zero, or null, not {count!r}")
    return count


def _skip(wish: Mapping[str, object]) -> int:
    skip = wish.get("skip", 0)
    if not isinstance(skip, int) or isinstance(skip, bool) or skip < 0:
        raise BadControl(f"fault 'skip' must be a whole number, not {skip!r}")
    return skip


class Armed:
    """A fault waiting for its requests."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0

    @property
    def hits(self) -> int:
        """How many requests it has hit."""
        return max(0, self.seen - self.fault.skip)

    @property
    def spent(self) -> bool:
        """Whether it has hit all the requests it was meant for."""
        return self.fault.count is not None and self.hits >= self.fault.count

    def meets(self, route: str) -> bool:
        """Count a request, and say whether the fault hits it."""
        if self.spent or self.fault.route not in ("*", route):
            return False
        self.seen += 1
        return self.seen > self.fault.skip


class Faults:
    """The faults in the order they were asked for. A request meets the first that hits it, and only that one."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []

    def add(self, wish: Mapping[str, object]) -> None:
        """Arm one more."""
        self._armed.append(Armed(read_fault(wish)))

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def take(self, route: str) -> Fault | None:
        """Return the fault that a request to `route` meets."""
        for armed in self._armed:
            if armed.meets(route):
                return armed.fault
        return None

    def as_json(self) -> list[dict[str, object]]:
        """Return every fault with the number of requests it has hit, spent ones too."""
        return [
            {
                "route": armed.fault.route,
                "when": armed.fault.when,
                "kind": armed.fault.kind,
                "count": armed.fault.count,
                "skip": armed.fault.skip,
                **armed.fault.parameters,
                "hits": armed.hits,
                "spent": armed.spent,
            }
            for armed in self._armed
        ]
