"""`meshnode split`: wait until the mesh's members have settled, then plan."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.cli.plan_text import print_outcome
from meshnode.cli.wishes import EXIT_CODES, wish_of, wish_options
from meshnode.exit_codes import BAD_USAGE, DONE, QUORUM_NOT_REACHED, SHORTFALL

_CODES = {"plan": DONE, "shortfall": SHORTFALL, "quorum_not_reached": QUORUM_NOT_REACHED}


@click.command(short_help="Wait until the members have settled, then plan a model over them.", epilog=EXIT_CODES)
@click.argument("model")
@wish_options
@click.option("--quorum", type=click.IntRange(min=1), metavar="N", help="Fewest participants. Default: the config's.")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Decide with what is there after this long. Default: the config's.",
)
@click.option("--force-split", is_flag=True, default=None,
              help="Plan it over the mesh even where this node holds it alone; --min-stages 2 also excludes a plan with"
              " one stage.")  # fmt: skip
@node_options
@json_option
def command(
    model: str, state_dir: Path | None, config_file: Path | None, as_json: bool, **options: object
) -> None:  # fmt: skip
    """Wait for the nodes that can hold MODEL together, then plan it, or say exactly what is short.

    A model that this node holds alone is planned at once, on it alone, unless --force-split or --quorum asks for more.
    Else it waits until members and capacities have stayed the same for a while (`dwell_s` of the config) and every
    participant has confirmed its figures itself; meanwhile it tells on stderr who takes part. Nothing is reserved.

    \b
    Examples:
      meshnode split qwen3-coder-480b-a35b-q4_k_xl --context 108288
      meshnode split ./model.gguf --quorum 3 --json | jq .short_by_bytes
    """
    client = client_of(state_dir, config_file)
    names = {} if as_json else client.names()
    for step in client.lines("/v1/splits", wish_of(model, options)):
        kind = step.pop("type")
        if kind == "error":
            error = step["error"]
            raise Failure(error["message"], error.get("advice", ""), BAD_USAGE)
        if kind == "result":
            raise SystemExit(_show(step, as_json, names))
        if not as_json and (line := _progress(step, names)):
            click.echo(line, err=True)
    raise Failure("the node stopped before there was a result", "see its log")


def _show(result: Json, as_json: bool, names: dict[str, str]) -> int:
    if as_json:
        print_json(result)
        return _CODES[result["result"]]
    click.echo(err=True)
    return print_outcome(result, names)


def _progress(step: Json, names: dict[str, str]) -> str:
    """One line for an event of the wait; nothing for those that only scripts want."""
    if step["event"] == "split.waiting":
        parts = [f"{_taking_part(step['participants'])} (at least {step['quorum']} must)"]
        words = {"pending": "pending", "excluded": "left out"}
        parts += [f"{step[kind]} {word}" for kind, word in words.items() if step[kind]]
        return f"waiting for the mesh to settle: {', '.join(parts)}"
    if step["event"] == "split.candidates" and step["pending"]:
        return "pending: " + ", ".join(_labelled(label, names) for label in step["pending"])
    if step["event"] == "split.ready":
        how = "settled" if step["outcome"] == "settled" else "the deadline came"
        return f"{how} after {step['waited_s']:.1f}s: {_taking_part(len(step['participants']))}; planning"
    return ""


def _taking_part(count: int) -> str:
    return f"{count} takes part" if count == 1 else f"{count} take part"


def _labelled(label: str, names: dict[str, str]) -> str:
    """`<id>:<reason>` with the name where there is one."""
    node, _, reason = label.partition(":")
    return f"{names.get(node) or node[:10]} ({reason})"
