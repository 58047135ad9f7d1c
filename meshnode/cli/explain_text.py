"""Why a plan is as it is, as people read it, from the plan's JSON.

What lives here: `print_explanation`, for `plan --explain`. What does not: the plan itself (`meshnode.cli.plan_text`),
and the reasons, which are the planner's (`planner.explaining`).
"""

from __future__ import annotations

from collections.abc import Callable

import click

from meshnode.cli.client import Json
from meshnode.cli.output import NOTHING, gigabytes, print_table

NODE_COLUMNS = ("NODE", "PART", "PER LAYER", "THERE AND BACK", "WHY")
BYTES_COLUMNS = ("STAGE", "NODE", "WEIGHTS", "KV", "STATE", "ENDPOINT", "COMPUTE", "TOTAL", "USABLE", "TO FETCH")
MOST_UNUSED = 24
"""Nodes without a stage that are listed; `--json` has all of them."""

Named = Callable[[str], str]


def print_explanation(plan: Json, named: Named) -> None:
    """What binds, memory by part, every node's part in the plan, and the runner-up."""
    told = plan["explanation"]
    click.echo("\nWhat binds:")
    for line in _binding(plan, told, named):
        click.echo(f"  {line}")
    click.echo("\nMemory by part:")
    print_table(BYTES_COLUMNS, [_bytes_row(stage, named) for stage in plan["stages"]],
                right=frozenset(BYTES_COLUMNS) - {"NODE"}, spare=("STATE", "ENDPOINT", "TO FETCH"))  # fmt: skip
    click.echo("\nWhy each node is in or out:")
    used = [verdict for verdict in told["nodes"] if verdict["used"]]
    unused = [verdict for verdict in told["nodes"] if not verdict["used"]]
    rows = [_node_row(verdict, named) for verdict in [*used, *unused[:MOST_UNUSED]]]
    print_table(NODE_COLUMNS, rows, right=frozenset({"PER LAYER", "THERE AND BACK"}), prose=frozenset({"WHY"}))
    if len(unused) > MOST_UNUSED:
        click.echo(f"and {len(unused) - MOST_UNUSED} more without a stage (--json lists them)")
    click.echo(f"\nRunner-up: {_runner_up(plan, told['runner_up'], named)}")


def _binding(plan: Json, told: Json, named: Named) -> list[str]:
    lines = []
    if (slowest := told["bottleneck_stage"]) is not None:
        stage = plan["stages"][slowest]
        lines.append(f"stage {slowest} on {named(stage['node'])} takes longest: {stage['seconds'] * 1000:.1f}ms")
    if (hop := told["costliest_hop"]) is not None:
        costs = [each for each in plan["hops"] if [each["from"], each["to"]] == hop]
        figure = f"{max(each['seconds'] or 0.0 for each in costs) * 1000:.1f}ms"
        estimated = ", by an estimated RTT" if any(each["estimated"] for each in costs) else ""
        lines.append(f"the link {named(hop[0])} to {named(hop[1])} costs most: {figure}{estimated}")
    if shares := told["shares"]:
        lines.append(f"of a token's time {shares['memory']:.0%} is memory traffic and {shares['hops']:.0%} is hops")
    tightest = plan["stages"][told["tightest_stage"]]
    free = tightest["bytes"]["usable"] - tightest["bytes"]["total"]
    lines.append(f"stage {tightest['stage']} on {named(tightest['node'])} has least room left: {gigabytes(free)}")
    return lines


def _bytes_row(stage: Json, named: Named) -> tuple[str, ...]:
    held = stage["bytes"]
    parts = (held[part] for part in ("weights", "kv", "state", "endpoint", "compute", "total", "usable"))
    missing = stage.get("missing_bytes")
    to_fetch = "unknown" if missing is None else gigabytes(missing)
    return (str(stage["stage"]), named(stage["node"]), *map(gigabytes, parts), to_fetch)


def _node_row(verdict: Json, named: Named) -> tuple[str, ...]:
    part = "in" if verdict["used"] else "out"
    way = ("~" if verdict["hop_estimated"] else "") + _ms(verdict["hop_ms"])
    return (named(verdict["node"]), part, _ms(verdict["layer_ms"]), way, verdict["why"])


def _ms(figure: float | None) -> str:
    return NOTHING if figure is None else f"{figure:.2f}ms"


def _runner_up(plan: Json, other: Json | None, named: Named) -> str:
    if other is None:
        return "none was found that does without one of the plan's nodes"
    value, best = other["value"], plan["value"]
    if plan["unit"] == "s":
        value, best = value * 1000, best * 1000
    nodes = ", ".join(named(node) for node in other["nodes"][:8]) + (", ..." if len(other["nodes"]) > 8 else "")
    shown = f"{value:.1f}ms per token instead of {best:.1f}ms"
    if plan["unit"] != "s":
        shown = f"{value:g} stages instead of {best:g}"
    return f"without {named(other['without'])}, on {nodes}: {shown}"
