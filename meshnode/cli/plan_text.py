"""A plan or a shortfall as people read it, from its JSON (`SplitPlan.to_dict`, `ShortfallReport.to_dict`).

What lives here: `print_outcome` for `plan`, `split` and `demo`. What does not: the figures, which are the planner's.
Node ids are shortened, and followed by the name where the mesh knows one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import click

from meshnode.cli.client import Json
from meshnode.cli.explain_text import print_explanation
from meshnode.cli.output import (
    ID_LENGTH,
    NOTHING,
    SHORT_LENGTH,
    estimate,
    gigabytes,
    node_text,
    print_table,
    printable,
)
from meshnode.exit_codes import DONE, QUORUM_NOT_REACHED, SHORTFALL

_ID = re.compile(r"\b[a-z2-7]{52}\b")
_SHORT_ID = re.compile(r"\b[a-z2-7]{10}\b")

STAGE_COLUMNS = (
    "STAGE", "NODE", "DEVICE", "LAYERS", "COUNT", "WEIGHTS", "KV", "OTHER", "TOTAL", "USABLE", "FREE", "TIME",
)  # fmt: skip
IN_COLUMNS = ("NODE", "CAPACITY", "USABLE", "CACHED", "MISSING", "RTT", "CAN FETCH", "LAYERS ALONE")
OUT_COLUMNS = ("NODE", "REASON", "FOUND", "REQUIRED", "WHAT TO DO")


def print_outcome(outcome: Json, names: Mapping[str, str] | None = None) -> int:
    """Print a plan, a shortfall or a missed quorum; the exit code that goes with it."""
    known = names or {}
    if outcome["result"] == "plan":
        _print_plan(outcome, known)
        return DONE
    if outcome["result"] == "quorum_not_reached":
        _print_quorum(outcome, known)
        return QUORUM_NOT_REACHED
    _print_shortfall(outcome, known)
    return SHORTFALL


def with_names(text: str, names: Mapping[str, str]) -> str:
    """`text` with every whole node id in it as people know the node."""
    return printable(_ID.sub(lambda found: names.get(found[0]) or found[0][:SHORT_LENGTH], text))


# --- a plan ----------------------------------------------------------------------------------------


def _print_plan(plan: Json, names: Mapping[str, str]) -> None:
    stages = plan["stages"]
    lanes = "1 lane" if plan["lanes"] == 1 else f"{plan['lanes']} lanes"
    count = "1 stage" if len(stages) == 1 else f"{len(stages)} stages"
    click.echo(f"{printable(plan['model'])}: {count}, context {plan['context']} tokens, {lanes}{_cache(plan)}")
    coordinator = plan["coordinator"]
    role = "which also holds a stage" if coordinator["is_stage"] else "which holds no stage"
    click.echo(
        f"coordinator {node_text(coordinator['node'], names)}, {role};"
        f" host memory {gigabytes(coordinator['host_bytes'])}, engine {plan['engine']}"
    )
    click.echo()
    right = frozenset(STAGE_COLUMNS) - {"NODE", "DEVICE", "LAYERS"}
    declared = frozenset(plan.get("declared", ()))
    rows = [_stage_row(stage, names, declared) for stage in stages]
    print_table(STAGE_COLUMNS, rows, right=right, spare=("COUNT", "FREE", "OTHER", "KV", "WEIGHTS", "DEVICE"))
    click.echo()
    for line in [_quality(plan), *_prediction(plan, names), *_to_fetch(plan, names), *_untold(plan)]:
        click.echo(line)
    for note in (*plan["warnings"], *plan.get("notes", ())):
        click.echo(f"note: {with_names(note, names)}")
    if "explanation" in plan:
        print_explanation(plan, lambda node: node_text(node, names))


def _cache(plan: Json) -> str:
    """How the KV cache is kept, where the plan says so."""
    workload = plan.get("workload")
    if workload is None:
        return ""
    k_type, v_type = workload["k_type"], workload["v_type"]
    kinds = k_type if k_type == v_type else f"{k_type} (K) and {v_type} (V)"
    chosen = " (auto)" if "cache" in plan else ""
    pool = " in one pool" if workload["kv_mode"] == "unified" else ""
    return f", KV cache {kinds}{chosen}{pool}"


def _to_fetch(plan: Json, names: Mapping[str, str]) -> list[str]:
    """Where bytes have to come from another node before the plan runs: what they are, by node."""
    missing: dict[str, int] = {}
    for stage in plan["stages"]:
        missing[stage["node"]] = missing.get(stage["node"], 0) + (stage.get("missing_bytes") or 0)
    lacking = {node: count for node, count in missing.items() if count}
    if not lacking:
        return []
    parts = ", ".join(f"{node_text(node, names)} {gigabytes(count)}" for node, count in lacking.items())
    return [f"to fetch before it runs: {gigabytes(sum(lacking.values()))} of weights ({parts})"]


def _untold(plan: Json) -> list[str]:
    """Why `auto` took the cache's types, where no warning says so: nothing was given up."""
    why = plan.get("cache", {}).get("why")
    return [] if why is None or any(why in warning for warning in plan["warnings"]) else [f"KV type auto: {why}"]


