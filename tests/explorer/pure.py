"""
The pure functions that a search calls over and over with the same arguments, remembered while it runs.

Reading a record and deriving a key take most of a try's time, and a search does both millions of times with a few
thousand different arguments. They are the product's own functions, called once for each argument.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from pacifica_provider.withdrawals import identity, protocol
from pacifica_provider.withdrawals.identity import RunIdentity
from pacifica_provider.withdrawals.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def remembered() -> Iterator[None]:
    """Remember what they return, until the end of the block."""
    key, read, write, mark = RunIdentity.idempotency_key, Record.from_json, Record.to_json, identity.fingerprint
    records: dict[str, Record] = {}
    written = cache(lambda record: write(record, ""))

    def from_json(data: object) -> Record:
        text = repr(data)
        if text not in records:
            records[text] = read(data)
        return records[text]

    def to_json(record: Record, write_id: str) -> dict[str, Any]:
        return {**written(record), "write_id": write_id}

    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (RunIdentity, "idempotency_key", cache(key)),
        (Record, "from_json", staticmethod(from_json)),
        (Record, "to_json", to_json),
        (protocol, "fingerprint", cache(mark)),
    ]
    before = [(where, name, vars(where)[name]) for where, name, _ in changes]
    for where, name, function in changes:
        setattr(where, name, function)
    try:
        yield
    finally:
        for where, name, old in before:
            setattr(where, name, old)
