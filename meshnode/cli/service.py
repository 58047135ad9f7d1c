"""`meshnode service`: the node as a service of this user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from meshnode.cli.client import client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE, UNREACHABLE

if TYPE_CHECKING:
    from meshnode.service.managers import ServiceManager

Result = TypeVar("Result")

_NAME = click.option("--name", default="meshnode", show_default=True, metavar="NAME",
                     help="What the service is called, where a machine runs several nodes.")  # fmt: skip


@click.group(short_help="Run the node as a service of this user.")
def command() -> None:
    """Run the node as a service of this user: a systemd user unit, or a launchd agent on macOS. (For a service of the
    whole system there is configs/meshnode.service.)

    \b
    Examples:
      meshnode service install
      meshnode service install -- --max-memory 24GB --willing when_needed
      meshnode service status
      meshnode service uninstall
    """


@command.command(short_help="Write the service's file and start it.")
@_NAME
@click.option("--no-start", is_flag=True, help="Only write the file.")
@click.option("--print", "only_print", is_flag=True, help="Only print the file.")
@node_options
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def install(
    state_dir: Path | None, config_file: Path | None,
    name: str, no_start: bool, only_print: bool, run_options: tuple[str, ...],
) -> None:  # fmt: skip
    """Write the service's file, have it started now and at each login. Options of `meshnode run` follow after `--`.

    Join a mesh first, with `meshnode join`: a token does not belong into a file that others can read.

    \b
    Examples:
      meshnode service install
      meshnode service install --config ~/node.toml
      meshnode service install --name meshnode-lab --state-dir ~/lab -- --listen '*:4412'
      meshnode service install --print
    """
    from meshnode.config import ConfigError, load_config
    from meshnode.service.files import command_of

    _check_options(run_options)
    named = config_file or (Path(os.environ["MESHNODE_CONFIG"]) if os.environ.get("MESHNODE_CONFIG") else None)
    try:
        config = load_config({"state_dir": state_dir}, file=named)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    manager = _manager(name)
    words = command_of(_program(), config.state_dir, named, run_options)
    if only_print:
        click.echo(manager.text(words), nl=False)
        return
    _carry_out(lambda: manager.install(words))
    click.echo(f"wrote {manager.file}")
    if not no_start:
        _carry_out(manager.start)
        click.echo(f"started; `meshnode service status{_naming(name)}` shows how it does, `meshnode status` the node")
        for note in manager.state().notes:
            click.echo(f"note: {note}")


@command.command(short_help="Stop it and remove the service's file.")
@_NAME
def uninstall(name: str) -> None:
    """Stop the service and remove its file. The node's state and its membership stay.

    \b
    Examples:
      meshnode service uninstall
      meshnode service uninstall --name meshnode-lab
    """
    manager = _manager(name)
    _carry_out(manager.uninstall)
    click.echo(f"removed {manager.file}")


@command.command(short_help="Whether the service is installed and runs.")
@_NAME
@node_options
@json_option
def status(state_dir: Path | None, config_file: Path | None, as_json: bool, name: str) -> None:
    """Whether the service is installed, runs, and the node answers. Exit code 0 where it runs, 3 where it does not.

    \b
    Examples:
      meshnode service status
      meshnode service status --json | jq .state
    """
    manager = _manager(name)
    found = _carry_out(manager.state)
    try:
        answers = bool(client_of(state_dir, config_file).get("/v1/status"))
    except Failure:
        answers = False
    if as_json:
        shown = {
            "name": found.name, "file": str(found.file), "installed": found.installed, "state": found.state,
            "at_login": found.at_login, "pid": found.pid, "node_answers": answers, "notes": list(found.notes),
        }  # fmt: skip
        print_json(shown)
    else:
        click.echo(f"service    {found.name}: {found.state}" + (f", pid {found.pid}" if found.pid else ""))
        click.echo(f"file       {found.file}" if found.installed else f"file       none at {found.file}")
        click.echo(f"at login   {'started' if found.at_login else 'not started'}")
        click.echo(f"node       {'answers' if answers else 'does not answer'}")
        for note in found.notes:
            click.echo(f"note       {note}")
    if not found.runs:
        raise SystemExit(UNREACHABLE)


def _check_options(run_options: tuple[str, ...]) -> None:
    """Options that `meshnode run` does not have fail here, not at the first start."""
    from meshnode.cli.run import command as run

    context = run.make_context("meshnode run", list(run_options))
    if context.params["join"] is not None:
        advice = "join first with `meshnode join`, then install"
        raise Failure("--join: a token does not belong into a service's file", advice, BAD_USAGE)


def _program() -> list[str]:
    """How this program is started again: by its own script where it was, else through its interpreter."""
    script = Path(sys.argv[0])
    if script.name == "meshnode" and script.exists():
        return [str(script.absolute())]
    return [sys.executable, "-m", "meshnode"]


def _manager(name: str) -> ServiceManager:
    from meshnode.service.files import NAME
    from meshnode.service.managers import manager_here

    if not NAME.fullmatch(name):
        raise Failure(f"--name: found {name!r}, expected up to 32 of a-z, 0-9 and -", exit_code=BAD_USAGE)
    return _carry_out(lambda: manager_here(name))


def _carry_out(step: Callable[[], Result]) -> Result:
    from meshnode.service.managers import ServiceFailed

    try:
        return step()
    except ServiceFailed as failed:
        raise Failure(failed.message, failed.advice) from failed


def _naming(name: str) -> str:
    return "" if name == "meshnode" else f" --name {name}"
