"""A plan for those who run engines themselves: llama.cpp's command lines node by node, vLLM's settings.

What lives here: `llama_cpp_lines` and `vllm_lines`, from the plan's JSON (`planner.plan`). What does not: printing
(`meshnode.cli.plan`), running (`meshnode.engine.runs.models`). Sources: llama.cpp's tools/rpc/README.md and
common/arg.cpp; vLLM's `VLLM_PP_LAYER_PARTITION` (vllm/envs.py: comma-separated layer counts of the pipeline's stages).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshnode.engine.commands import MAX_SERVER_DEVICES, cpu_needs_server, layer_counts, llama_server_command
from meshnode.engine.devices import CPU, engine_device_names, is_card
from meshnode.engine.serving.process import EngineDevice
from planner.constraints import Objective
from planner.plan import CoordinatorPlan, SplitPlan, StageBytes, StagePlan
from planner.workload import CacheType, KvMode, Workload

Json = dict[str, Any]
RPC_PORT: Final = 50_052
"""llama.cpp's own default."""
_OWN_CPU: Final = f"127.0.0.1:{RPC_PORT + 1}"
"""The coordinator's CPU, where llama-server can't hold its layers itself."""


class NotExportable(ValueError):
    """The engine can't do what the plan says: why, and what would be right."""


def plan_of(outcome: Json) -> SplitPlan:
    """The parts of a plan that engines are told, from its JSON."""
    given = outcome["workload"]
    workload = Workload(
        context=outcome["context"],
        lanes=given["lanes"],
        kv_mode=KvMode(given["kv_mode"]),
        k_type=CacheType(given["k_type"]),
        v_type=CacheType(given["v_type"]),
        micro_batch=given["micro_batch"],
        flash_attention=given["flash_attention"],
        swa_full=given["swa_full"],
    )
    return SplitPlan(
        model=outcome["model"],
        objective=Objective(outcome["objective"]),
        engine=outcome["engine"],
        workload=workload,
        context=outcome["context"],
        stages=tuple(_stage(stage) for stage in outcome["stages"]),
        hops=(),
        coordinator=CoordinatorPlan(**outcome["coordinator"]),
        value=outcome["value"],
        lower_bound=outcome["lower_bound"],
        unit=outcome["unit"],
        method=outcome["method"],
        capacity_only=outcome["capacity_only"],
    )


def _stage(stage: Json) -> StagePlan:
    sizes = {name: count for name, count in stage["bytes"].items() if name != "total"}
    fields = {name: stage[name] for name in ("stage", "node", "device", "layer_start", "layer_end", "seconds")}
    return StagePlan(bytes=StageBytes(**sizes), **fields)


def llama_cpp_lines(outcome: Json, file: str, names: Mapping[str, str], hosts: Mapping[str, str]) -> list[str]:
    """Command lines for each node: `rpc-server` on the workers, then `llama-server` on the coordinator. `names` are
    what people call the nodes, `hosts` where they answer; a node without one is written by its name. Raises
    `NotExportable`."""
    plan = plan_of(outcome)
    if plan.engine != "llama_cpp_rpc":
        raise NotExportable(f"the plan is for the engine profile {plan.engine}; plan with --engine llama_cpp_rpc")
    if len(plan.stages) > MAX_SERVER_DEVICES:
        stages = f"{len(plan.stages)} stages, and llama-server takes at most {MAX_SERVER_DEVICES} devices"
        raise NotExportable(f"{stages}; plan with --max-stages {MAX_SERVER_DEVICES}")
    coordinator = plan.coordinator.node
    own = _devices_on(plan, coordinator)
    devices = _engine_devices(plan, names, hosts)
    lines = [
        "# llama.cpp's RPC protocol has no authentication: let rpc-server listen on loopback or a private network,",
        "# and carry it to the coordinator through ssh -L or WireGuard. `meshnode run` does all of this by itself.",
        "# Newer builds of llama.cpp call rpc-server ggml-rpc-server. All nodes need the same build.",
    ]
    for node in (node for node in plan.nodes if node != coordinator):
        lines += ["", f"# on {_called(node, names)}", _worker_line(_devices_on(plan, node), hosts.get(node))]
    lines += ["", f"# on {_called(coordinator, names)}, which coordinates"]
    if _OWN_CPU in {device.endpoint for device in devices}:
        words = ["rpc-server", "--host", "127.0.0.1", "--port", str(RPC_PORT + 1), "--device", CPU]
        lines += ["# llama-server itself holds a model's first layers at most on the CPU", shlex.join(words)]
    words = llama_server_command(plan, "llama-server", file, devices, host="127.0.0.1")
    return [*lines, _environment(own) + shlex.join(words)]


