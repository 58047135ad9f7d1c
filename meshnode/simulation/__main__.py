"""`python -m meshnode.simulation NAME [SEED]`: one scenario's report; without a name, the list of them."""

from __future__ import annotations

import sys

from meshnode.simulation.scenario import UnknownScenario, run_scenario, scenarios


def main(arguments: list[str]) -> int:
    """Prints the report; 0 where every target was met, 1 where not, 2 for a wrong name."""
    if not arguments:
        for scenario in scenarios().values():
            print(f"{scenario.name:20} {scenario.text}")  # noqa: T201 (a command's output)
        return 0
    try:
        report = run_scenario(arguments[0], int(arguments[1]) if len(arguments) > 1 else 1)
    except UnknownScenario as error:
        print(error, file=sys.stderr)  # noqa: T201 (a command's output)
        return 2
    print("\n".join(report.lines()))  # noqa: T201 (a command's output)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
