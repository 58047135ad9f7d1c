"""`meshnode leave`: this node stops being a member of its mesh."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import node_options
from meshnode.cli.failures import Failure
from meshnode.exit_codes import BAD_USAGE


@click.command(short_help="Leave the mesh for good.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@node_options
def command(state_dir: Path | None, config_file: Path | None, yes: bool) -> None:
    """Forget the mesh this node belongs to: its credential, the peers it knows, the invites it made. The node's own key
    stays, and a root key is kept aside. Stop the node first; to return it needs a new invite.

    (A node that is only stopped is still a member, and `meshnode run` goes on with it.)

    \b
    Examples:
      meshnode leave
      meshnode leave --state-dir /var/lib/meshnode --yes
    """
    from meshnode.config import ConfigError, load_config
    from meshnode.durable import StateError
    from meshnode.state import StateDirectory
    from proto.ids import MeshId, short

    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
        with StateDirectory.open(config.state_dir) as state:
            member_of = state.credential()
            if member_of is None:
                raise Failure(f"{config.state_dir}: this node belongs to no mesh", "nothing was changed")
            mesh = MeshId(member_of.mesh)
            if not yes:
                click.confirm(f"Leave mesh {short(mesh)} for good?", abort=True)
            state.forget_mesh()
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    except StateError as error:
        raise Failure(f"{error.path}: {error.found}", error.fix) from error
    click.echo(f"left mesh {short(mesh)}; `meshnode join` joins another")
