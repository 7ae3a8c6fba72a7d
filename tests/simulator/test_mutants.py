"""The list of ``make mutants``: whether each mutant still breaks what it names is shown there, in minutes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, mutants
from tests.simulator import test_clauses


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_still_fits_the_code(mutant: Mutant, tmp_path: Path) -> None:
    """A mutant whose text is gone tests nothing, so the change that removes it must mend the list."""
    copy = tmp_path / "pacifica_provider" / mutant.file
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / "pacifica_provider" / mutant.file, copy)
    before = copy.read_text(encoding="utf-8")

    mutant.apply(tmp_path)

    assert copy.read_text(encoding="utf-8") != before


def test_the_list_is_as_long_as_it_must_be() -> None:
    """There are at least fourteen mutants, all named apart."""
    names = {mutant.name for mutant in mutants()}

    assert len(names) == len(mutants())
    assert len(names) >= 14


def test_a_clause_names_a_mutant_that_is_listed() -> None:
    """A clause test that says for which mutant it fails says so of one that is still run."""
    text = Path(test_clauses.__file__).read_text(encoding="utf-8")
    named = re.findall(r"# fails for the mutant: (.+)", text)

    assert named
    assert set(named) <= {mutant.name for mutant in mutants()}
