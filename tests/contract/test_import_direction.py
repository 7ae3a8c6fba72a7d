"""Who imports whom, read from the source: imports point downward only, and the core knows no Airflow and no clock."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pacifica_provider"
TESTS = PACKAGE.parent / "tests"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
# What each part may import of the package; the sandbox is a server of its own and shares nothing, but its pytest plugin
# stands above all.
BELOW = {
    "__init__": (),
    "exceptions": (),
    "get_provider_info": (),
    "assets": (),
    "plugin": (),
    "links": ("exceptions", "hooks", "assets", "plugin"),
    "sandbox": ("sandbox",),
    "pytest_plugin": ("exceptions", "hooks", "operators", "sensors", "triggers", "sandbox"),
    "api": ("", "exceptions", "api"),
    "withdrawals": ("exceptions", "api", "withdrawals"),
    "hooks": ("exceptions", "api", "withdrawals", "hooks", "get_provider_info", "assets"),
    "triggers": ("", "exceptions", "api", "withdrawals", "hooks", "triggers"),
    "operators": ("exceptions", "api", "withdrawals", "hooks", "triggers", "operators", "assets", "links"),
    "sensors": ("exceptions", "api", "withdrawals", "hooks", "triggers", "links"),
    "cli": ("exceptions", "api", "withdrawals", "hooks"),
}
ADAPTERS = {"assets", "links", "plugin", "operators", "sensors", "triggers", "hooks", "cli", "pytest_plugin"}
PURE = {"api", "withdrawals"}
CLOCKS = {"time", "random", "secrets", "uuid.uuid1", "uuid.uuid4", "os.urandom"}
EVERY = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def part(path: Path) -> str:
    """Return which part of the package a file belongs to."""
    if path.stem == "pytest_plugin":
        return path.stem
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


def module(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Return which of these modules each one imports; of a package's name, the module of it that has that name."""
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        found[name] = set()
        for each in imported(path):
            target = each
            while target and target not in files:
                target = target.rpartition(".")[0]
            found[name] |= {target} - {"", name}
    return found


def circles(edges: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Return circles, each as its sorted modules, until none is left when one import of each is taken away."""
    edges = {name: set(targets) for name, targets in edges.items()}
    found = []
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            circle = error.args[1]  # in it each module is imported by the next
            found.append(tuple(sorted(set(circle))))
            edges[circle[1]].discard(circle[0])
        else:
            return sorted(found)


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


def test_no_modules_import_each_other() -> None:
    """There is no circle between modules, ``TYPE_CHECKING`` imports included."""
    assert circles(graph({module(path): path for path in MODULES})) == []


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


@pytest.mark.parametrize("name", ["cli", "assets"])
def test_what_airflow_loads_early_imports_next_to_nothing(name: str) -> None:
    """Airflow's command line loads ``cli`` at every call, a DAG file ``assets``: at the top they import little."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    top = {ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}

    assert top <= {
        "from __future__ import annotations",
        "import sys",
        "from typing import TYPE_CHECKING, Any",
        "from airflow.providers.common.compat.sdk import Asset",
    }


def test_the_test_sees_an_upward_import(tmp_path: Path) -> None:
    """An import hidden in a function is found."""
    hidden = tmp_path / "hidden.py"
    hidden.write_text("def f():\n    from airflow.sdk import DAG\n    import time\n    time.time_ns()\n")

    assert imported(hidden) == {"airflow.sdk.DAG", "time"}
    assert "time.time_ns" in used(hidden)


def test_the_test_sees_a_circle(tmp_path: Path) -> None:
    """Three modules in a ring are found, hidden in a function and under ``TYPE_CHECKING`` too, and each ring once."""
    texts = {
        "p": "",
        "p.a": "from p.b import x\n",
        "p.b": "def f():\n    import p.c\n",
        "p.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import a\n",
        "p.d": "from p.a import y\nfrom p import e\n",
        "p.e": "import p.d\n",
        "p.f": "from p import a\n",
    }
    files = {name: tmp_path / f"{name}.py" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)

    assert circles(graph(files)) == [("p.a", "p.b", "p.c"), ("p.d", "p.e")]
    assert circles(graph({name: path for name, path in files.items() if name not in {"p.c", "p.e"}})) == []


def test_each_unit_test_is_found_by_the_name_of_its_module() -> None:
    """``tests/unit/triggers/test_watcher_sharing.py`` is about ``triggers/watcher.py``: one guess, no search."""
    lost = []
    for path in sorted((TESTS / "unit").glob("*/test_*.py")):
        modules = [each.stem for each in (PACKAGE / path.parent.name).glob("*.py")]
        if not any(path.stem == f"test_{each}" or path.stem.startswith(f"test_{each}_") for each in modules):
            lost.append(path.name)

    assert lost == []


def test_commands_call_the_tests_parts_and_not_the_other_way_round() -> None:
    """``dev`` holds commands; what they share with tests lives among the tests."""
    backward = {
        path.name: names
        for path in TESTS.rglob("*.py")
        if (names := {name for name in imported(path) if name.split(".")[0] == "dev"})
    }

    assert backward == {}
