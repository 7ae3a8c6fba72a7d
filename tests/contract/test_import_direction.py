"""Who imports whom, read from the source: imports point downward only, and the core knows no Airflow and no clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pacifica_provider"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
# What each part may import of the package; the sandbox is a server of its own and shares nothing.
BELOW = {
    "__init__": (),
    "exceptions": (),
    "get_provider_info": (),
    "sandbox": ("sandbox",),
    "api": ("", "exceptions", "api"),
    "withdrawals": ("exceptions", "api", "withdrawals"),
    # How to spell the command that shows a case is a leaf: it imports nothing of the package.
    "hooks": ("exceptions", "api", "withdrawals", "hooks", "get_provider_info", "case.options"),
    "case": ("exceptions", "api", "withdrawals", "hooks", "case"),
    "triggers": ("", "exceptions", "api", "withdrawals", "hooks", "triggers"),
    "operators": ("exceptions", "api", "withdrawals", "hooks", "triggers"),
    "sensors": ("exceptions", "api", "withdrawals", "hooks", "triggers"),
}
ADAPTERS = {"operators", "sensors", "triggers", "hooks", "case"}
PURE = {"api", "withdrawals"}
CLOCKS = {"time", "random", "secrets", "datetime.datetime", "datetime.date", "uuid.uuid1", "uuid.uuid4", "os.urandom"}
EVERY = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def part(path: Path) -> str:
    """Return which part of the package a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports, inside functions and ``TYPE_CHECKING`` too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used(path: Path) -> set[str]:
    """Return every dotted name that a file reads, such as ``time.sleep``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_part_of_the_package_has_its_place() -> None:
    """A new folder has to be given its place in the table first."""
    assert set(BELOW) == {part(path) for path in MODULES}


@EVERY
def test_imports_point_downward(path: Path) -> None:
    """A part imports only the parts below it; the sandbox imports nothing of the package."""
    inside = {name.partition(".")[2] for name in imported(path) if name.split(".")[0] == "pacifica_provider"}
    allowed = BELOW[part(path)]
    upward = {
        name
        for name in inside
        if not any(name == each or (each and name.startswith(f"{each}.")) for each in allowed)
        and not ("" in allowed and name == "__version__")
    }

    assert upward == set()


@pytest.mark.parametrize(
    "path", [path for path in MODULES if part(path) not in ADAPTERS], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_only_the_adapters_import_airflow(path: Path) -> None:
    """Whatever decides about money runs without Airflow, so it runs in a simulator."""
    assert {name for name in imported(path) if name.split(".")[0] == "airflow"} == set()


@pytest.mark.parametrize("path", [path for path in MODULES if part(path) in PURE], ids=lambda path: path.stem)
def test_the_core_has_no_clock_and_no_dice(path: Path) -> None:
    """``api`` and ``withdrawals`` take time and randomness as parameters; only a request's deadline needs a timer."""
    names = {name for name in imported(path) if name in CLOCKS or name.split(".")[0] in CLOCKS}
    called = {name for name in used(path) if name.split(".")[-1] in {"now", "utcnow", "today", "monotonic", "time_ns"}}

    assert names == set()
    assert called == set()


@pytest.mark.parametrize("name", ["__init__", "exceptions", "get_provider_info"])
def test_what_airflow_reads_at_every_start_imports_nothing(name: str) -> None:
    """Listing providers must cost nothing."""
    assert imported(PACKAGE / f"{name}.py") <= {"__future__.annotations", "typing.Any"}


def test_the_test_sees_an_upward_import(tmp_path: Path) -> None:
    """An import hidden in a function is found."""
    hidden = tmp_path / "hidden.py"
    hidden.write_text("def f():\n    from airflow.sdk import DAG\n    import time\n    time.time_ns()\n")

    assert imported(hidden) == {"airflow.sdk.DAG", "time"}
    assert "time.time_ns" in used(hidden)
