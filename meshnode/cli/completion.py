"""`meshnode completion`: the script that lets a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from meshnode.cli.failures import Failure


@click.command(short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      meshnode completion bash > ~/.local/share/bash-completion/completions/meshnode
      meshnode completion zsh > "${fpath[1]}/_meshnode"
      meshnode completion fish > ~/.config/fish/completions/meshnode.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"click knows no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "meshnode", "_MESHNODE_COMPLETE").source())
