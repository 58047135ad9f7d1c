"""The simulator: the daemon's membership machines, unmodified, in virtual time. `meshnode simulate NAME` runs it.

Others use `run_scenario(name, seed) -> Report` and `scenarios()`; tests also build worlds of their own.
"""

from meshnode.simulation.report import Figure, Report
from meshnode.simulation.scenario import Scenario, UnknownScenario, run_scenario, scenarios

__all__ = ["Figure", "Report", "Scenario", "UnknownScenario", "run_scenario", "scenarios"]
