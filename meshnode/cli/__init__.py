"""The command line: one module per verb; it prints, it never decides.

What lives here: `main` and the table of verbs. A verb's module is imported only when it is asked for, because scripts
call verbs in loops: `meshnode status` must not pay for what `meshnode run` needs.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec

import click

from meshnode.cli.streams import ending_plainly, open_closed_streams

__all__ = ["main"]

_VERBS = {
    "run": "Run a node: found a mesh, or join one with an invite token.",
    "join": "Become a member of a mesh without running the node.",
    "init": "Make this node's key and its mesh without running it.",
    "invite": "Make a token that lets others join.",
    "invites": "List the tokens this node issued, or revoke one.",
    "approve": "Let a node in that asks, after comparing six words.",
    "remove": "Remove a node from the mesh for good.",
    "leave": "Leave the mesh for good.",
    "drain": "Take no new stages on this node, before a restart or an update.",
    "status": "This node and its mesh in a few lines.",
    "peers": "Every node of the mesh: role, liveness, memory, RTT.",
    "capacity": "What this machine gives, device by device.",
    "models": "Models at hand here and in the mesh.",
    "plan": "Where a model's layers would go now, or what is short.",
    "split": "Wait for participants, then plan a model over them.",
    "top": "The mesh in this terminal, live.",
    "ui": "Open the live page of this node and its mesh.",
    "events": "What happened, and with --follow what happens.",
    "doctor": "Check this node and its paths for what goes wrong in practice.",
    "bundle": "Pack what helps to find a fault into a zip, without secrets.",
    "service": "Run the node as a service of this user.",
    "bench": "Measure this machine's memory bandwidth.",
    "demo": "Show the whole thing on this machine, then clean up.",
    "simulate": "Run a named membership scenario in virtual time.",
    "completion": "Print the shell completion script.",
    "version": "Versions of the program and its protocols.",
}


class _Verbs(click.Group):
    """Loads a verb's module when it is called; the list of verbs needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"meshnode.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            ctx.fail(_unknown_verb(args[0]))
        return super().resolve_command(ctx, args)

    # Both inside click too, which itself ends a broken pipe with 1, as if the verb were refused.
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with ending_plainly():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        with ending_plainly():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


def _unknown_verb(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, _VERBS, n=1)
    advice = f"did you mean `meshnode {near[0]}`?" if near else "`meshnode --help` lists the verbs"
    return f"there is no verb {word!r}; {advice}"


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from meshnode import __version__

    click.echo(f"meshnode {__version__}")
    ctx.exit()


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 refused, 2 bad usage, 3 the node does not run, 4 shortfall, 5 quorum not reached."
    " 130 and 141 are a shell's own for Ctrl-C and for output whose reader went away. `doctor` has its own: 0 all well,"
    " 1 a warning, 2 an error.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the program's version; `meshnode version` also tells the protocols'.")  # fmt: skip
@click.pass_context
def verbs(ctx: click.Context) -> None:
    """Turns a few uneven machines into one pool that holds a language model none of them can hold alone.

    \b
    Examples:
      meshnode demo                      see it work, on this machine alone
      meshnode run                       found a mesh (first machine)
      meshnode invite                    print a token for the next machine
      meshnode run --join -              join (next machine); asks for the token
      meshnode plan qwen3-32b-q4_k_m     where would its layers go?
    """
    if os.environ.get("NO_COLOR"):  # no-color.org: set and not empty; click itself knows only of terminals
        ctx.color = False


def main() -> None:
    """The console script `meshnode`."""
    open_closed_streams()
    _require_own_packages()
    with ending_plainly():
        verbs(prog_name="meshnode")


def _require_own_packages() -> None:
    """`proto` is a short name that another distribution (proto-plus) installs too: say so instead of failing oddly.

    Files are looked for, nothing is imported: most verbs need neither package.
    """
    if _has_module("proto", "ids.py") and _has_module("planner", "errors.py"):
        return
    click.echo(
        "error: another distribution's package stands where meshnode's `proto` or `planner` should be"
        " (proto-plus installs a `proto` too).\n"
        "  Install meshnode into an environment of its own: pipx install meshnode",
        err=True,
    )
    sys.exit(1)


def _has_module(package: str, file_name: str) -> bool:
    spec = find_spec(package)
    places = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    return any(os.path.isfile(os.path.join(place, file_name)) for place in places)
