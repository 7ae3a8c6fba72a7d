"""Every schedule of one withdrawal with few faults, run through the real protocol."""

from tests.explorer.search import Report, explore, replay
from tests.explorer.world import Setting

__all__ = ["Report", "Setting", "explore", "replay"]
