"""Start programs that end with us, and end them with everything they started.

An Airflow is a forest: tasks call ``setpgid``, so killing a process group misses them; setproctitle wipes the
environment block, so no marker in it survives. What holds is descent (a dead parent's children come to us, as
we are the subreaper) and, for what else descends from us, the working directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType
    from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36

# Run in the new process before the program itself: a `kill -9` of ours sends it a TERM (PR_SET_PDEATHSIG = 1).
# TERM, not KILL: the scheduler's workers end only when the scheduler tells them to.
# Not a preexec_fn: from Python 3.12 that warns in a process with threads, and our suite makes warnings errors.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


class Interrupted(KeyboardInterrupt):
    """INT, TERM or HUP arrived. A KeyboardInterrupt, so that pytest too tears down and stops."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


class Interruptions:
    """While entered, the first INT, TERM or HUP raises Interrupted in the main thread and the rest are ignored.

    May be entered within itself; the outermost counts, so that a second signal never cuts short what the first
    one started. Outside the main thread, where Python allows no handlers, entering does nothing.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._held = 0
        self._arrived: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            # What is ignored already stays ignored: that is what nohup asks for.
            taken = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
            self._previous = {each: signal.signal(each, self._receive) for each in taken}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._depth -= 1
        if not self._depth:
            previous, self._previous = self._previous, {}
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish; a signal that arrives meanwhile is raised after it."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._arrived is not None and not self._held:
            arrived, self._arrived = self._arrived, None
            raise Interrupted(arrived)

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        for each in self._previous:
            signal.signal(each, signal.SIG_IGN)
        if not self._held:
            raise Interrupted(signum)
        self._arrived = signum


INTERRUPTIONS = Interruptions()


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux; elsewhere orphans are lost)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``command``, its output appended to ``log``. It gets a TERM when the calling *thread* ends."""
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, str(os.getpid())]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def descendants(pid: int) -> list[psutil.Process]:
    """Return every living descendant of ``pid``, zombies left out."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [each for each in found if _living(each)]


def inside(folder: Path) -> list[psutil.Process]:
    """Return those of our descendants whose working directory is in ``folder``, and what descends from them."""
    found: dict[int, psutil.Process] = {}
    for process in descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            where = process.cwd()
            if where == str(folder) or where.startswith(f"{folder}{os.sep}"):
                found[process.pid] = process
                found.update((each.pid, each) for each in descendants(process.pid))
    return list(found.values())


def end(find: Callable[[], list[psutil.Process]]) -> None:
    """End what ``find`` finds: TERM, 2.5 s, TERM, 2 s, then KILL until it finds nothing, 10 s at most.

    Twice TERM, because the triggerer sometimes hangs on the first. Raises RuntimeError if something is left.
    """
    for grace in (2.5, 2.0):
        _signal(find(), signal.SIGTERM)
        if _gone_within(find, grace):
            return
    deadline = time.monotonic() + 10
    while found := find():
        if time.monotonic() > deadline:
            raise RuntimeError(f"still alive after KILL: {found}")
        _signal(found, signal.SIGKILL)
        _gone_within(find, 0.2)


def _gone_within(find: Callable[[], list[psutil.Process]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while found := find():
        # Waits for real where the process is our own child, adopted ones included: that is what reaps them.
        psutil.wait_procs(found, timeout=0.1)
        if time.monotonic() > deadline:
            return False
    return True


def _signal(processes: list[psutil.Process], signum: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def _living(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
