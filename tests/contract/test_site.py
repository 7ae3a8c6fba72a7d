"""What `make docs` builds the site from; the build itself has an environment of its own, and warnings are errors."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from typing_extensions import is_typeddict

from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.hooks import receipts
from tests.contract.test_surface import OPERATORS, SIGNATURES

ROOT = Path(__file__).parents[2]
# For outside harnesses and Airflow itself; who writes a DAG does not call them.
NOT_IN_THE_REFERENCE = ("api.client:", "api.outcomes:", "cli:")
ASKED = re.compile(r"^\.\. auto\w+:: (\S+)(?:\n +:members: ([^\n]+))?", re.MULTILINE)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
ONLY_SPHINX = re.compile(r"^ *(?:```|:::+) *\{|\{[a-z:-]+\}`|^\([\w-]+\)=$", re.MULTILINE)
AIRFLOW = re.compile(r"^apache-airflow(?:-core|-task-sdk)?==\S+$", re.MULTILINE)
PUBLIC = sorted(each for each in {*OPERATORS, *SIGNATURES} if not each.startswith(NOT_IN_THE_REFERENCE))


def reference() -> set[str]:
    """Return the names that the page of the API asks autodoc for, members included."""
    found = set()
    for name, members in ASKED.findall((ROOT / "docs/site/api.rst").read_text(encoding="utf-8")):
        found |= {name, *(f"{name}.{each}" for each in members.split(", "))}
    return found


def test_the_reference_has_every_class_that_airflow_is_told_of() -> None:
    """Each operator, sensor, hook and trigger, and what they return."""
    info = get_provider_info()
    found = {f"{receipts.__name__}.{name}" for name, kind in vars(receipts).items() if is_typeddict(kind)}
    for role in ("operators", "sensors", "hooks", "triggers"):
        modules = [importlib.import_module(name) for each in info[role] for name in each["python-modules"]]
        kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
        ours = [f"{each.__module__}.{each.__name__}" for each in kinds if each.__name__.endswith(role[:-1].title())]
        found |= {each for each in ours if each.startswith("pacifica_provider.")}

    assert {each for each in found if "._" not in each} - reference() == set()
    assert len(found) >= 8


@pytest.mark.parametrize("path", PUBLIC)
def test_the_reference_has_every_public_name(path: str) -> None:
    """One that is added to the surface is added there."""
    assert f"pacifica_provider.{path.replace(':', '.')}" in reference()


def test_the_site_is_built_with_the_airflow_of_the_tests() -> None:
    """Its constraints are compiled apart, for the tools; what the reference shows of Airflow is what is tested."""
    built, tested = (
        AIRFLOW.findall((ROOT / f"constraints/{name}.txt").read_text()) for name in ("docs", "airflow-3.3")
    )

    assert built == tested != []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_written_for_a_forge_too(page: Path) -> None:
    """Nothing in it is for Sphinx alone: no directive, no role, no label."""
    assert ONLY_SPHINX.findall(page.read_text(encoding="utf-8")) == []
