"""`meshnode plan`: where a model's layers would go now, or what is short."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.cli.plan_text import print_outcome
from meshnode.cli.wishes import wish_of, wish_options
from meshnode.exit_codes import BAD_USAGE, DONE, SHORTFALL

PLAN_TIMEOUT_S = 300.0


@click.command(
    short_help="Where a model's layers would go now, or what is short.", epilog="Exit codes: 0 a plan, 4 a shortfall."
)
@click.argument("model")
@click.option("--nodes", "nodes_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Plan for the machines in this TOML file instead of the mesh; no node needs to run.")  # fmt: skip
@wish_options
@click.option("--explain", is_flag=True, default=None,
              help="Also say why each node is in or out, what binds, and what the next best plan is.")  # fmt: skip
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also draw the plan into this file.")  # fmt: skip
@click.option("--export", type=click.Choice(("llama.cpp", "vllm", "json")),
              help="Print the plan for those who run engines themselves: llama.cpp's command lines for each node,"
                   " vLLM's settings (with --engine chain), or JSON.")  # fmt: skip
@node_options
@json_option
def command(
    model: str, state_dir: Path | None, config_file: Path | None, as_json: bool,
    nodes_file: Path | None, svg: Path | None, export: str | None, **options: object,
) -> None:  # fmt: skip
    """Plan MODEL over the mesh as it is at this moment. Nobody is waited for, nothing is reserved.

    MODEL is a GGUF file (or any part of a set), a directory with one or with safetensors, a profile file, or a name:
    `meshnode models` lists the names. With --nodes it answers "what if I buy one more": the file lists machines and
    links, as configs/nodes.example.toml does; the best one coordinates unless the file or --coordinator says otherwise.

    \b
    Examples:
      meshnode plan qwen3-coder-480b-a35b-q4_k_xl --context 32768
      meshnode plan ./model.gguf --objective fewest --svg plan.svg
      meshnode plan llama-3.3-70b-q4_k_m --nodes my-machines.toml --explain
      meshnode plan llama-3.3-70b-q4_k_m --nodes my-machines.toml --json | jq .gap
      meshnode plan ./model.gguf --export llama.cpp
    """
    wish = wish_of(model, options)
    peers: list[Json] = []
    if nodes_file is not None:
        outcome = _offline(wish, nodes_file, svg is not None, state_dir, config_file)
    else:
        client = client_of(state_dir, config_file)
        outcome = client.post("/v1/plan", wish | {"picture": svg is not None}, timeout_s=PLAN_TIMEOUT_S)
        peers = [] if as_json else client.get("/v1/peers")["peers"]
    _draw(outcome.pop("picture", None), svg)
    if as_json or export == "json":
        print_json(outcome)
        code = DONE if outcome["result"] == "plan" else SHORTFALL
    elif export is not None and outcome["result"] == "plan":
        code = _export(export, outcome, wish["model"], peers)
    else:
        code = print_outcome(outcome, {peer["node"]: peer["name"] for peer in peers})
    raise SystemExit(code)


def _export(engine: str, outcome: Json, model: str, peers: list[Json]) -> int:
    """Print the plan in an engine's own words."""
    from meshnode.engine.export import NotExportable, llama_cpp_lines, vllm_lines

    names = {peer["node"]: peer["name"] for peer in peers}
    # llama.cpp's own endpoints have no IPv6 (ggml-rpc.cpp, `parse_endpoint`).
    plain = {peer["node"]: [each for each in peer["addresses"] if not each.startswith("[")] for peer in peers}
    hosts = {node: addresses[0].rpartition(":")[0] for node, addresses in plain.items() if addresses}
    file = model if "/" in model or model.endswith(".gguf") else f"{model}.gguf" if engine == "llama.cpp" else model
    try:
        is_llama = engine == "llama.cpp"
        lines = llama_cpp_lines(outcome, file, names, hosts) if is_llama else vllm_lines(outcome, file, names)
    except NotExportable as error:
        raise Failure(f"--export {engine}: {error}", exit_code=BAD_USAGE) from error
    click.echo("\n".join(lines))
    return DONE


def _offline(
    wish: Json, nodes_file: Path, wants_picture: bool, state_dir: Path | None, config_file: Path | None
) -> Json:
    """Plan for a nodes file, in this process. A model's name means what it would mean to the config's node."""
    from meshnode.config import ConfigError, load_config
    from meshnode.models import ModelFileError
    from meshnode.offline import plan_offline
    from planner import InvalidPlanInput

    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
        return plan_offline(wish, nodes_file, picture=wants_picture, config=config)
    except InvalidPlanInput as error:
        raise Failure(str(error), f"see {nodes_file} and the options given", BAD_USAGE) from error
    except (ModelFileError, ConfigError) as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    except OSError as error:
        raise Failure(f"{error.filename or nodes_file}: {error.strerror}", exit_code=BAD_USAGE) from error


def _draw(picture: str | None, svg: Path | None) -> None:
    if svg is None:
        return
    if picture is None:
        click.echo(f"note: there is no plan to draw; {svg} is left as it is", err=True)
        return
    try:
        svg.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise Failure(f"--svg {svg}: {error.strerror}", "name a file you may write", BAD_USAGE) from error
