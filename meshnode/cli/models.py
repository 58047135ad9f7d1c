"""`meshnode models`: models at hand here and in the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import NOTHING, gigabytes, node_text, print_json, print_table, printable
from meshnode.exit_codes import BAD_USAGE, UNREACHABLE


@click.command(short_help="Models at hand here and in the mesh.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Models that nodes of the mesh hold or want, and the profiles that can be planned without files.

    Where no node runs: what `meshnode plan --nodes` finds by its name, which are the files in the config's model
    directories and the profiles.

    \b
    Examples:
      meshnode models
      meshnode models --json | jq -r '.models[].ref'
    """
    try:
        client = client_of(state_dir, config_file)
        answer = {"running": True, **client.get("/v1/models")}
    except Failure as failure:
        if failure.exit_code != UNREACHABLE:
            raise
        answer = _found_here(state_dir, config_file)
        if not as_json:
            click.echo(f"{printable(failure.message)}; what can be planned without one (`meshnode plan --nodes`):\n")
    if as_json:
        print_json(answer)
        return
    if not answer["running"]:
        _print_files(answer)
    elif answer["models"]:
        columns = ("MODEL", "KIND", "WANTED BY", "COMPLETE AT", "HELD")
        names = client.names()
        print_table(columns, [_row(model, names) for model in answer["models"]], prose=frozenset(columns[2:]))
    else:
        click.echo("no node of the mesh holds or wants a model; `model_dirs` and `models` in the config say so")
    if answer["profiles"]:
        click.echo("\nprofiles to plan with (figures without files): " + ", ".join(answer["profiles"]))


def _found_here(state_dir: Path | None, config_file: Path | None) -> Json:
    """What needs no node: files that the config's directories have, and profiles."""
    from meshnode.config import load_config
    from meshnode.models import find_models, profile_names

    directories = load_config({"state_dir": state_dir}, file=config_file).model_dirs
    try:
        found = find_models(directories)
    except OSError as error:
        raise Failure(f"model_dirs: {error.filename}: {error.strerror}", exit_code=BAD_USAGE) from error
    files = [{"ref": each.name, "kind": each.kind.value, "path": str(each.paths[0])} for each in found]
    return {
        "running": False,
        "models": [],
        "files": files,
        "model_dirs": [str(directory) for directory in directories],
        "profiles": list(profile_names()),
    }


def _print_files(answer: Json) -> None:
    if answer["files"]:
        rows = [(each["ref"], each["kind"], each["path"]) for each in answer["files"]]
        print_table(("MODEL", "KIND", "FILE"), rows, prose=frozenset({"FILE"}))
    else:
        within = ", ".join(map(printable, answer["model_dirs"]))
        click.echo(f"no model files in {within}" if within else "no model files: the config names no `model_dirs`")


def _row(model: Json, names: Mapping[str, str]) -> tuple[str, ...]:
    def nodes(ids: list[str]) -> str:
        return ", ".join(node_text(node, names) for node in ids) or NOTHING

    held = [f"{node_text(holder['node'], names)} {_held(holder)}" for holder in model["holders"]]
    kind = "profile" if model["is_profile"] else "files"
    return (model["ref"], kind, nodes(model["wanted_by"]), nodes(model["complete_at"]), "; ".join(held) or NOTHING)


def _held(holder: Json) -> str:
    """What a node has: bytes of files, or the layers that it fetched and keeps."""
    cached, fetched = holder["cached_bytes"], holder.get("fetched") or ()
    layers = ", ".join(f"{each['layer_start']}-{each['layer_end'] - 1}" for each in fetched)
    if layers and not cached:
        return f"layers {layers} fetched"
    return "unknown" if cached is None else gigabytes(cached)
