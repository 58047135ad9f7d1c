"""`meshnode demo`: see it work on this machine alone."""

from __future__ import annotations

import click

from meshnode.cli.failures import Failure
from meshnode.exit_codes import INTERRUPTED


@click.command(short_help="Show the whole thing on this machine, then clean up.")
def command() -> None:
    """Start real nodes on this machine, let them join a mesh, ask for a model they can't hold, add a node, ask again.

    Takes under a minute, uses only loopback and a temporary directory, and leaves no process behind, also on Ctrl-C.

    \b
    Example:
      meshnode demo
    """
    from meshnode.demo import DemoFailed, running

    try:
        with running(click.echo) as demo:
            demo.play()
        for line in demo.summary():
            click.echo(line)
    except DemoFailed as failure:
        raise Failure(str(failure), "the other nodes' logs lie beside it") from failure
    except KeyboardInterrupt:
        click.echo("\nstopped; all nodes have ended", err=True)
        raise SystemExit(INTERRUPTED) from None
