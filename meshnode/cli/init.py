"""`meshnode init`: make this node's key and its mesh without running it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from meshnode.cli.client import json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE


@click.command(short_help="Make this node's key and its mesh without running it.")
@click.option("--export-root", type=click.Path(path_type=Path), metavar="FILE",
              help="Put the mesh's root key into this new file and keep no copy here.")  # fmt: skip
@click.option("--client", is_flag=True, help="This node will use the mesh and give it no compute.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool, export_root: Path | None, client: bool
) -> None:
    """Found a mesh: make its root key and this node's membership, without running the node.

    The first `meshnode run` does the same by itself. The root key can remove any member; --export-root puts it into
    a file for you to keep offline, and `meshnode remove --root-key FILE` uses it.

    \b
    Examples:
      meshnode init
      meshnode init --export-root /media/usb/mesh-root.key
    """
    from meshnode.admission import AdmissionError, found_mesh
    from meshnode.config import ConfigError, load_config
    from meshnode.durable import StateError
    from meshnode.state import StateDirectory
    from proto.parts import Role

    try:
        config = load_config({"state_dir": state_dir, "client": client or None}, file=config_file)
        with StateDirectory.open(config.state_dir) as state:
            identity = state.identity()
            role = Role.CLIENT if config.client else Role.WORKER
            founded = found_mesh(state, identity, int(time.time()), role=role, export_root=export_root)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    except StateError as error:
        raise Failure(f"{error.path}: {error.found}", error.fix) from error
    except AdmissionError as error:
        raise Failure(error.text, error.advice) from error
    kept = "in the state directory" if founded.root_kept else str(export_root)
    if as_json:
        print_json({"mesh": founded.mesh, "node": identity.node, "role": role.value, "root_key": kept})
        return
    click.echo(f"mesh {founded.mesh}\nnode {identity.node}, {role.value}\nroot key {kept}")
    click.echo("next: `meshnode run` here, then `meshnode invite` for the other machines", err=True)
