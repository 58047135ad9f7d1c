"""A plan's devices as the engine reaches them, and the process that is started with them.

What lives here: `lead_to_devices`, `model_command`. What does not: the run (`meshnode.engine.runs.models`), the words
of a command line (`meshnode.engine.commands`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio.abc

from meshnode.engine.commands import WATCHED, cpu_needs_server, layer_counts, llama_server_command, model_orders
from meshnode.engine.confinement.program import confined_command
from meshnode.engine.devices import CPU, engine_device_names
from meshnode.engine.found import Engine
from meshnode.engine.runs.own_server import offer_own_cpu
from meshnode.engine.runs.run import Run
from meshnode.engine.serving.process import EngineDevice, ports_of
from meshnode.tunnel import Opening, Purpose, Tunnels, listen_for_owner
from planner.plan import SplitPlan
from proto.ids import NodeId

MODEL_MODULE: Final = "meshnode.engine.serving.process"


async def lead_to_devices(
    engine: Engine, run: Run, local: NodeId, tunnels: Tunnels, threads: int, listeners: anyio.abc.TaskGroup
) -> tuple[EngineDevice, ...]:
    """The plan's devices in stage order. A listener, run in `listeners`, leads to each worker's server; and to one on
    this node, where llama-server can't hold the CPU's layers itself."""
    own = iter(engine_device_names([stage.device for stage in run.plan.stages if stage.node == local]))
    names = [next(own) if stage.node == local else "" for stage in run.plan.stages]
    behind_server = engine.llama_server is not None and cpu_needs_server(names)

    def owner() -> int | None:
        return None if run.process is None else run.process.pid

    def own_server(pid: int | None) -> None:
        run.own_server_pid = pid

    endpoints: dict[str, str] = {}
    used: dict[str, int] = {}
    found = []
    for stage, name, layers in zip(run.plan.stages, names, layer_counts(run.plan), strict=True):
        if name and not (name == CPU and behind_server):
            found.append(EngineDevice(layers, name=name))
            continue
        if name:
            port = await listeners.start(offer_own_cpu, engine, threads, owner, own_server)
            found.append(EngineDevice(layers, endpoint=f"127.0.0.1:{port}"))
            continue
        if stage.node not in endpoints:
            opening = Opening(Purpose.ENGINE, run.model, run.fence, stage.stage)
            port = await listeners.start(listen_for_owner, tunnels, NodeId(stage.node), opening, owner)
            endpoints[stage.node] = f"127.0.0.1:{port}"
        index = used.get(stage.node, 0)
        used[stage.node] = index + 1
        found.append(EngineDevice(layers, endpoint=endpoints[stage.node], index=index))
    return tuple(found)


def model_command(
    engine: Engine,
    plan: SplitPlan,
    paths: Sequence[str],
    devices: Sequence[EngineDevice],
    *,
    socket: Path,
    threads: int,
) -> list[str]:
    """The command line of the model's process, which answers at `socket`."""
    if engine.llama_server is None:
        assert engine.libraries is not None, "one of the two is there"
        orders = model_orders(
            plan, paths[0], devices, socket=socket, libraries=engine.libraries, threads=threads,
            reach=engine.reach.also(reads=paths),
        )  # fmt: skip
        return [sys.executable, "-m", MODEL_MODULE, orders.to_argument()]
    program = str(engine.llama_server)
    words = llama_server_command(plan, program, paths[0], devices, host=str(socket), threads=threads)
    cards = any(device.name not in ("", CPU) for device in devices)
    reach = engine.reach.also(reads=paths, binds=[str(socket.parent)], cards=cards)
    return confined_command([*words, *WATCHED], reach, ports_of(devices))
