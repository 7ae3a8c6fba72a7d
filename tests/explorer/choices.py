"""What may happen next, and which of it does: the one source of everything that is not determined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Sequence


class SeenError(BaseException):
    """What can follow from here is known already."""

    def __init__(self, state: Hashable) -> None:
        super().__init__(state)
        self.state = state


@dataclass(slots=True)
class Chooser:
    """
    Repeats a prefix of choices, then always takes the first option: that all goes well.

    ``faults`` is how many may still be taken. Options that cost more are not offered, and a choice with one option is
    none, so a schedule without faults left runs on without a choice. ``known`` are the states from which everything has
    been tried: a choice that was not made before and stands in one of them raises ``SeenError``. ``taken`` and
    ``widths`` are what was chosen of how many; ``story`` is what a reader is told, kept only if ``telling``.
    """

    prefix: Sequence[int] = ()
    faults: int = 0
    telling: bool = False
    known: Container[Hashable] = ()
    states: list[Hashable] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def choose(
        self,
        *,
        free: Sequence[str] = (),
        faults: Sequence[str] = (),
        state: Callable[[], Hashable] | None = None,
    ) -> str:
        """
        Return the name of what happens: ``""`` (nothing special), one of ``free``, or one of the ``faults``.

        ``state`` returns all that the rest of this schedule depends on.
        """
        names = ["", *free, *(faults if self.faults > 0 else ())]
        if len(names) == 1:
            return ""
        at = len(self.taken)
        if at < len(self.prefix):
            index = self.prefix[at]
        else:
            index, now = 0, None if state is None else (self.faults, names[-1], state())
            if now is not None and now in self.known:
                raise SeenError(now)
            self.states.append(now)
        name = names[index]
        self.taken.append(index)
        self.widths.append(len(names))
        if index > len(free):
            self.faults -= 1
        return name

    def say(self, line: str) -> None:
        """Tell a reader what happened."""
        if self.telling:
            self.story.append(line)

    def next_prefix(self, fixed: int = 0) -> list[int] | None:
        """Return the choices of the next schedule in depth-first order, ``None`` after the last one."""
        for at in range(len(self.taken) - 1, fixed - 1, -1):
            if self.taken[at] + 1 < self.widths[at]:
                return [*self.taken[:at], self.taken[at] + 1]
        return None
