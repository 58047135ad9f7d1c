"""The plan as the engine's command lines."""

from __future__ import annotations

import pytest
from planning_makers import a_plan

from meshnode.engine.commands import cpu_needs_server, layer_counts, llama_server_command, trial_command
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import engine_device_names, engine_environment
from meshnode.engine.serving.process import EngineDevice, ModelOrders
from meshnode.engine.stage.process import StageOrders, rpc_server_command
from planner.workload import CacheType, KvMode, Workload

A, B = "127.0.0.1:50052", "127.0.0.1:50053"


def value_after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_head_counts_as_one_more_layer_on_the_last_device() -> None:
    assert layer_counts(a_plan((7, 11))) == (7, 12)


def test_llama_server_gets_the_plans_devices_and_counts() -> None:
    devices = (EngineDevice(7, endpoint=A), EngineDevice(4, name="CUDA0"), EngineDevice(8, endpoint=B))
    words = llama_server_command(a_plan((7, 4, 7)), "llama-server", "m.gguf", devices, host="/run/m.sock", threads=4)
    assert value_after(words, "--rpc") == f"{A},{B}"
    assert value_after(words, "--device") == "RPC0,CUDA0,RPC1"
    assert value_after(words, "--tensor-split") == "7,4,8"
    assert value_after(words, "--n-gpu-layers") == "999"
    assert value_after(words, "--ctx-size") == "2048"
    assert value_after(words, "--flash-attn") == "on"
    assert value_after(words, "--host") == "/run/m.sock"


def test_lanes_multiply_the_context_unless_they_share_one_pool() -> None:
    devices = (EngineDevice(5, endpoint=A),)
    split = a_plan((4,), workload=Workload(context=2048, lanes=4))
    words = llama_server_command(split, "llama-server", "m.gguf", devices, host="127.0.0.1")
    assert (value_after(words, "--ctx-size"), value_after(words, "--parallel")) == ("8192", "4")
    assert "--no-kv-unified" in words
    shared = a_plan((4,), workload=Workload(context=2048, lanes=4, kv_mode=KvMode.UNIFIED, k_type=CacheType.Q8_0))
    words = llama_server_command(shared, "llama-server", "m.gguf", devices, host="127.0.0.1")
    assert value_after(words, "--ctx-size") == "2048"
    assert "--kv-unified" in words
    assert value_after(words, "--cache-type-k") == "q8_0"


def test_cpu_can_have_the_first_layers_of_llama_server_and_no_others() -> None:
    first = (EngineDevice(7, name="CPU"), EngineDevice(12, endpoint=A))
    words = llama_server_command(a_plan((7, 11)), "llama-server", "m.gguf", first, host="127.0.0.1")
    assert (value_after(words, "--device"), value_after(words, "--n-gpu-layers")) == ("RPC0", "12")
    alone = llama_server_command(a_plan((18,)), "llama-server", "m.gguf", (EngineDevice(19, name="CPU"),), host="h")
    assert (value_after(alone, "--device"), value_after(alone, "--n-gpu-layers")) == ("none", "0")
    last = (EngineDevice(7, endpoint=A), EngineDevice(12, name="CPU"))
    with pytest.raises(ValueError, match="only a model's first layers"):
        llama_server_command(a_plan((7, 11)), "llama-server", "m.gguf", last, host="127.0.0.1")


def test_rpc_server_listens_on_loopback_and_caches_only_where_it_is_told_to() -> None:
    orders = StageOrders(("CUDA0", "CPU"), threads=3, passage_fd=5, rpc_server="/opt/rpc-server")
    words = rpc_server_command(orders, 50052)
    assert words[0] == "/opt/rpc-server"
    assert (value_after(words, "--host"), value_after(words, "--port")) == ("127.0.0.1", "50052")
    assert value_after(words, "--device") == "CUDA0,CPU"
    assert "--cache" not in words


REACH = Reach(hidden=("/state",), reads=("/m.gguf",), program="/opt/rpc-server", cards=True)


def test_orders_survive_the_command_line() -> None:
    stage = StageOrders(("CPU",), 1, 7, libraries="/x", cache="/y/rpc", private_network=False, reach=REACH)
    assert StageOrders.from_argument(stage.to_argument()) == stage
    model = ModelOrders(
        "m", "m.gguf", "/s.sock", "/lib", (EngineDevice(3, endpoint=A, index=1),), 2048, 1, False, 512, True, False,
        "f16", "q8_0", 2, REACH,
    )  # fmt: skip
    assert ModelOrders.from_argument(model.to_argument()) == model


def test_process_sees_the_stages_cards_in_the_stages_order_and_none_of_the_nodes_secrets() -> None:
    devices = ["GPU-b", "cpu", "GPU-a"]
    assert engine_device_names(devices) == ("CUDA0", "CPU", "CUDA1")
    theirs = {"MESHNODE_API_KEY": "secret", "MESHNODE_JOIN": "x", "LLAMA_ARG_CTX_SIZE": "64", "AIP_MODE": "PREDICTION"}
    environment = engine_environment(devices, {"PATH": "/bin", **theirs})
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-a"
    assert "PATH" in environment
    assert theirs.keys().isdisjoint(environment)
    assert engine_environment(["cpu"], {})["CUDA_VISIBLE_DEVICES"] == ""


def test_what_a_plan_has_no_bytes_for_is_off() -> None:
    words = llama_server_command(a_plan((18,)), "llama-server", "m.gguf", (EngineDevice(19, endpoint=A),), host="h")
    assert "--no-repack" in words
    assert (value_after(words, "--cache-ram"), value_after(words, "--ctx-checkpoints")) == ("0", "0")
    assert trial_command("llama-server")[-1] == "--version"
    assert set(words) - set(trial_command("llama-server")) >= {"--rpc", "--tensor-split"}


def test_cpu_after_others_needs_a_server_of_its_own() -> None:
    assert cpu_needs_server(["", "CPU"])
    assert cpu_needs_server(["CUDA0", "CPU"])
    assert not cpu_needs_server(["CPU", "", "CUDA0"])
