"""`meshnode remove`: take a node out of the mesh for good."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import print_json, printable


@click.command(short_help="Remove a node from the mesh for good.")
@click.argument("node")
@click.option("--keep", multiple=True, metavar="NODE",
              help="Keep this node that NODE's branch admitted (`all`: every one). Repeatable.")  # fmt: skip
@click.option("--root-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Sign with the mesh's root key in this file (`meshnode init --export-root`).")  # fmt: skip
@click.option("--yes", is_flag=True, help="Don't ask.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool,
    node: str, keep: tuple[str, ...], root_key: Path | None, yes: bool,
) -> None:  # fmt: skip
    """Remove NODE (its id, the beginning of it, or its name) from the mesh for good.

    Every member is told and refuses it from then on. It takes along every node that NODE admitted, directly or through
    others, and every token NODE issued or joined with; they are listed first, and --keep signs those anew that
    should stay. There is no way back but a new invite and a new key.

    \b
    Examples:
      meshnode remove mfrggzdfmz
      meshnode remove attic --keep all
    """
    client = client_of(state_dir, config_file)
    key_file = None if root_key is None else str(root_key.resolve())
    request = {"node": node, "keep": list(keep), "root_key_file": key_file, "confirmed": False}
    consequences = client.post("/v1/remove", request)
    if not yes:
        _show(consequences, err=as_json)
        click.confirm("Remove it?", abort=True, err=as_json)
    done = client.post("/v1/remove", request | {"node": consequences["node"], "confirmed": True})
    if as_json:
        print_json(done)
        return
    click.echo(f"removed {done['node'][:10]}: {len(done['removed'])} node(s) out, {len(done['kept'])} kept")


def _show(consequences: Json, *, err: bool) -> None:
    def say(text: str) -> None:
        click.echo(printable(text), err=err)

    say(f"This removes {_named(consequences)} for good.")
    gone = [entry for entry in consequences["descendants"] if not entry["kept"]]
    kept = [entry for entry in consequences["descendants"] if entry["kept"]]
    if gone:
        say(f"Removed with it, because it admitted them ({len(gone)}):")
        for entry in gone:
            say(f"  {_named(entry)}")
        say("  (--keep NODE or --keep all signs them anew)")
    for entry in kept:
        say(f"Kept: {_named(entry)}")


def _named(entry: Json) -> str:
    return f"{entry['node'][:10]}" + (f" ({entry['name']})" if entry["name"] else "")