def _stage_row(stage: Json, names: Mapping[str, str], declared: frozenset[str]) -> tuple[str, ...]:
    held = stage["bytes"]
    seconds = stage["seconds"]
    return (
        str(stage["stage"]),
        node_text(stage["node"], names),
        stage["device"],
        f"{stage['layer_start']}-{stage['layer_end'] - 1}",
        str(stage["layer_end"] - stage["layer_start"]),
        gigabytes(held["weights"]),
        gigabytes(held["kv"]),
        gigabytes(held["state"] + held["endpoint"] + held["compute"]),
        gigabytes(held["total"]),
        _marked(held["usable"], stage["node"], declared),
        gigabytes(held["usable"] - held["total"]),
        NOTHING if seconds is None else f"{seconds * 1000:.1f}ms",
    )


def _quality(plan: Json) -> str:
    """How good the plan is, and how that is known."""
    bound, gap = plan["lower_bound"], plan["gap"]
    if bound is None or gap is None:
        proof = "no bound is known"
    elif gap == 0:
        proof = "proved to be the best possible"
    else:
        proof = f"at most {gap * 100:.1f}% above the best possible ({_worth(bound, plan['unit'])})"
    return f"objective {plan['objective']}: {_worth(plan['value'], plan['unit'])}, {proof} ({plan['method']})"


def _worth(value: float, unit: str) -> str:
    """What an objective's value says, in its unit."""
    if unit == "s":
        return f"{value * 1000:.4g}ms per token"
    if unit == "stages":
        return "1 stage" if value == 1 else f"{value:g} stages"
    return f"{value:g} {unit}"


def _prediction(plan: Json, names: Mapping[str, str]) -> list[str]:
    prediction = plan["prediction"]
    if prediction is None:
        return ["capacity-only: it fits, but some speed or RTT is unknown, so no speed is predicted"]
    lines = [f"predicted {prediction['tokens_per_s']:.1f} tokens/s, {prediction['latency_s'] * 1000:.1f}ms per token"]
    return lines + [f"  assumes {with_names(assumption, names)}" for assumption in prediction["assumptions"]]


# --- a shortfall -----------------------------------------------------------------------------------


def _print_shortfall(report: Json, names: Mapping[str, str]) -> None:
    # What the message goes on with (what the requirement is made of, the remedies) stands below, readable.
    click.echo(printable(report["message"].partition("; made of ")[0]))
    if report.get("requirement"):
        click.echo(f"\n{_requirement(report['requirement'])}")
    if "cache" in report:
        click.echo(f"KV type auto: {printable(report['cache']['why'])}.")
    click.echo("\nWho was counted:")
    declared = frozenset(report.get("declared", ()))
    rows = [_participant_row(participant, names, declared) for participant in report["participants"]]
    right = frozenset(IN_COLUMNS) - {"NODE", "CAN FETCH"}
    print_table(IN_COLUMNS, rows, right=right, spare=("CAN FETCH", "CAPACITY", "MISSING", "CACHED"))
    _print_excluded(report["excluded"], names)
    if report["remedies"]:
        click.echo("\nWhat would help, least effort first:")
        for number, remedy in enumerate(report["remedies"], 1):
            click.echo(f"  {number}. {_asks(remedy, names)} ({_effect(remedy)})")


