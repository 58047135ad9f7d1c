"""A worker's stage as processes: llama.cpp's RPC server, and the companion that leads the node to it.

    node ──starts──> companion ──forks──> RPC server on loopback (of its own network namespace, where there can be one)
      └──────socket pair──┘  hands over connected sockets (`meshnode.engine.stage.passage`)

What lives here: the companion's main function. What does not: the node's side (`meshnode.engine.stage.stages`). Both
give up their rights (`meshnode.engine.confinement.rights`) before engine code runs. The companion ends as its server
did: the node sees the server's own signal or exit code. When the node goes, so do both.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources, own_network
from meshnode.engine.devices import CPU
from meshnode.engine.native import Native, NativeMissing
from meshnode.engine.stage.hello import ask_version
from meshnode.engine.stage.passage import LOOPBACK, Companion, listens
from meshnode.engine.stillness import PATIENCE_S, Stillness, processor_ticks
from meshnode.engine.words import Speaker

START_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.02
_LOOK_ABOUT_S: Final = 0.1
_FAILED: Final = 70
"""Exit code of a server that could not even begin: sysexits.h, an internal error."""


@dataclass(frozen=True, slots=True)
class StageOrders:
    """What to run. Either `libraries` (the package's directory) or `rpc_server` (the user's own program) is given.
    `cache` is a directory with tensors by hash that the server may read, named `rpc`: the program takes the directory
    above it from `LLAMA_CACHE`. A server that hangs for `patience_s` is ended."""

    devices: tuple[str, ...]
    threads: int
    passage_fd: int
    libraries: str | None = None
    rpc_server: str | None = None
    cache: str | None = None
    private_network: bool = True
    patience_s: float = PATIENCE_S
    reach: Reach = field(default_factory=Reach)

    def to_argument(self) -> str:
        """The one word of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> StageOrders:
        """What `to_argument` made."""
        fields = json.loads(text)
        return cls(**{**fields, "devices": tuple(fields["devices"]), "reach": Reach.from_fields(fields["reach"])})

    @property
    def needed(self) -> Reach:
        """What the server and its companion use."""
        paths = [path for path in (self.libraries, self.cache) if path is not None]
        return self.reach.also(reads=paths, program=self.rpc_server, cards=any(name != CPU for name in self.devices))


def rpc_server_command(orders: StageOrders, port: int) -> list[str]:
    """The command line of the user's own `rpc-server`."""
    assert orders.rpc_server is not None, "asked only where there is one"
    return [
        orders.rpc_server, "--host", LOOPBACK, "--port", str(port), "--threads", str(orders.threads),
        "--device", ",".join(orders.devices), *(() if orders.cache is None else ("--cache",)),
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """The companion: returns the exit code, or ends by the signal that ended the server."""
    orders = StageOrders.from_argument(arguments[0])
    end_with_parent()
    speaker = Speaker()
    is_private = orders.private_network and own_network()
    limit_resources()
    drop_rights()
    port = _free_port()
    # Before the fork: a process may look at another only within the same bounds, and the companion looks.
    bounds = give_up_the_rest(orders.needed, listens=[port], connects=[port])
    server = os.fork()
    if server == 0:
        _serve(orders, port)
    passage = socket.socket(fileno=orders.passage_fd)
    ended = os.pidfd_open(server)
    if not _begins(server, ended, port):
        return _end_as(server)
    companion = Companion(passage, port)
    with companion.connect() as connected:
        version = ask_version(connected)
    speaker.say(
        ready=True, pid=server, rpc_version=str(version) if version else None,
        private_network=is_private, landlock=bounds.landlock, sockets=bounds.sockets,
    )  # fmt: skip
    _lead(companion, server, ended, orders.patience_s, look_for_strangers=not is_private)
    return _end_as(server)


def _serve(orders: StageOrders, port: int) -> None:
    """The forked server process: never returns."""
    try:
        end_with_parent()
        os.close(orders.passage_fd)
        if orders.rpc_server is not None:
            if orders.cache is not None:
                os.environ["LLAMA_CACHE"] = str(Path(orders.cache).parent)
            os.execv(orders.rpc_server, rpc_server_command(orders, port))
        assert orders.libraries is not None, "one of the two is given"
        cache = None if orders.cache is None else Path(orders.cache)
        native = Native(Path(orders.libraries))
        native.serve_rpc(f"{LOOPBACK}:{port}", cache, orders.threads, orders.devices)
    except (OSError, NativeMissing) as error:
        sys.stderr.write(f"meshnode: the RPC server can't start: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(_FAILED)


def _begins(server: int, ended: int, port: int) -> bool:
    """Waits until the server listens. False where it ended, or took too long and was ended."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if listens(server, port):
            return True
        if select.select([ended], [], [], _LOOK_AGAIN_S)[0]:
            return False
    os.kill(server, signal.SIGKILL)
    return False


def _lead(companion: Companion, server: int, ended: int, patience_s: float, look_for_strangers: bool) -> None:
    """Answers the node until it or the server is gone, the server hangs, or somebody else has come in."""
    passage = companion.end.fileno()
    still = Stillness(patience_s)
    pause_s = _LOOK_ABOUT_S if look_for_strangers else still.pause_s
    look_s = 0.0
    while True:
        readable, _, _ = select.select([passage, ended], [], [], pause_s)
        if ended in readable or (passage in readable and not companion.serve_one()):
            return
        if (now_s := time.monotonic()) >= look_s:
            look_s = now_s + still.pause_s
            if still.look(companion.unread_bytes(), processor_ticks(server), now_s):
                sys.stderr.write(f"meshnode: ended: it hangs: asked, and idle for {patience_s:g} s\n")
                return
        if look_for_strangers and (ports := companion.strangers()):
            sys.stderr.write(f"meshnode: ended: another process of this machine has connected (from port {ports[0]})\n")
            return


def _end_as(server: int) -> int:
    """Sees the server's end through and ends the same way."""
    if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        os.kill(server, signal.SIGKILL)
    _, status = os.waitpid(server, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    return code


def _free_port() -> int:
    """A port nobody listens on now; that the server itself got it is checked before anybody is led there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
