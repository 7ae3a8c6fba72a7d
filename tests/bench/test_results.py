"""The committed results: whole, each figure beside its peer, and the same in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.bench import report
from tests.bench.__main__ import PAGE, PARTS, RESULTS
from tests.bench.figures import Figure, Goal, percentile


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Return bench/results.json."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def test_every_part_was_measured(results: dict[str, Any]) -> None:
    """A part that was left out would leave its goals unsaid."""
    assert list(PARTS) == list(results["parts"])


def test_every_figure_stands_beside_a_peer_or_says_why_not(results: dict[str, Any]) -> None:
    """A figure alone says nothing."""
    figures = [figure for part in results["parts"].values() for figure in part["figures"]]
    alone = [figure["what"] for figure in figures if figure["theirs"] is None and not figure["note"]]

    assert figures
    assert not alone


def test_the_page_shows_the_results(results: dict[str, Any]) -> None:
    """The tables in the documentation are made from the committed results, not written."""
    page = PAGE.read_text()

    assert report.with_table(page, results) == page


def test_the_prose_holds_no_measurement() -> None:
    """Outside the generated tables the page states no milliseconds, seconds, megabytes or percentages."""
    page = PAGE.read_text()
    prose = page[: page.index(report.BEGIN)] + page[page.index(report.END) :]
    measured = re.findall(r"\d[\d.,]*\s?(?:ms|µs|s|MB|KB|%)(?=\W)", prose)

    assert not measured


def test_a_page_without_the_marks_is_refused(results: dict[str, Any]) -> None:
    """A page whose marks were edited away is not overwritten."""
    with pytest.raises(ValueError, match="lacks the marks"):
        report.with_table("# What it costs\n", results)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    """p99 of a hundred values is the ninety-ninth, and nothing is interpolated."""
    values = [float(number) for number in range(100, 0, -1)]

    assert value == percentile(values, share)


@pytest.mark.parametrize(("reached", "met"), [(9.9, True), (10.0, True), (10.1, False)])
def test_a_goal_is_met_up_to_its_limit(reached: float, met: bool) -> None:
    """Goals are largest values."""
    assert met is Goal("import", "ms", 10.0, reached).as_json()["met"]


@pytest.mark.parametrize(("theirs", "ratio"), [(4.0, 0.5), (0.0, None), (None, None)])
def test_a_ratio_needs_a_peer(theirs: float | None, ratio: float | None) -> None:
    """Nothing is divided by a peer that needs nothing, or that was not measured."""
    assert ratio == Figure("requests", "", 2.0, "peer", theirs, n=1).as_json()["ratio"]


def test_the_results_name_no_path_of_a_machine() -> None:
    """What is committed says nothing of where it was made but processor, cores and load."""
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", Path(RESULTS).read_text())