def _asks(remedy: Json, names: Mapping[str, str]) -> str:
    """What a remedy asks for; nodes, whose ids the planner has shortened, as people know them."""
    return _with_short_ids(printable(remedy["asks"]), names, lambda node: node_text(node, names))


def _with_short_ids(text: str, names: Mapping[str, str], shown: Callable[[str], str]) -> str:
    """`text` with each shortened id of a node that has a name as `shown` writes that node."""
    known = {node[:SHORT_LENGTH]: node for node, name in names.items() if len(node) == ID_LENGTH and name}
    return _SHORT_ID.sub(lambda found: shown(known[found[0]]) if found[0] in known else found[0], text)


def _requirement(parts: dict[str, int]) -> str:
    """What the required bytes are made of. Host memory is the coordinator's and stands apart: no device holds it."""
    on_devices = [f"{part} {gigabytes(count)}" for part, count in parts.items() if count and part != "host"]
    text = f"Required on devices: {', '.join(on_devices)}."
    host_bytes = parts.get("host", 0)
    return text + (f" Besides, {gigabytes(host_bytes)} of the coordinator's host memory." if host_bytes else "")


def _print_quorum(report: Json, names: Mapping[str, str]) -> None:
    count, quorum = len(report["participants"]), report["quorum"]
    model = printable(report["model"])
    click.echo(f"quorum not reached for {model}: {count} of {quorum} after {report['waited_s']:.1f}s")
    if report["participants"]:
        click.echo("\nWho would take part:")
        rows = [(node_text(each["node"], names), gigabytes(each["usable_bytes"])) for each in report["participants"]]
        print_table(("NODE", "USABLE"), rows, right=frozenset({"USABLE"}))
    _print_excluded(report["excluded"], names)
    alone = f", or plan with what is there: --quorum {count}" if count else ""
    click.echo(f"\nTo reach it, let workers join (`meshnode invite`){alone}")


def _print_excluded(excluded: list[Json], names: Mapping[str, str]) -> None:
    if excluded:
        click.echo("\nWho was left out, and why:")
        rows = [_out_row(out, names) for out in excluded]
        print_table(OUT_COLUMNS, rows, spare=("REQUIRED",), prose=frozenset(OUT_COLUMNS[2:]))


def _participant_row(participant: Json, names: Mapping[str, str], declared: frozenset[str]) -> tuple[str, ...]:
    rtt_ms = participant["rtt_ms"]
    measured = "unknown" if rtt_ms is None else f"{rtt_ms:.1f}ms"
    return (
        node_text(participant["node"], names),
        gigabytes(participant["capacity_bytes"]),
        _marked(participant["usable_bytes"], participant["node"], declared),
        _known_bytes(participant["cached_bytes"]),
        _known_bytes(participant["missing_bytes"]),
        estimate(rtt_ms) if rtt_ms is not None and participant.get("rtt_estimated") else measured,
        "yes" if participant["transfer"] else "no",
        str(participant["placeable_layers"]),
    )


def _marked(usable_bytes: int, node: str, declared: frozenset[str]) -> str:
    """A figure that its operator stated and nothing measured says so."""
    return gigabytes(usable_bytes) + (" declared" if node in declared else "")


def _known_bytes(count: int | None) -> str:
    return "unknown" if count is None else gigabytes(count)


def _out_row(out: Json, names: Mapping[str, str]) -> tuple[str, ...]:
    told = (out[kind] or NOTHING for kind in ("found", "required", "advice"))  # a nodes file tells only a reason
    shown = (_with_short_ids(text, names, lambda node: names[node]) for text in told)
    return (node_text(out["node"], names), out["reason"], *shown)


def _effect(remedy: Json) -> str:
    if remedy["sufficient"]:
        return "then it fits"
    return f"closes {gigabytes(remedy['closes_bytes'])} of the gap, not enough alone"
