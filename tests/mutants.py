"""
Break the protocol on purpose, and see which check notices: ``python -m dev.mutants``.

Each mutant of ``tests/mutants.json`` is an exact replacement of text in a copy of the package; a text that no longer
occurs exactly once is an error. The checks run from cheap to dear, and the first that notices is enough; ``--all`` asks
every check. Prints a table; exit status 1 if a mutant survives them all, 2 if a check fails without a mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.json")
COPIED = ("pacifica_provider", "tests", "dev", "pyproject.toml")
PYTEST = ("-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider")
# From cheap to dear, by how soon each notices what it notices.
CHECKS = {
    "regressions": (*PYTEST, "tests/simulator/test_simulator.py", "-k", "once_failed"),
    "clauses": (*PYTEST, "tests/simulator/test_clauses.py"),
    "unit tests": (*PYTEST, "tests/unit/withdrawals"),
    "explorer": ("-m", "dev.explore", "--faults", "1", "--processes", "1"),
    "simulator": ("-m", "dev.mutants", "--hunt"),
    "properties": (*PYTEST, "tests/properties"),
}
# What a check prints of the first thing that it does not like.
SIGN = re.compile(r"^(?:FAILED \S*::|-- |(?=mild |harsh ))(.+?)(?: - .*)?$", re.MULTILINE)
_NOTICED = 1  # the exit status


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to be wrong: in ``file``, every ``old`` of ``edits`` becomes its ``new``."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]

    def apply(self, root: Path) -> None:
        """Change the copy under ``root``; ``ValueError`` if a text is not there exactly once."""
        path = root / "pacifica_provider" / self.file
        text = path.read_text(encoding="utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"mutant {self.name!r}: {text.count(old)} times in {self.file}: {old!r}")
            text = text.replace(old, new)
        compile(text, self.file, "exec")
        path.write_text(text, encoding="utf-8")


def mutants() -> list[Mutant]:
    """Return all mutants, from the list."""
    listed = json.loads(LIST.read_text(encoding="utf-8"))
    return [Mutant(m["name"], m["file"], tuple((e["old"], e["new"]) for e in m["edits"])) for m in listed]


def hunt(worlds: int) -> int:
    """Run worlds until one breaks the promise; return 1 then, and 0 if none does."""
    from tests.simulator import simulate

    for number in range(worlds):
        for profile, seed in (("harsh", 2 * number), ("harsh", 2 * number + 1), ("mild", number)):
            report = simulate(seed, profile)
            if report.violations:
                print(f"{profile} {report.seed}: {report.violations[0]}")
                return _NOTICED
    return 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check made of a mutant: how long it took, and the first sign that something is wrong, if it saw one."""

    check: str
    seconds: float
    sign: str | None = None
    broken: bool = False

    def __str__(self) -> str:
        return "does not run" if self.broken else "-" if self.sign is None else f"{self.seconds:.1f} s"


def copied(source: Path, root: Path) -> None:
    """Copy what the checks need."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / name, root / name)


def judged(mutant: Mutant | None, source: Path, checks: list[str], worlds: int, *, first: bool) -> list[Verdict]:
    """Run the checks on a copy with the mutant in it; ``first``: only until one notices."""
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copied(source, Path(folder))
        if mutant is not None:
            mutant.apply(Path(folder))
        for check in checks:
            verdicts.append(_run(Path(folder), check, worlds))
            if first and verdicts[-1].sign is not None:
                break
    return verdicts


def _run(root: Path, check: str, worlds: int) -> Verdict:
    environment = {**os.environ, "PYTHONPATH": str(root), "CI": "true", "MUTANT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *CHECKS[check]]
    if "--hunt" in command:
        command += ["--worlds", str(worlds)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(check, time.monotonic() - began, "it does not end")
    seconds = time.monotonic() - began
    if done.returncode == 0:
        return Verdict(check, seconds)
    found = SIGN.search(done.stdout)
    sign = found[1] if found else (done.stderr or done.stdout).rstrip().rpartition("\n")[2]
    return Verdict(check, seconds, sign, broken=done.returncode != _NOTICED)


def _row(mutant: Mutant, verdicts: list[Verdict], *, first: bool) -> str:
    if not first:
        return f"| {mutant.name} | " + " | ".join(map(str, verdicts)) + " |"
    last = verdicts[-1]
    noticed = (last.check, str(last), f"`{last.sign}`") if last.sign else ("**nothing**", "", "")
    return f"| {mutant.name} | " + " | ".join(noticed) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="words of the names of the mutants to run (default: all)")
    parser.add_argument("--all", action="store_true", help="ask every check, also after one has noticed")
    parser.add_argument("--check", action="append", choices=CHECKS, help="only this check (may be repeated)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hunt", action="store_true", help="internal: run worlds until one breaks the promise")
    parser.add_argument("--worlds", type=int, default=300, help="for the simulator: how many rounds of three")
    options = parser.parse_args(arguments)
    if options.hunt:
        return hunt(options.worlds)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copied(ROOT, Path(folder))  # so that all is of one state of the code, whatever is edited meanwhile
        return _table(Path(folder), options)


def _table(source: Path, options: argparse.Namespace) -> int:
    checks: list[str] = [check for check in CHECKS if not options.check or check in options.check]
    chosen = [m for m in mutants() if all(word in m.name for word in options.names)]
    clean = judged(None, source, checks, options.worlds, first=False)
    for verdict in clean:
        print(f"without a mutant, {verdict.check}: {verdict.seconds:.0f} s{' FAILS: ' if verdict.sign else ''}", end="")
        print(verdict.sign or "", flush=True)
    if any(verdict.sign for verdict in clean):
        return 2
    columns = checks if options.all else ["noticed by", "after", "first sign"]
    print("\n| the protocol broken so that … | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    survivors, broken = [], []
    with ThreadPoolExecutor(options.processes) as pool:
        every = pool.map(lambda m: judged(m, source, checks, options.worlds, first=not options.all), chosen)
        for mutant, verdicts in zip(chosen, every, strict=True):
            print(_row(mutant, verdicts, first=not options.all), flush=True)
            survivors += [mutant.name] if all(verdict.sign is None for verdict in verdicts) else []
            broken += [mutant.name] if any(verdict.broken for verdict in verdicts) else []
    print(f"\n{len(chosen)} mutants, {len(survivors)} survive{': ' if survivors else ''}{', '.join(survivors)}")
    print(*(f"does not run: {name}" for name in broken), sep="\n", end="")
    return int(bool(survivors or broken))


if __name__ == "__main__":
    sys.exit(main())
