"""The matrix itself: every fault of docs/exactly-once.md is had here, had elsewhere, or not had for a reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [f"F{number:02}" for number in range(1, 104)]
PAGE = (ROOT / "docs" / "exactly-once.md").read_text()


@cache
def _cited(folder: Path) -> dict[str, set[str]]:
    """Return the rows that the docstring of each test under a folder cites."""
    cited: dict[str, set[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                cited[node.name] = _rows(ast.get_docstring(node) or "")
    return cited


def _rows(text: str) -> set[str]:
    """Return the rows a text names: F01, and every row from F01 to F03 where it says so."""
    rows = set(re.findall(r"\bF\d\d\d?\b", text))
    for first, last in re.findall(r"\bF(\d\d\d?) to F(\d\d\d?)\b", text):
        rows |= {f"F{number:02}" for number in range(int(first), int(last) + 1)}
    return rows


@cache
def _table() -> dict[str, tuple[list[str], str]]:
    """Return, for each row of the page's table, the tests it names and its status."""
    lines = re.findall(r"^\| (F\d\d\d?) \|[^|]*\| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    return {row: (re.findall(r"`(test_\w+)`", tests), status) for row, tests, status in lines}


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_is_cited_by_a_test_or_not_had_for_a_reason(row: str) -> None:
    """A row without a test says in the table where it is had instead, or why it is not."""
    tests = [name for name, rows in _cited(ROOT / "tests").items() if row in rows]
    _, status = _table()[row]

    assert tests or re.fullmatch(r"(not had|elsewhere): .{20,}", status)


def test_the_table_names_tests_that_are_there_and_cite_the_row() -> None:
    """The table on the page is true: each test it names exists and cites its row, and no row is missing."""
    cited = _cited(ROOT / "tests" / "faults")
    wrong = [(row, test) for row, (tests, _) in _table().items() for test in tests if row not in cited.get(test, set())]

    assert list(_table()) == ROWS
    assert wrong == []


def test_every_test_here_cites_what_it_is_for() -> None:
    """A test of this folder cites a fault, an invariant or a threat, or says that it checks the bench itself."""
    silent = []
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and file.name != Path(__file__).name:
                text = ast.get_docstring(node) or ""
                if not re.match(r"[FIS]\d+[,: ]|The (bench|check) of ", text):
                    silent.append(node.name)

    assert silent == []
