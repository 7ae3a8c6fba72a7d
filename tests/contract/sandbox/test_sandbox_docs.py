"""The page for users names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pacifica_provider.sandbox.faults import COMMON, KINDS, ROUTES, UNIVERSAL
from pacifica_provider.sandbox.options import Options

if TYPE_CHECKING:
    from pacifica_provider.sandbox import Sandbox

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()


NEEDS = {"status": "status", "hang": "seconds", "drip": "seconds", "truncate": "bytes", "huge": "bytes"}
NEEDS["redirect"] = "location"


def section(title: str) -> str:
    """Return a section of the page."""
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> set[str]:
    """Return what the first column of the section's table names in code type."""
    rows = re.findall(r"^\| (`[^|]*) \|", section(title), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_options() -> None:
    """Every option is in the table, and nothing else is."""
    assert first_cells("Options") == set(Options.model_fields)


def test_faults() -> None:
    """Every kind and every route of a fault is on the page."""
    assert first_cells("Faults") == set(KINDS)
    assert all(f"`{route}`" in section("Faults") for route in ROUTES)


def test_parameters() -> None:
    """Every kind's parameters stand in its row."""
    for name, kind in KINDS.items():
        row = re.search(rf"^\| `{name}` \|([^|]*)\|([^|]*)\|", section("Faults"), re.MULTILINE)

        assert row is not None
        takes = set(kind.takes()) - {*COMMON, *kind.needs}
        assert [set(re.findall(r"`(\w+)`", cell)) for cell in row.groups()] == [set(kind.needs), takes]


def test_defaults_of_parameters() -> None:
    """What a kind needs has the default that the page names, and what it takes the one in parentheses."""
    needed = [KINDS[kind].model_fields[name].default for kind, name in NEEDS.items()]
    assert all(set(kind.needs) <= set(UNIVERSAL) for kind in KINDS.values())
    assert "503, 2, 10 and `/elsewhere` where left out" in section("Faults").replace("\n", " ")
    assert needed == [503, 2, 2, 10, 10, "/elsewhere"]
    for name, kind in KINDS.items():
        for told, default in re.findall(rf"^\| `{name}` \|.*?`(\w+)` \((\d+)\)", section("Faults"), re.MULTILINE):
            assert kind.model_fields[told].default == int(default)


def test_control_calls(sandbox: Sandbox) -> None:
    """Every control call is in the table, and nothing else is."""
    try:
        sandbox.control("GET", "/nothing")
    except ValueError as problem:
        there_are = str(problem).partition("there are ")[2].split(", ")

    assert first_cells("Control") == set(there_are)
