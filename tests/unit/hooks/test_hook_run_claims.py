"""What is said before the record is read is said of this try alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.run import TaskRun
from tests.unit.hooks.test_hook_run import context

if TYPE_CHECKING:
    from typing import Any


def refused(**changes: Any) -> str:
    """Return what a refusal says in such a try."""
    run = TaskRun.from_context(context(**changes))
    with pytest.raises(ConfigurationError) as caught, run.speaking_for_this_try():
        raise ConfigurationError("The amount is odd. Nothing was sent.")
    return str(caught.value)


def test_a_first_try_s_refusal_speaks_for_the_whole_record() -> None:
    """Nothing can have been sent before the first try of a run never cleared."""
    assert refused() == "The amount is odd. Nothing was sent."


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"clear_number": 1}])
def test_a_later_try_s_refusal_points_to_what_is_on_record(changes: dict[str, Any]) -> None:
    """An earlier try may have sent the withdrawal, and the message says how to see it."""
    said = refused(**changes)

    assert "an earlier one may have sent the withdrawal" in said
    assert said.splitlines()[-1].startswith("airflow pacifica case --dag-id")


def test_a_cleared_run_is_known_as_one() -> None:
    """F62: after a clear a mapping may have been re-ordered, which the protocol has to know."""
    facts = [TaskRun.from_context(context(clear_number=number)).facts(None).cleared for number in (0, 1)]

    assert facts == [False, True]
