"""
Break the protocol on purpose, and see which check notices: ``python -m dev.mutants``.

Each mutant of ``dev/mutants.json`` is an exact replacement of text in a copy of the package; a text that no longer
occurs exactly once is an error. Three checks run against each: simulated worlds, the property machine and the unit
tests of ``withdrawals``. Prints a table; exit status 1 if a mutant survives them all, 2 if a check fails without one.
"""

from __future__ import annotations

import argparse
import json
import os
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
PYTEST = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
CHECKS = {
    "simulator": ("-m", "dev.mutants", "--hunt"),
    "properties": (*PYTEST, "tests/properties"),
    "unit tests": (*PYTEST, "tests/simulator/test_clauses.py", "tests/unit/withdrawals"),
}


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
                return 1
    return 0


def caught(mutant: Mutant | None, checks: list[str], worlds: int) -> dict[str, str]:
    """Return what each check makes of the mutant: seconds until it was caught, ``-`` if it was not."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root / name)
        if mutant is not None:
            mutant.apply(root)
        return {check: _run(root, CHECKS[check], worlds) for check in checks}


def _run(root: Path, command: tuple[str, ...], worlds: int) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "CI": "true", "MUTANT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if "--hunt" in command:
        command = (*command, "--worlds", str(worlds))
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    return "-" if done.returncode == 0 else f"{time.monotonic() - began:.1f} s"


def main(arguments: list[str] | None = None) -> int:
    """Run as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="words of the names of the mutants to run (default: all)")
    parser.add_argument("--check", action="append", choices=CHECKS, help="only this check (may be repeated)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hunt", action="store_true", help="internal: run worlds until one breaks the promise")
    parser.add_argument("--worlds", type=int, default=1500, help="for the simulator: how many rounds of three")
    options = parser.parse_args(arguments)
    if options.hunt:
        return hunt(options.worlds)
    checks: list[str] = options.check or list(CHECKS)
    chosen = [m for m in mutants() if all(word in m.name for word in options.names)]
    failing = {check: said for check, said in caught(None, checks, options.worlds).items() if said != "-"}
    if failing:
        print(f"without any mutant, these checks fail: {failing}")
        return 2
    print("| mutant | " + " | ".join(checks) + " |\n| --- |" + " ---: |" * len(checks))
    survivors = []
    with ThreadPoolExecutor(options.processes) as pool:
        for mutant, said in zip(chosen, pool.map(lambda m: caught(m, checks, options.worlds), chosen), strict=True):
            print(f"| {mutant.name} | " + " | ".join(said[check] for check in checks) + " |", flush=True)
            if set(said.values()) == {"-"}:
                survivors.append(mutant.name)
    print(f"\n{len(chosen)} mutants, {len(survivors)} survive{': ' if survivors else ''}{', '.join(survivors)}")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
