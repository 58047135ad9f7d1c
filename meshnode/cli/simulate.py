"""`meshnode simulate`: a membership scenario in virtual time, with its figures."""

from __future__ import annotations

import gc

import click

from meshnode.cli.client import json_option
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE, DONE, REFUSED


@click.command(short_help="Run a named membership scenario in virtual time.")
@click.argument("name", required=False)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
              help="Equal seeds give equal runs, so that a failure can be replayed.")  # fmt: skip
@json_option
def command(name: str | None, seed: int, as_json: bool) -> None:
    """Play the scenario NAME with the daemon's own membership machines, unmodified, and print what was measured.

    Without NAME the scenarios are listed. No node needs to run. Exit code 1 where a target was missed or an invariant
    did not hold.

    \b
    Examples:
      meshnode simulate
      meshnode simulate kills-16-icmp
      meshnode simulate partition-64 --seed 7 --json
    """
    from meshnode.simulation import UnknownScenario, run_scenario, scenarios

    if name is None:
        known = scenarios().values()
        if as_json:
            print_json({"scenarios": [{"name": each.name, "text": each.text, "nodes": each.nodes} for each in known]})
            return
        width = max(len(each.name) for each in known)
        for each in known:
            click.echo(f"{each.name:{width}}  {each.text}")
        return
    # This process ends with its report: nobody needs the seconds that taking a large world apart would cost.
    gc.disable()
    try:
        report = run_scenario(name, seed)
    except UnknownScenario as error:
        raise Failure(str(error), "`meshnode simulate` lists them", BAD_USAGE) from error
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo("\n".join(report.lines()))
    gc.freeze()
    raise SystemExit(DONE if report.passed else REFUSED)
