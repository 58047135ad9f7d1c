"""`meshnode ui`: the live page in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import print_json


@click.command(short_help="Open the live page of this node and its mesh.")
@click.option("--open/--no-open", "may_open", default=True, help="Open a browser where there is one. Default: yes.")
@click.option("--close", is_flag=True, help="Serve the page no more, and sign all browsers out.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool, may_open: bool, close: bool) -> None:
    """Open the live page: the mesh, its memory, its splits, and why a machine is not used.

    The page is served on this machine's loopback only. The printed address signs in one browser, once, within five
    minutes; the page can look and ask for plans, and change nothing. It stays open over restarts of the node.

    \b
    Examples:
      meshnode ui
      meshnode ui --no-open                            print the address only
      ssh -L 9339:127.0.0.1:9339 attic                 from elsewhere, with page_port = 9339 there
      meshnode ui --close                              serve it no more
    """
    client = client_of(state_dir, config_file)
    answer = client.delete("/v1/page") if close else client.post("/v1/page", {})
    if as_json:
        print_json(answer)
    elif close:
        click.echo("the page is closed, all browsers are signed out" if answer["closed"] else "the page was not open")
    else:
        _show(answer, may_open=may_open)


def _show(answer: Json, *, may_open: bool) -> None:
    click.echo(answer["url"])
    minutes = answer["expires_s"] // 60
    if may_open and _has_screen():
        import webbrowser

        if webbrowser.open(answer["url"]):
            click.echo("  opened in a browser; if it shows nothing, run this again with --no-open", err=True)
            return
    click.echo(f"  open it in a browser on this machine within {minutes} minutes; it signs in one browser", err=True)
    if "SSH_CONNECTION" in os.environ:
        port = answer["address"].rpartition(":")[2]
        click.echo(f"  from the machine you came from: ssh -L {port}:127.0.0.1:{port} HOST, then the same", err=True)


def _has_screen() -> bool:
    """Whether a browser of this session would show up where the person sits; text browsers take the terminal."""
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
