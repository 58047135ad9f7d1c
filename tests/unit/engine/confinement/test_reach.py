"""What an engine process gets at: tried from within, by a program in the engine's place."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from meshnode.child import child_environment
from meshnode.engine.confinement import landlock
from meshnode.engine.confinement.landlock import Access
from meshnode.engine.confinement.program import confined_command
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.found import stage_command
from meshnode.engine.process import running
from meshnode.engine.stage.process import StageOrders

bounded = pytest.mark.skipif(landlock.abi() < 6, reason="this kernel bounds neither files nor signals (Landlock)")

HOSTILE = """#!{python}
import os, socket, sys

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"

def connect(port):
    with socket.socket() as any_socket:
        any_socket.connect(("127.0.0.1", port))

def control():
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.connect({control!r})

found = {{
    "read the key": outcome(lambda: open({key!r}).read()),
    "list the state": outcome(lambda: os.listdir({state!r})),
    "change the state": outcome(lambda: open({state!r} + "/new", "w").close()),
    "write beside it": outcome(lambda: open({beside!r} + "/new", "w").close()),
    "replace its libraries": outcome(lambda: open({library!r}, "a").close()),
    "read its libraries": outcome(lambda: open({library!r}).close()),
    "connect out": outcome(lambda: connect({port})),
    "use UDP": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()),
    "reach the control socket": outcome(control),
    "look into the node": outcome(lambda: open("/proc/{node}/mem", "rb").close()),
    "read its environment": outcome(lambda: open("/proc/{node}/environ", "rb").close()),
    "open its files": outcome(lambda: os.readlink("/proc/{node}/fd/0")),
    "signal it": outcome(lambda: os.kill({node}, 0)),
}}
for attempt in found.items():
    print("tried: %s: %s" % attempt, file=sys.stderr, flush=True)
"""
SERVE = """
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
while True:
    server.accept()[0].close()
"""
REFUSED = {
    "read the key", "list the state", "change the state", "write beside it", "replace its libraries", "connect out",
    "use UDP", "reach the control socket", "look into the node", "read its environment", "open its files", "signal it",
}  # fmt: skip


@contextmanager
def a_machine(tmp_path: Path, then: str = "") -> Iterator[tuple[Path, Reach]]:
    """A node's state with its key, its control socket, a port of somebody else's, and a program that tries for them."""
    state, tools = tmp_path / "state", tmp_path / "tools"
    for folder in (state, tools):
        folder.mkdir()
    (state / "key").write_text("secret", encoding="ascii")
    (library := tools / "libown.so").touch()
    with socket.socket(socket.AF_UNIX) as control, socket.create_server(("127.0.0.1", 0)) as other:
        control.bind(str(tmp_path / "s"))
        control.listen()
        text = HOSTILE.format(
            python=sys.executable, control=str(tmp_path / "s"), key=str(state / "key"), state=str(state),
            beside=str(tmp_path), library=str(library), port=other.getsockname()[1], node=os.getpid(),
        )  # fmt: skip
        program = tools / "rpc-server"
        program.write_text(text + then, encoding="utf-8")
        program.chmod(0o700)
        yield program, Reach(hidden=(str(state),))


def tried(log: tuple[str, ...]) -> dict[str, str]:
    """What became of each attempt."""
    lines = (line.split(": ") for line in log if line.startswith("tried: "))
    return {attempt: outcome for _, attempt, outcome in lines}


@bounded
@pytest.mark.parametrize("private_network", [True, False])
async def test_code_in_a_stages_server_gets_at_nothing_of_the_node(tmp_path: Path, private_network: bool) -> None:
    ours, theirs = socket.socketpair()
    with a_machine(tmp_path, SERVE) as (program, reach), ours, theirs:
        orders = StageOrders(
            (CPU,), 1, theirs.fileno(), rpc_server=str(program), private_network=private_network, reach=reach
        )
        environment = child_environment(engine_environment(()))
        async with running(stage_command(orders), environment, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            with anyio.fail_after(60):
                word = await process.words.receive()
            process.kill()
            await process.wait()
    assert (word["landlock"], word["sockets"]) == (landlock.abi(), True)
    found = tried(process.log)
    assert {what for what, outcome in found.items() if outcome != "done"} == REFUSED
    assert {"PermissionError"} >= {found[what] for what in REFUSED - {"connect out"}}


@bounded
async def test_a_models_program_gets_at_no_more_but_a_socket_for_its_node(tmp_path: Path) -> None:
    with a_machine(tmp_path, f"socket.socket(socket.AF_UNIX).bind({str(tmp_path / 'sockets' / 'm')!r})") as (
        program,
        reach,
    ):
        (tmp_path / "sockets").mkdir()
        command = confined_command([str(program)], reach.also(binds=[str(tmp_path / "sockets")]))
        async with running(command, child_environment()) as process:
            with anyio.fail_after(60):
                ending = await process.wait()
    assert ending.exit_code == 0, process.log
    # A kernel before ABI 9 lets whoever may have such a socket connect to all of this user's.
    may_connect = set() if landlock.abi() >= 9 else {"reach the control socket"}
    assert {what for what, outcome in tried(process.log).items() if outcome != "done"} == REFUSED - may_connect


def test_what_contains_the_state_gives_way_to_all_else_in_it(tmp_path: Path) -> None:
    for name in ("a/state/inner", "a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
    root = os.path.realpath(tmp_path)
    rules = Reach(hidden=(f"{root}/a/state",), folders=("/",)).rules()
    assert {f"{root}/a/b", f"{root}/c"} <= rules.keys()
    assert {"/", root, f"{root}/a", f"{root}/a/state", f"{root}/a/state/inner"}.isdisjoint(rules)


def test_a_path_that_is_named_itself_holds_in_the_state_too(tmp_path: Path) -> None:
    cache = tmp_path / "state" / "weights"
    cache.mkdir(parents=True)
    rules = Reach(hidden=(str(tmp_path / "state"),), writes=(str(cache),)).rules()
    assert rules[os.path.realpath(cache)] & Access.WRITE_FILE
    assert os.path.realpath(tmp_path / "state") not in rules


def test_of_a_program_in_a_home_the_libraries_beside_it_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("rpc-server", "libggml.so.1", "diary"):
        (tmp_path / name).touch()
    home = os.path.realpath(tmp_path)
    rules = Reach(program=str(tmp_path / "rpc-server")).rules()
    assert {f"{home}/rpc-server", f"{home}/libggml.so.1"} <= rules.keys()
    assert {home, f"{home}/diary"}.isdisjoint(rules)


def test_only_a_stage_on_cards_gets_at_shared_memory() -> None:
    shared = os.path.realpath("/dev/shm")
    assert shared not in Reach().rules()
    assert shared in Reach(cards=True).rules()
