"""Which engine this machine has: the operator's own llama.cpp, else the package `llama-cpp-python`.

What lives here: `find_engine`, `Engine` and the one error about it. What does not: running it. Asked once, at the start
of the node; the engine is tried out then, so that one that can't work is told before anybody plans with it.

An engine of both parts is one build: `rpc-server` (newer llama.cpp builds it as `ggml-rpc-server`) for stages and
`llama-server` for models, both named in the config or both on PATH; or the package, which has both in its libraries.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import anyio

from meshnode.child import child_environment
from meshnode.config import NodeConfig
from meshnode.engine.commands import trial_command
from meshnode.engine.confinement.program import confined_command
from meshnode.engine.confinement.reach import Confinement, Reach
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.native import DISTRIBUTION, RPC_LIBRARY, library_directory, package_version
from meshnode.engine.process import Ending, Word, running
from meshnode.engine.stage.process import StageOrders
from proto.engines import RpcVersion, engine_word

STAGE_MODULE: Final = "meshnode.engine.stage.process"
RPC_SERVERS: Final = ("rpc-server", "ggml-rpc-server")
LLAMA_SERVERS: Final = ("llama-server",)
TRY_S: Final = 60.0
INSTALL: Final = (
    "install llama.cpp (its programs rpc-server and llama-server on PATH, or named by rpc_server and llama_server in"
    " the config), or `CMAKE_ARGS=-DGGML_RPC=ON pip install 'meshnode[llamacpp]'`"
)

NEWER: Final = "use a newer llama.cpp"
_VERSION: Final = re.compile(r"^version: (\S{1,20})")
"""`version: 6543 (0123abcd)`, of late `version: 0.5.0 (build 6543, commit 0123abcd)`."""
_LOOK: Final = (
    "start it by hand to see whether it works; where it misses a library that is there, name its folder in"
    " engine_folders: engine processes read only where most machines have such things"
)


class EngineKind(StrEnum):
    """Whose build it is."""

    PROGRAMS = "programs"
    PACKAGE = "package"


class NoEngine(Exception):
    """This machine has no engine that works: why, and what to do."""

    def __init__(self, reason: str, advice: str = INSTALL) -> None:
        self.reason = reason
        self.advice = advice
        super().__init__(f"{reason}; {advice}")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that was tried out. `version` is what its maker calls it; `libraries` is the package's directory, the
    two programs are the operator's. `reach` is what all its processes may use, `confinement` how far that holds."""

    kind: EngineKind
    version: str
    rpc_version: RpcVersion
    private_network: bool
    libraries: Path | None = None
    rpc_server: Path | None = None
    llama_server: Path | None = None
    reach: Reach = field(default_factory=Reach)
    confinement: Confinement = field(default_factory=Confinement)

    @property
    def word(self) -> str:
        """What the mesh is told."""
        return engine_word(self.version, self.rpc_version)


def reach_of(config: NodeConfig) -> Reach:
    """What engine processes of a node may use beside what each needs: nothing of its state."""
    return Reach(hidden=(str(config.state_dir),), folders=tuple(map(str, config.engine_folders)))


async def find_engine(rpc_server: Path | None, llama_server: Path | None, reach: Reach | None = None) -> Engine:
    """The engine of this machine, tried out; the programs are the config's. Raises `NoEngine`."""
    reach = reach or Reach()
    orders, version = _look(rpc_server, llama_server)
    orders = replace(orders, reach=reach)
    word = await _try_out(orders)
    spoken = RpcVersion.parse(str(word.get("rpc_version")))
    if spoken is None:
        raise NoEngine(f"{version}: its RPC server does not tell its version", NEWER)
    is_package = orders.libraries is not None
    server = None if is_package else _program("llama_server", llama_server, LLAMA_SERVERS)
    if server is not None:
        version = await _try_server(server, reach)
    return Engine(
        kind=EngineKind.PACKAGE if is_package else EngineKind.PROGRAMS,
        version=version,
        rpc_version=spoken,
        private_network=word.get("private_network") is True,
        libraries=Path(orders.libraries) if orders.libraries is not None else None,
        rpc_server=Path(orders.rpc_server) if orders.rpc_server is not None else None,
        llama_server=server,
        reach=reach,
        confinement=_confinement(word),
    )


