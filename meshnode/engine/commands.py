"""The plan as command lines: what the model's process is started with, and what people type who run engines themselves.

What lives here: `model_orders` and `llama_server_command`. What does not: starting anything. Sources: llama.cpp's
common/arg.cpp (options), tools/server/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import CPU
from meshnode.engine.runs.checking import engine_names
from meshnode.engine.serving.process import EngineDevice, ModelOrders
from planner.plan import SplitPlan
from planner.workload import KvMode, Workload

ALL_LAYERS = 999
"""More layers than any model has: everything lies on the devices named, as the plan says."""
MAX_DEVICES = 16
"""llama.cpp holds at most this many devices and RPC servers (`GGML_RPC_MAX_SERVERS`, `llama_max_devices`)."""
MAX_SERVER_DEVICES = MAX_DEVICES - 1
"""llama-server's `--tensor-split` takes one less (common/arg.cpp)."""

WATCHED: Final = ("--verbosity", "5", "--log-prefix", "--metrics", "--offline", "--no-webui")
"""What a node adds for itself: which layer lies where is told on the level of debugging only; each line of the log
begins with its level, so that a node can leave out what requests say; tokens are counted."""


class Served(Protocol):
    """What is served, as a plan says it. `context` is tokens per lane."""

    @property
    def model(self) -> str: ...

    @property
    def context(self) -> int: ...

    @property
    def workload(self) -> Workload: ...


@dataclass(frozen=True, slots=True)
class _Trial:
    """Something to serve that is never served."""

    model: str
    context: int
    workload: Workload


def layer_counts(plan: SplitPlan) -> tuple[int, ...]:
    """Layers by stage; the output head counts as one more on the last, as llama.cpp's `--tensor-split` has it."""
    counts = [stage.layers for stage in plan.stages]
    return (*counts[:-1], counts[-1] + 1)


def model_orders(
    plan: SplitPlan,
    path: str,
    devices: Sequence[EngineDevice],
    *,
    socket: Path,
    libraries: Path,
    threads: int,
    reach: Reach,
) -> ModelOrders:
    """What the package's model process is to do. `devices` are the plan's in stage order."""
    workload = plan.workload
    return ModelOrders(
        model=plan.model,
        path=path,
        socket=str(socket),
        libraries=str(libraries),
        devices=tuple(devices),
        context=plan.context,
        lanes=workload.lanes,
        kv_unified=workload.kv_mode is KvMode.UNIFIED,
        micro_batch=workload.micro_batch,
        flash_attention=workload.flash_attention,
        swa_full=workload.swa_full,
        k_type=workload.k_type.value,
        v_type=workload.v_type.value,
        threads=threads,
        reach=reach,
    )


def llama_server_command(
    served: Served, program: str, path: str, devices: Sequence[EngineDevice], *, host: str, threads: int | None = None
) -> list[str]:
    """The command line of `llama-server`. `host` is an address or the path of a Unix socket that ends in `.sock`.

    What the plan has no bytes for is off: weights repacked for this CPU (a second copy), prompts kept aside in RAM (8
    GiB unless told otherwise), checkpoints of sliding windows.

    Raises `ValueError` where this machine's CPU holds other layers than the first: llama-server takes no CPU among its
    devices, it only leaves there what is not put on one. `cpu_needs_server` tells beforehand.
    """
    workload = served.workload
    servers = list(dict.fromkeys(device.endpoint for device in devices if device.endpoint))
    unified = workload.kv_mode is KvMode.UNIFIED
    context = served.context if unified else served.context * workload.lanes
    on_cpu, devices = _cpu_first(devices)
    words = [program, "--model", path, "--alias", served.model, "--host", host]
    if servers:
        words += ["--rpc", ",".join(servers)]
    words += ["--device", ",".join(engine_names(devices)) or "none", "--split-mode", "layer"]
    if devices:
        words += ["--tensor-split", ",".join(str(device.layers) for device in devices)]
    words += ["--n-gpu-layers", str(sum(device.layers for device in devices) if on_cpu else ALL_LAYERS)]
    words += ["--ctx-size", str(context), "--parallel", str(workload.lanes)]
    words += ["--kv-unified" if unified else "--no-kv-unified", "--fit", "off"]
    words += ["--batch-size", str(workload.micro_batch), "--ubatch-size", str(workload.micro_batch)]
    words += ["--flash-attn", "on" if workload.flash_attention else "off"]
    words += ["--cache-type-k", workload.k_type.value, "--cache-type-v", workload.v_type.value]
    words += ["--no-repack", "--cache-ram", "0", "--ctx-checkpoints", "0"]
    if workload.swa_full:
        words.append("--swa-full")
    if threads is not None:
        words += ["--threads", str(threads)]
    return words


def trial_command(program: str) -> list[str]:
    """The command line on which `llama-server` reads all these options, tells its version and ends."""
    trial = _Trial("trial", 256, Workload(context=256, swa_full=True))
    words = llama_server_command(trial, program, "trial.gguf", (), host="trial.sock", threads=1)
    return [*words, *WATCHED, "--version"]


def cpu_needs_server(names: Sequence[str]) -> bool:
    """Whether this machine's CPU must be offered by an RPC server of its own: `names` are the engine's of the plan's
    devices in stage order, those of other machines are empty."""
    return CPU in names[1:]


def _cpu_first(devices: Sequence[EngineDevice]) -> tuple[bool, tuple[EngineDevice, ...]]:
    """Whether the CPU has the first layers, and the devices without it."""
    others = tuple(device for device in devices if device.name != CPU)
    on_cpu = len(others) < len(devices)
    if on_cpu and cpu_needs_server([device.name for device in devices]):
        raise ValueError("llama-server can hold only a model's first layers on this machine's CPU")
    return on_cpu, others
