"""Plans for those who run engines themselves."""

from __future__ import annotations

import shlex

import pytest
from planning_makers import a_plan

from meshnode.engine.export import NotExportable, llama_cpp_lines, plan_of, vllm_lines
from planner.workload import CacheType, Workload

NAMES = {"node0": "attic", "node1": "study", "node2": "loft"}
HOSTS = {"node1": "192.168.1.5", "node2": "192.168.1.6"}


def test_plan_comes_back_from_its_json() -> None:
    plan = a_plan((7, 11))
    again = plan_of(plan.to_dict())
    assert (again.stages, again.context, again.coordinator) == (plan.stages, plan.context, plan.coordinator)


def test_llama_cpp_gets_a_line_for_each_node_with_the_plans_counts() -> None:
    plan = a_plan((4, 7, 7), devices=["GPU-1", "cpu", "GPU-2"])
    lines = llama_cpp_lines(plan.to_dict(), "tiny.gguf", NAMES, HOSTS)
    study = lines[lines.index("# on study (node1)") + 1]
    loft = lines[lines.index("# on loft (node2)") + 1]
    assert study == "rpc-server --host 192.168.1.5 --port 50052 --device CPU --cache"
    assert loft == "CUDA_VISIBLE_DEVICES=GPU-2 rpc-server --host 192.168.1.6 --port 50052 --device CUDA0 --cache"
    words = shlex.split(lines[-1])
    assert words[:2] == ["CUDA_VISIBLE_DEVICES=GPU-1", "llama-server"]
    assert words[words.index("--rpc") + 1] == "192.168.1.5:50052,192.168.1.6:50052"
    assert words[words.index("--device") + 1] == "CUDA0,RPC0,RPC1"
    assert words[words.index("--tensor-split") + 1] == "4,7,8"
    assert "no authentication" in lines[0]


def test_coordinators_cpu_after_other_stages_gets_a_server_of_its_own() -> None:
    outcome = a_plan((7, 11), nodes=["node1", "node0"], devices=["cpu", "cpu"]).to_dict()
    outcome["coordinator"]["node"] = "node0"
    server, model = llama_cpp_lines(outcome, "tiny.gguf", NAMES, HOSTS)[-2:]
    assert server == "rpc-server --host 127.0.0.1 --port 50053 --device CPU"
    words = shlex.split(model)
    assert words[words.index("--rpc") + 1] == "192.168.1.5:50052,127.0.0.1:50053"
    assert words[words.index("--device") + 1] == "RPC0,RPC1"
    assert words[words.index("--tensor-split") + 1] == "7,12"


def test_plan_that_an_engine_cannot_run_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(NotExportable, match="--max-stages 15"):
        llama_cpp_lines(a_plan((1,) * 16).to_dict(), "tiny.gguf", NAMES, HOSTS)
    with pytest.raises(NotExportable, match="--engine chain"):
        vllm_lines(a_plan((7, 11)).to_dict(), "tiny", NAMES)


def test_vllm_gets_its_partition() -> None:
    outcome = a_plan((30, 32)).to_dict() | {"engine": "chain"}
    lines = vllm_lines(outcome, "org/model", NAMES)
    assert lines[-1] == (
        "VLLM_PP_LAYER_PARTITION=30,32 vllm serve org/model --pipeline-parallel-size 2 --max-model-len 2048"
        " --max-num-seqs 1"
    )
    assert "#   rank 1: study (node1), cpu" in lines


def test_vllm_is_not_told_of_a_cache_it_cannot_keep() -> None:
    workload = Workload(context=2048, k_type=CacheType.Q8_0, v_type=CacheType.Q8_0)
    outcome = a_plan((30, 32), workload=workload).to_dict() | {"engine": "chain"}
    with pytest.raises(NotExportable, match="--kv-type f16"):
        vllm_lines(outcome, "org/model", NAMES)


def test_what_peers_say_of_themselves_stays_a_word_or_a_comment() -> None:
    names = {"node0": "attic", "node1": "study\nrm -rf ~"}
    plan = a_plan((7, 11), devices=["cpu", "GPU-1;rm -rf ~"]).to_dict()
    lines = llama_cpp_lines(plan, "tiny.gguf", names, {})
    lines += vllm_lines(a_plan((7, 11)).to_dict() | {"engine": "chain"}, "tiny", names)
    commands = [line for line in "\n".join(lines).splitlines() if line and not line.startswith("#")]
    for command in commands:
        tokens = shlex.shlex(command, posix=True, punctuation_chars=True)
        tokens.whitespace_split = True
        assert ";" not in list(tokens)
    programs = [next(word for word in shlex.split(command) if "=" not in word) for command in commands]
    assert programs == ["rpc-server", "llama-server", "vllm"]
