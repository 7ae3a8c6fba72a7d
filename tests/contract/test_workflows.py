"""What a hosted forge runs: the make targets that anybody can run, by pinned actions, with the least permissions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github/workflows").iterdir())}
USES = re.compile(r"^ +- uses: (.*)$", re.MULTILINE)
PINNED = re.compile(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
MAKE = re.compile(r"make ([a-z0-9.-]+)(?: [A-Z]+=(?:\d+|\"[a-z0-9 -]+\"))*")


def jobs_of(name: str) -> dict[str, Any]:
    """Return a workflow's jobs."""
    return dict(yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))["jobs"])


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Return every step of every workflow, each with the workflow's name."""
    return [(name, step) for name in WORKFLOWS for job in jobs_of(name).values() for step in job["steps"]]


def test_the_workflows_are_the_expected_ones() -> None:
    """A file more is a file that somebody has to judge."""
    assert {*WORKFLOWS} == {"test.yml", "matrix.yml", "cluster.yml", "release.yml"}


def test_every_action_is_pinned_by_its_commit() -> None:
    """With the version beside it, and one commit for one version."""
    used = [each for path in WORKFLOWS.values() for each in USES.findall(path.read_text(encoding="utf-8"))]
    pins = [PINNED.fullmatch(each) for each in used]

    assert [each for each, pin in zip(used, pins, strict=True) if pin is None] == []
    assert len(used) == sum("uses" in step for _, step in steps()) > 0
    assert len({pin.groups() for pin in pins if pin}) == len({pin[1] for pin in pins if pin})


def test_nothing_is_run_but_make_targets() -> None:
    """One that the Makefile has, with plain values: nothing of an event reaches a shell."""
    targets = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for _, step in steps() if "run" in step]
    called = [MAKE.fullmatch(each) for each in commands]

    assert [each for each, call in zip(commands, called, strict=True) if call is None or call[1] not in targets] == []
    assert {call[1] for call in called if call} == {
        *("lint", "explore", "test", "docs", "matrix", "cluster-test", "dist")
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_may_do_no_more_than_it_needs(name: str) -> None:
    """Nothing by default; a job reads the source, or publishes and does nothing else. None can hang for hours."""
    workflow = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    allowed = {job: each["permissions"] for job, each in workflow["jobs"].items()}
    publishing = {job: each for job, each in allowed.items() if each != {"contents": "read"}}

    assert workflow["permissions"] == {}
    assert publishing == ({"publish": {"id-token": "write"}} if name == "release.yml" else {})
    assert all(0 < each["timeout-minutes"] <= 180 for each in workflow["jobs"].values())


def test_no_credentials_are_left_in_a_checkout() -> None:
    """A test of a pull request has nothing to take along."""
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]

    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_the_publishing_job_runs_nothing_of_ours() -> None:
    """It waits for a person, takes what `make dist` has left, and hands it over with attestations."""
    publish = jobs_of("release.yml")["publish"]

    assert (publish["environment"], publish["needs"]) == ("pypi", "dist")
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert publish["steps"][-1]["with"] == {"attestations": True}
