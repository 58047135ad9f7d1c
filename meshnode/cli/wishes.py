"""The options that `plan` and `split` share: what is asked for.

What lives here: `wish_options`, and turning them into the fields of a wish (`meshnode.asking`). What does not: asking.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from meshnode.cli.client import Json
from meshnode.exit_codes import QUORUM_NOT_REACHED, SHORTFALL

Function = TypeVar("Function", bound=Callable[..., Any])

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
EXIT_CODES = f"Exit codes: 0 a plan, {SHORTFALL} a shortfall, {QUORUM_NOT_REACHED} the quorum was not reached."

_OPTIONS = (
    click.option("--context", type=click.IntRange(min=1), metavar="TOKENS",
                 help="Context length per lane. Default: the largest that fits, at most the model's own."),
    click.option("--lanes", type=click.IntRange(min=1), metavar="N", help="Parallel sequences. Default: 1."),
    click.option("--kv-type", type=click.Choice(("auto", *CACHE_TYPES)),
                 help="Type of the KV cache's elements. auto: f16, and where that does not fit (or, without --context,"
                      " leaves less than the model's own) q8_0, then q4_0. Default: f16."),
    click.option("--k-type", type=click.Choice(CACHE_TYPES), help="Type for K, where it differs from --kv-type."),
    click.option("--v-type", type=click.Choice(CACHE_TYPES), help="Type for V, where it differs from --kv-type."),
    click.option("--kv-mode", type=click.Choice(("split", "unified")),
                 help="Each lane its own cells, or one pool for all. Default: split."),
    click.option("--objective", type=click.Choice(("latency", "throughput", "fewest", "proportional")),
                 help="What the plan is best at. Default: latency."),
    click.option("--engine", type=click.Choice(("llama_cpp_rpc", "chain")),
                 help="Engine profile: where endpoints lie, what a hop costs. Default: llama_cpp_rpc."),
    click.option("--coordinator", metavar="NODE", help="Who coordinates, by id or name. Default: the best one."),
    click.option("--max-stages", type=click.IntRange(min=1), metavar="N", help="At most this many stages."),
    click.option("--min-stages", type=click.IntRange(min=1), metavar="N", help="At least this many stages."),
    click.option("--max-stage-rtt-ms", type=click.FloatRange(min=0), metavar="MS",
                 help="No stage on a node farther from the coordinator."),
    click.option("--min-tokens-per-s", type=click.FloatRange(min=0, min_open=True), metavar="N",
                 help="The least predicted speed that counts as a plan."),
    click.option("--best-effort", is_flag=True, default=None,
                 help="A plan that misses --min-tokens-per-s is shown with how far it misses."),
    click.option("--no-cut-at", "forbidden_boundaries", type=click.IntRange(min=1), multiple=True, metavar="LAYER",
                 help="No stage may begin with this layer. Repeatable."),
)  # fmt: skip


def wish_options(function: Function) -> Function:
    """Everything that can be asked for, besides the model."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def wish_of(model: str, options: dict[str, Any]) -> Json:
    """The fields of the wish; what was not given is left out, so that the other side's defaults hold.

    A model named by a path is made absolute: the daemon does not run in this directory. A bare name is a path if
    there is such a file here and no profile of that name (`meshnode.models.refs`).
    """
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    known = {name: value for name, value in given.items() if value is not None and value != []}
    return {"model": _absolute(model), **known}


def _absolute(model: str) -> str:
    try:
        path = Path(model).expanduser()
        if not path.exists():
            return model
    except (OSError, RuntimeError):  # a name too long, an unknown ~user: the other side says so
        return model
    if "/" not in model:
        from meshnode.models.refs import profile_names

        if model.lower().removesuffix(".toml") in {name.lower() for name in profile_names()}:
            return model
    return str(path.absolute())