def vllm_lines(outcome: Json, file: str, names: Mapping[str, str]) -> list[str]:
    """vLLM's pipeline-parallel settings. Raises `NotExportable`."""
    plan = plan_of(outcome)
    if plan.engine != "chain":
        raise NotExportable("vLLM passes activations from stage to stage; plan with --engine chain")
    if plan.workload.k_type.is_quantised or plan.workload.v_type.is_quantised:
        raise NotExportable("vLLM keeps no KV cache in llama.cpp's quantised types; plan with --kv-type f16")
    counts = ",".join(str(stage.layers) for stage in plan.stages)
    words = ["vllm", "serve", file, "--pipeline-parallel-size", str(len(plan.stages))]
    words += ["--max-model-len", str(plan.context), "--max-num-seqs", str(plan.workload.lanes)]
    placed = [
        f"#   rank {stage.stage}: {_called(stage.node, names)}, {_on_one_line(stage.device)}" for stage in plan.stages
    ]
    return ["# pipeline ranks, in the plan's order:", *placed, f"VLLM_PP_LAYER_PARTITION={counts} " + shlex.join(words)]


def _devices_on(plan: SplitPlan, node: str) -> list[str]:
    return [stage.device for stage in plan.stages if stage.node == node]


def _worker_line(devices: Sequence[str], host: str | None) -> str:
    words = ["rpc-server", "--host", host or "127.0.0.1", "--port", str(RPC_PORT)]
    words += ["--device", ",".join(engine_device_names(devices)), "--cache"]
    return _environment(devices) + shlex.join(words)


def _environment(devices: Sequence[str]) -> str:
    cards = [device for device in devices if is_card(device)]
    # A device's id is its node's own word too.
    return f"CUDA_VISIBLE_DEVICES={shlex.quote(','.join(cards))} " if cards else ""


def _engine_devices(plan: SplitPlan, names: Mapping[str, str], hosts: Mapping[str, str]) -> list[EngineDevice]:
    """The plan's in stage order, as llama-server is told them."""
    own = iter(engine_device_names(_devices_on(plan, plan.coordinator.node)))
    own_names = [next(own) if stage.node == plan.coordinator.node else "" for stage in plan.stages]
    behind_server = cpu_needs_server(own_names)
    used: dict[str, int] = {}
    found = []
    for stage, name, layers in zip(plan.stages, own_names, layer_counts(plan), strict=True):
        if name:
            is_behind = name == CPU and behind_server
            found.append(EngineDevice(layers, endpoint=_OWN_CPU) if is_behind else EngineDevice(layers, name=name))
            continue
        index = used.get(stage.node, 0)
        used[stage.node] = index + 1
        host = hosts.get(stage.node) or _on_one_line(names.get(stage.node, "")) or stage.node[:10]
        found.append(EngineDevice(layers, endpoint=f"{host}:{RPC_PORT}", index=index))
    return found


def _called(node: str, names: Mapping[str, str]) -> str:
    name = _on_one_line(names.get(node, ""))
    return f"{name} ({node[:10]})" if name else node


def _on_one_line(text: str) -> str:
    """A peer's own word, whose line breaks must not end the comment: these lines are pasted into shells."""
    return "".join(character if character.isprintable() else "?" for character in text)