def stage_command(orders: StageOrders) -> list[str]:
    """The command line of a stage's companion."""
    return [sys.executable, "-m", STAGE_MODULE, orders.to_argument()]


def _look(rpc_server: Path | None, llama_server: Path | None) -> tuple[StageOrders, str]:
    """What there is, as orders for a trial without a passage, and what to call it."""
    trial = StageOrders(devices=(CPU,), threads=1, passage_fd=-1)
    own = _program("rpc_server", rpc_server, RPC_SERVERS)
    served = _program("llama_server", llama_server, LLAMA_SERVERS)
    if own is not None and served is not None:
        return replace(trial, rpc_server=str(own)), "llama.cpp"
    half = _half(own, served)
    if rpc_server is not None or llama_server is not None:
        raise NoEngine(half, "name both")
    directory = library_directory()
    if directory is None:
        raise NoEngine(half or "no llama.cpp was found")
    if not (directory / RPC_LIBRARY).exists():
        raise NoEngine(f"{DISTRIBUTION} {package_version()} was built without RPC (no {RPC_LIBRARY})")
    return replace(trial, libraries=str(directory)), f"{DISTRIBUTION} {package_version()}"


def _confinement(word: dict[str, object]) -> Confinement:
    version = word.get("landlock")
    return Confinement(version if isinstance(version, int) else 0, word.get("sockets") is True)


def _half(rpc_server: Path | None, llama_server: Path | None) -> str:
    """That there is one program of the two; nothing where there is none."""
    if llama_server is not None:
        missing = " or ".join(RPC_SERVERS)
        return f"there is {llama_server}, but {missing} is not on PATH, and rpc_server is not configured"
    if rpc_server is not None:
        return f"there is {rpc_server}, but {LLAMA_SERVERS[0]} is not on PATH, and llama_server is not configured"
    return ""


def _program(key: str, configured: Path | None, names: Sequence[str]) -> Path | None:
    """The program of the config, which must be one, else the first on PATH."""
    if configured is None:
        found = next(filter(None, map(shutil.which, names)), None)
        return None if found is None else Path(found)
    if shutil.which(str(configured)) is None:
        raise NoEngine(f"{key} {configured} is no program that can be run", f"name {names[0]} of a llama.cpp build")
    return configured


async def _try_server(program: Path, reach: Reach) -> str:
    """Lets `llama-server` read all options it will get, and asks its version: what to call the engine. Raises
    `NoEngine`."""
    command = confined_command(trial_command(str(program)), reach)
    ending: Ending | None = None
    async with running(command, child_environment(engine_environment(()))) as process:
        with anyio.move_on_after(TRY_S):
            ending = await process.wait()
    if ending is None:
        raise NoEngine(f"{program} did not tell its version within {TRY_S:g} s", _LOOK)
    version = next(filter(None, map(_VERSION.search, process.log)), None)
    if ending.exit_code != 0 or version is None:
        raise NoEngine(f"{program} does not take the options that llama-server should: {ending}", NEWER)
    return f"llama.cpp {version[1]}"


async def _try_out(orders: StageOrders) -> dict[str, object]:
    """Starts an RPC server on the CPU and hears what it is. Raises `NoEngine`."""
    server = orders.rpc_server or "its RPC server"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        orders = replace(orders, passage_fd=theirs.fileno())
        environment = child_environment(engine_environment(()))
        word: Word | None = None
        ending: Ending | None = None
        async with running(stage_command(orders), environment, pass_fds=[theirs.fileno()]) as process:
            with anyio.move_on_after(TRY_S):
                try:
                    word = await process.words.receive()
                except anyio.EndOfStream:
                    ending = await process.wait()
        if word is not None:
            return word
        if ending is not None:
            raise NoEngine(f"{server} ended: {ending}", _LOOK)
        raise NoEngine(f"{server} did not start within {TRY_S:g} s")
