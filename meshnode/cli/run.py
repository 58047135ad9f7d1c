"""`meshnode run`: a long-lived node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from meshnode.cli.failures import Failure
from meshnode.config.keys import SETTINGS, Setting
from meshnode.exit_codes import BAD_USAGE

MAX_TOKEN_FILE_BYTES = 16_384


def _option(setting: Setting) -> click.Option:
    repeated = " May be repeated." if setting.repeatable else ""
    default = "none" if setting.default == () else setting.default_text
    bounds = f" [{setting.bounds}]" if setting.bounds else ""
    text = f"{setting.about.meaning}{repeated} Default: {default}.{bounds}"
    if setting.is_switch:
        return click.Option([f"{setting.flag}/--no-{setting.flag[2:]}", setting.key], default=None, help=text)
    names = [setting.flag, setting.key]
    return click.Option(names, metavar=setting.takes, multiple=setting.repeatable, default=None, help=text)


class _Run(click.Command):
    """The options of `run` are the configuration's keys, so that neither can have one the other lacks."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-1], *_CONFIG_OPTIONS, own[-1]]


_CONFIG_OPTIONS = [_option(setting) for setting in SETTINGS.values()]


@click.command(cls=_Run, short_help="Run a node: found a mesh, or join one with an invite token.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Config file. Default: MESHNODE_CONFIG, else ~/.config/meshnode/node.toml.")  # fmt: skip
@click.option("--join", metavar="TOKEN",
              help="Join with this invite token; `-` asks for it, or reads it from stdin. Also MESHNODE_JOIN, which"
              " other users of the machine don't see.")  # fmt: skip
@click.option("--join-file", type=click.Path(path_type=Path), metavar="FILE", help="Join with the token in this file.")
@click.option("--accept-moved-state", is_flag=True, help="The state directory was moved here from another machine.")
@click.option("--stop-on-eof", is_flag=True,
              help="Leave cleanly when stdin ends: for a program that runs a node as its child.")  # fmt: skip
def command(
    config_file: Path | None, join: str | None, join_file: Path | None,
    accept_moved_state: bool, stop_on_eof: bool, **flags: object,
) -> None:  # fmt: skip
    """Run a node until SIGTERM or Ctrl-C, which leave the mesh cleanly; a second one ends the process at once.

    Without a token the first run founds a mesh. With one it joins the token's mesh; once it is a member it needs the
    token no more, and restarts find the mesh by themselves. Every option is also a key of the config file and an
    environment variable: --max-memory is max_memory and MESHNODE_MAX_MEMORY. SIGHUP opens the log file anew and takes
    over what was changed in the config file; the event config.reloaded tells what waits for a restart.

    \b
    Examples:
      meshnode run                                     found a mesh, or go on with it
      meshnode run --join -                            join; asks for the token
      meshnode run --join-file token.txt               join; reads it from a file
      meshnode run --max-memory 24GB --willing when_needed
      meshnode run --model qwen3-32b-q4_k_m            wait until the mesh can hold it
    """
    from meshnode.config import ConfigError, NodeConfig, load_config

    def load() -> NodeConfig:
        return load_config(_given(flags), file=config_file)

    try:
        config = load()
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    token = token_of(join, join_file)
    from meshnode.daemon import StartFailed, run_node

    try:
        run_node(config, token=token, accept_moved_state=accept_moved_state, stop_on_eof=stop_on_eof, reload=load)
    except StartFailed as failure:
        raise Failure(failure.message, failure.advice) from failure


def _given(flags: dict[str, Any]) -> dict[str, object]:
    """Flags that were given. click hands an absent repeatable flag over as an empty tuple."""
    return {key: value for key, value in flags.items() if value is not None and value != ()}


def token_of(join: str | None, join_file: Path | None) -> str | None:
    """The invite token from the flag, a file, stdin or the environment, in this order; None where none was given, and
    empty where the variable is: `meshnode.joining.entering.enter` says what that means."""
    if join is not None and join_file is not None:
        raise Failure("--join and --join-file are both given", "give one of them", BAD_USAGE)
    if join is not None and not join.strip():
        raise Failure("--join: the token is empty", "give an invite token, or no --join to found a mesh", BAD_USAGE)
    if join == "-":
        return _from_stdin()
    if join_file is not None:
        return _from_file(join_file)
    # The variable is taken out, so that no child process of this one inherits the secret.
    given = os.environ.pop("MESHNODE_JOIN", None)
    text = given if join is None else join
    return None if text is None else text.strip()


def _from_stdin() -> str:
    if sys.stdin.isatty():
        token = str(click.prompt("invite token", hide_input=True, err=True)).strip()
    else:
        # One line: whatever feeds the pipe may keep it open.
        token = sys.stdin.readline(MAX_TOKEN_FILE_BYTES).strip()
    if not token:
        raise Failure("invite token: found nothing on stdin", "pipe the token in, or paste it", BAD_USAGE)
    return token


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            token = file.read(MAX_TOKEN_FILE_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no text"
        raise Failure(f"--join-file {path}: {reason}", "name a file that holds the token", BAD_USAGE) from error
    if not token:
        raise Failure(f"--join-file {path}: the file is empty", "put the token into it", BAD_USAGE)
    return token
