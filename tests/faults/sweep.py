"""Everything a withdrawal leaves behind as text, and every form in which a secret could be in it."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import base58
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = str(Path(__file__).parents[1])
# So much of a secret's text is a leak, even if the rest was cut off.
TELLING = 20
LOCAL = ", local "


def forms(secret: str) -> set[str]:
    """Return every common text form of a base58 keypair and of its seed, written apart from the Signer's own list."""
    pair = base58.b58decode(secret)
    texts: set[str] = {secret}
    for raw in (pair, pair[:32]):
        texts |= {base58.b58encode(raw).decode(), raw.hex(), raw.hex().upper(), raw.hex(" "), raw.hex(":")}
        texts |= {
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode(),
            base64.b32encode(raw).decode(),
        }
        texts |= {json.dumps(list(raw)), json.dumps(list(raw), separators=(",", ":")), repr(tuple(raw))}
        texts |= {repr(raw)[2:-1], str(int.from_bytes(raw, "big"))}
    return texts


@dataclass
class Sweep:
    """Collects what is written, raised and stored while it is open; ``found`` says which secret shows up where."""

    texts: list[tuple[str, str]] = field(default_factory=list)

    def run(self, name: str, act: Callable[[], object]) -> BaseException | None:
        """Do something with every logger at DEBUG; take down its logs, and its exception with all locals."""
        handler = _Collector(self.texts, name)
        root = logging.getLogger()
        level, disabled = root.level, logging.root.manager.disable
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        logging.disable(logging.NOTSET)
        raised: BaseException | None = None
        try:
            with capture_logs() as logs:
                act()
        except BaseException as error:  # noqa: BLE001 - time limits are BaseExceptions, and show locals as well
            raised = error
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            logging.disable(disabled)
        self.texts += [(f"{name}: log", repr(line)) for line in logs]
        self.texts += [(f"{name}: {where}", text) for where, text in _shown(raised)]
        return raised

    def add(self, name: str, text: str) -> None:
        """Take down a text."""
        self.texts.append((name, text))

    def found(self, secrets: set[str], *, in_locals: bool = True) -> list[str]:
        """Return the places at which a secret, or its first part, occurs."""
        places = {where for where, text in self.texts for secret in secrets if secret[:TELLING] in text}
        return sorted(where for where in places if in_locals or LOCAL not in where)


class _Collector(logging.Handler):
    def __init__(self, texts: list[tuple[str, str]], name: str) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts
        self._where = f"{name}: log"

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append((self._where, f"{record.getMessage()} {record.args!r} {record.__dict__!r}"))


def _shown(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """Yield text, attributes and the locals of every frame outside the tests, causes and contexts included."""
    queue, seen = [error], set()
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kind = type(one).__name__
        yield kind, f"{one} {one!r} {one.args!r} {one.__dict__!r}"
        for frame, _ in traceback.walk_tb(one.__traceback__):
            code = frame.f_code
            if not code.co_filename.startswith(HERE):
                for name, value in frame.f_locals.items():
                    yield f"{kind}{LOCAL}{name} of {Path(code.co_filename).name}:{code.co_name}", repr(value)
        queue += [one.__cause__, one.__context__]
