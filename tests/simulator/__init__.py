"""A seeded world in one process: the real ``withdrawals`` code, everything around it simulated, a judge at the end."""

from tests.simulator.reports import Totals, WorldReport, table
from tests.simulator.world import run_worlds, simulate

__all__ = ["Totals", "WorldReport", "run_worlds", "simulate", "table"]
