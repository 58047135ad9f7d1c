"""`meshnode models`: models at hand here and in the mesh."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import NOTHING, gigabytes, print_json, print_table


@click.command(short_help="Models at hand here and in the mesh.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Models that nodes of the mesh hold or want, and the profiles that can be planned without files.

    \b
    Examples:
      meshnode models
      meshnode models --json | jq -r '.models[].ref'
    """
    answer = client_of(state_dir, config_file).get("/v1/models")
    if as_json:
        print_json(answer)
        return
    if answer["models"]:
        columns = ("MODEL", "KIND", "WANTED BY", "COMPLETE AT", "HELD")
        print_table(columns, [_row(model) for model in answer["models"]], prose=frozenset(columns[2:]))
    else:
        click.echo("no node of the mesh holds or wants a model; `model_dirs` and `models` in the config say so")
    if answer["profiles"]:
        click.echo("\nprofiles to plan with (figures without files): " + ", ".join(answer["profiles"]))


def _row(model: Json) -> tuple[str, ...]:
    def nodes(ids: list[str]) -> str:
        return ", ".join(node[:10] for node in ids) or NOTHING

    held = [_held(holder) for holder in model["holders"]]
    kind = "profile" if model["is_profile"] else "files"
    return (model["ref"], kind, nodes(model["wanted_by"]), nodes(model["complete_at"]), "; ".join(held) or NOTHING)


def _held(holder: Json) -> str:
    cached = holder["cached_bytes"]
    return f"{holder['node'][:10]} {'unknown' if cached is None else gigabytes(cached)}"
