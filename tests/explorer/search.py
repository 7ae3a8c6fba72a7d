"""
The search: every schedule, depth first within a try, breadth first over the states between two tries.

From each state between two tries, every way to go on is run by repeating the state and a prefix of choices, until the
next state between two tries, the end of the run, or a break of the promise. Equal states (``World.key``) are gone on
from once. How many schedules lead to a state is counted on the way, so the number of all schedules is exact although
few of them are run one by one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from multiprocessing import get_context
from typing import TYPE_CHECKING

from pacifica_provider.withdrawals import failpoints
from pacifica_provider.withdrawals.record import Record
from tests.explorer.between import clear, decide, happens, note_sight, right_decision
from tests.explorer.choices import Chooser, SeenError
from tests.explorer.processes import Runner
from tests.explorer.pure import remembered
from tests.explorer.world import LIST_LAG_MS, PLAIN_REFERENCES, BrokenError, Setting, World, begin

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

_CHUNK = 8
# A refusal that is still to be concluded, a repost that meets a used-up key, the void after it, for two references.
_ROUNDS = 6


@dataclass(slots=True)
class Expansion:
    """What one state led to: the next states, and how the schedules that end here ended."""

    successors: dict[bytes, tuple[World, tuple[int, ...]]] = field(default_factory=dict)
    ways: Counter[bytes] = field(default_factory=Counter)
    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    runs: int = 0
    recognised: int = 0


@dataclass(slots=True)
class Report:
    """
    What the search came to.

    ``schedules``: how many there are. ``runs``: how many tries, or steps between them, were executed. ``states``: how
    many different ones there are between tries. ``met``: how often one was met again; ``recognised``: how often one was
    within a try. ``admitted``, ``violations``: schedules that ended so, by name, with the choices of the shortest that
    was found. ``done``, ``waiting``: how many states have been gone on from and have not, by faults taken.
    """

    setting: Setting
    faults: int
    per_step: int
    schedules: int = 0
    runs: int = 0
    states: int = 0
    met: int = 0
    recognised: int = 0
    seconds: float = 0.0
    complete: bool = True
    admitted: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, ...]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        few = f", at most {self.per_step} a step" if self.per_step < self.faults else ""
        so_far = "" if self.complete else " so far (stopped)"
        head = (
            f"== {self.setting.name}, at most {self.faults} faults{few}: {self.schedules:,} schedules{so_far}; "
            f"{self.runs:,} steps run; {self.states:,} states between tries, met again {self.met:,} times, "
            f"within a try {self.recognised:,} times; {self.seconds:.0f} s"
        )
        lines = [head]
        if not self.complete:
            lines.append(f"   states gone on from, by faults: {self.done}; waiting: {self.waiting}")
        lines += [f"   ended with {name}: {count:,}" for name, count in self.endings.most_common()]
        lines += [f"   admitted: {name}: {count:,}" for name, count in sorted(self.admitted.items())]
        lines += [
            f"   VIOLATION: {name}: {count:,}, first: python -m dev.explore --world {self.setting.name} --faults "
            f"{self.faults} --per-step {self.per_step} --replay {','.join(map(str, self.examples[name]))}"
            for name, count in sorted(self.violations.items())
        ]
        return "\n".join(lines)


def explore(
    setting: Setting,
    faults: int,
    *,
    per_step: int | None = None,
    processes: int = 1,
    seconds: float | None = None,
    first_only: bool = False,
) -> Report:
    """
    Run every schedule of this world with at most so many faults.

    ``per_step``: only those with at most so many in one try, or between two. ``seconds``: stop after so long.
    ``first_only``: stop at the first violation.
    """
    search = _Search(setting, faults, per_step or faults, first_only=first_only)
    began = time.monotonic()
    until = None if seconds is None else began + seconds
    with remembered():
        if processes == 1:
            search.run(lambda chunks: (expand(chunk) for chunk in chunks), until)
        else:
            with get_context("fork").Pool(processes) as pool:
                search.run(lambda chunks: pool.imap_unordered(expand, chunks), until)
    search.report.seconds = time.monotonic() - began
    return search.report


def replay(setting: Setting, faults: int, choices: Sequence[int], *, per_step: int | None = None) -> list[str]:
    """Run one schedule and tell it, line by line."""
    chooser = Chooser(choices, telling=True)
    world = begin(setting, faults, per_step or faults)
    ending = None
    while ending is None:
        ending = _step(world, chooser)
    kind, what = ending
    return [*chooser.story, f"{kind or 'ends'}: {what}"]


class _Search:
    """Holds the states that wait, by rank, and what was counted."""

    def __init__(self, setting: Setting, faults: int, per_step: int, *, first_only: bool) -> None:
        self.report = Report(setting, faults, per_step)
        self._first_only = first_only
        root = begin(setting, faults, per_step)
        self._waiting: dict[tuple[int, int, int], dict[bytes, World]] = defaultdict(dict)
        key = root.key()
        self._waiting[root.rank][key] = root
        self._paths: Counter[bytes] = Counter({key: 1})
        self._came: dict[bytes, tuple[bytes, tuple[int, ...]]] = {}

    def run(self, expanded: Callable[[Iterator[_Chunk]], Iterator[_Expanded]], until: float | None) -> None:
        """
        Go on from every state, those with the fewest faults and tries first.

        Every step leads to a state of a higher rank, so once a rank's turn has come, all ways to its states are known.
        """
        report = self.report
        while self._waiting:
            rank = min(self._waiting)
            states = self._waiting.pop(rank)
            report.states += len(states)
            for expansions in expanded(_chunks(states)):
                for key, expansion in expansions:
                    self._take(key, expansion)
                found = self._first_only and report.violations
                if found or (until is not None and time.monotonic() > until):
                    self._stop(rank[0], len(states))
                    return
            report.done[rank[0]] = report.done.get(rank[0], 0) + len(states)
            for key in states:
                del self._paths[key]

    def _take(self, key: bytes, expansion: Expansion) -> None:
        report, paths = self.report, self._paths[key]
        report.runs += expansion.runs
        report.recognised += expansion.recognised
        for (kind, what), count in expansion.endings.items():
            report.schedules += paths * count
            {"": report.endings, "admitted": report.admitted, "VIOLATION": report.violations}[kind][what] += (
                paths * count
            )
            if kind and what not in report.examples:
                report.examples[what] = (*self._way_to(key), *expansion.examples[kind, what])
        for successor, count in expansion.ways.items():
            self._paths[successor] += paths * count
            world, choices = expansion.successors[successor]
            waiting = self._waiting[world.rank]
            if successor in waiting:
                report.met += 1
            else:
                waiting[successor] = world
                self._came[successor] = (key, choices)

    def _way_to(self, key: bytes) -> tuple[int, ...]:
        way: tuple[int, ...] = ()
        while key in self._came:
            key, choices = self._came[key]
            way = (*choices, *way)
        return way

    def _stop(self, faults: int, states: int) -> None:
        self.report.complete = False
        for rank, waiting in self._waiting.items():
            self.report.waiting[rank[0]] = self.report.waiting.get(rank[0], 0) + len(waiting)
        self.report.waiting[faults] = self.report.waiting.get(faults, 0) + states


# A state, and the choices from which on it is gone on from; ``None`` for all of them.
_Job = tuple[bytes, World, "tuple[int, ...] | None"]
_Chunk = list[_Job]
_Expanded = list[tuple[bytes, Expansion]]


def _chunks(states: dict[bytes, World]) -> Iterator[_Chunk]:
    chunk: _Chunk = []
    for key, world in states.items():
        if (
            min(world.limit - world.faults, world.per_step) > 1
        ):  # many schedules: one job for every way to leave the fair one
            for prefix in _ways_off(world):
                yield [(key, world, prefix)]
            continue
        chunk.append((key, world, None))
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ways_off(world: World) -> Iterator[tuple[int, ...]]:
    """Yield prefixes that divide all schedules from here: the fair one, and every first choice that is another one."""
    chooser = Chooser()
    _step(world.copy(), chooser)
    yield tuple(chooser.taken)
    for at, width in enumerate(chooser.widths):
        yield from ((*chooser.taken[:at], other) for other in range(1, width))


def expand(chunk: _Chunk) -> _Expanded:
    """Go on from each of these states in every way."""
    try:
        return [(key, _expand(world, prefix)) for key, world, prefix in chunk]
    except StopIteration as error:  # it would end the iteration over the results without a word
        raise RuntimeError from error


@dataclass(slots=True)
class _Node:
    """A choice that is being tried in every way: the state it stands in, and what came of it so far."""

    state: Hashable
    came: Counter[bytes | tuple[str, str]] = field(default_factory=Counter)


def _expand(start: World, first: tuple[int, ...] | None = None) -> Expansion:
    expansion = Expansion()
    known: dict[Hashable, Counter[bytes | tuple[str, str]]] = {}
    names: dict[Hashable, int] = {}
    whole = _Node(None)
    nodes: list[_Node] = []
    fixed = len(first or ())
    prefix: Sequence[int] | None = first or ()
    while prefix is not None:
        chooser = Chooser(prefix, known=known)
        world = start.copy()
        expansion.runs += 1
        came: Counter[bytes | tuple[str, str]]
        try:
            came = Counter([_noted(expansion, world, chooser, names)])
        except SeenError as seen:
            came = known[seen.state]
            expansion.recognised += 1
        nodes += [_Node(state) for state in chooser.states]
        (nodes[-1] if nodes else whole).came.update(came)
        prefix = chooser.next_prefix(fixed)
        while len(nodes) > (0 if prefix is None else len(prefix) - fixed):
            node = nodes.pop()
            if node.state is not None:
                known[node.state] = node.came
            (nodes[-1] if nodes else whole).came.update(node.came)
    for what, count in whole.came.items():
        if isinstance(what, bytes):
            expansion.ways[what] = count
        else:
            expansion.endings[what] = count
    return expansion


def _noted(expansion: Expansion, world: World, chooser: Chooser, names: dict[Hashable, int]) -> bytes | tuple[str, str]:
    """Run one step, and note what it led to with the choices that lead there."""
    ending = _step(world, chooser, names)
    choices = tuple(chooser.taken)
    if ending is None:
        key = world.key()
        if key not in expansion.successors:
            expansion.successors[key] = (world, choices)
        return key
    known = expansion.examples.setdefault(ending, choices)
    if len(choices) < len(known):
        expansion.examples[ending] = choices
    return ending


def _step(world: World, chooser: Chooser, names: dict[Hashable, int] | None = None) -> tuple[str, str] | None:
    """Go one step on: one thing between tries, or one try. Return how the schedule ended, if it did."""
    chooser.faults = min(world.limit - world.faults, world.per_step)
    try:
        if happens(world, chooser):
            return None
        if all(task.ended for task in world.tasks):
            ending = " and ".join(task.ended or "" for task in world.tasks)
            _fair_weather(world, chooser)
            return "", ending
        Runner(world, chooser, names).run_try()
        note_sight(world)
    except BrokenError as broken:
        chooser.say(f"BROKEN: {broken.what}")
        if broken.edge:
            return "admitted", broken.edge
        return "VIOLATION", broken.what
    finally:
        failpoints.install(None)
    return None


def _fair_weather(world: World, chooser: Chooser) -> None:
    """
    Check that nobody is stuck: cleared in fair weather, and after somebody who knows has decided, every task ends well.

    The task asks for what is on record again, as its errors demand.
    """
    calm = Chooser(telling=chooser.telling, story=chooser.story)
    calm.say("FAIR WEATHER: every task is cleared")
    world.limit = world.faults
    _as_recorded(world)
    for at in range(len(world.tasks)):
        clear(world, at)
    _run_all(world, calm)
    for _ in range(_ROUNDS):
        world.advance(world.now_ms + LIST_LAG_MS)
        for at, task in enumerate(world.tasks):
            if task.ended == "ParameterMismatch":
                _as_recorded(world, other_than=task.references[0])
            if task.ended in {"WithdrawalRejected", "ParameterMismatch"}:
                clear(world, at)
            reference = _waits_for_a_person(world, task.references)
            if task.ended == "OutcomeUnknown" and reference is not None:
                does = right_decision(world, reference)
                calm.say(f"FAIR WEATHER: of {reference}, a person {does}")
                decide(world, reference, does)
        _run_all(world, calm)
    for task in world.tasks:
        voided = any((world.record(reference) or {}).get("state") == "void" for reference in task.references)
        if task.ended != "success" and not voided:
            world.broken(f"stuck in fair weather: {task.ended}", world.why_lost())


def _waits_for_a_person(world: World, references: tuple[str, ...]) -> str | None:
    """Name the withdrawal that the task stopped at."""
    for reference in references:
        if (world.record(reference) or {}).get("state") == "unknown":
            return reference
    return None


def _run_all(world: World, chooser: Chooser) -> None:
    while not all(task.ended for task in world.tasks):
        Runner(world, chooser).run_try()


def _as_recorded(world: World, other_than: str = "") -> None:
    """Let the task ask for the order and reference that its errors name; ``other_than`` was refused just now."""
    if world.setting.kind != "plain":
        return
    others = [ref for ref in PLAIN_REFERENCES if ref != other_than]
    recorded = [ref for ref in others if world.record(ref) is not None]
    may_have_moved = [ref for ref in recorded if Record.from_json(world.record(ref)).may_have_moved]
    accepted = [ref for ref in recorded if (world.record(ref) or {})["state"] == "accepted"]
    reference = (accepted or may_have_moved or recorded or others)[0]
    record = world.record(reference)
    amount = Decimal(record["order"]["amount"]) if record else world.tasks[0].amount
    world.tasks = (replace(world.tasks[0], references=(reference,), amount=amount),)
