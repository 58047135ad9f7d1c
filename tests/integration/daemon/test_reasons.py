"""Reason codes as real nodes bring them about: each is seen in what a coordinator answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from making_nodes import Nodes, RunningNode

PROFILE = "llama-3.1-8b-4bit"
QUICK = ("--dwell-s", "0.2", "--first-quorum-window-s", "0.2", "--pending-s", "0.3", "--deadline-s", "3")


def known_offer(seer: RunningNode, node: str, fits: Callable[[dict[str, Any]], bool] = bool) -> None:
    """Until `seer` knows an offer of `node` that fits."""
    seen = 0
    while True:
        peer = seer.peer(node)
        if peer is not None and peer["offer"] is not None and fits(peer["offer"]):
            return
        seer.wait_event("peer.updated", after=seen)
        seen += 1


def reasons(answer: dict[str, Any]) -> dict[str, str]:
    """Why each node is out, by node."""
    return {out["node"]: out["reason"] for out in answer["excluded"]}


def a_coordinator(nodes: Nodes, *options: str) -> RunningNode:
    """A node too small for the model, so that every answer is a shortfall that says who is left out."""
    return nodes.start("desk", *QUICK, "--declare-usable", "10MB", "--log-level", "debug", *options)


def test_operators_of_workers_keep_them_out_of_a_plan(nodes: Nodes) -> None:
    desk = a_coordinator(nodes, "--min-capacity", "1GB")
    token = desk.invite("--uses", "9")
    wanted = {
        "never": (("--willing", "never"), "missing_model_interest"),
        "picky": (("--interested-in", "another-model"), "missing_model_interest"),
        "small": (("--declare-usable", "2MB"), "below_min_capacity"),
        "sofa": (("--client",), "client"),
        "tired": ((), "draining"),
        "gone": ((), "not_alive"),
    }
    workers = {name: nodes.start(name, *options, token=token, wait=False) for name, (options, _) in wanted.items()}
    nodes.all_know_all([desk, *workers.values()])
    assert workers["tired"].json("drain")["draining"] is True
    assert "draining: takes no new stages" in workers["tired"].verb("status")
    for worker in workers.values():
        known_offer(desk, worker.node)
    known_offer(desk, workers["tired"].node, lambda offer: bool(offer["draining"]))
    assert workers["gone"].stop() == 0
    desk.wait_event("peer.left")
    report = desk.json("plan", PROFILE, code=4)
    expected = {workers[name].node: reason for name, (_, reason) in wanted.items()}
    assert reasons(report) == expected | {desk.node: "below_min_capacity"}
    workers["tired"].verb("drain", "--cancel")
    known_offer(desk, workers["tired"].node, lambda offer: not offer["draining"])
    stages = desk.json("plan", PROFILE, "--context", "512")["stages"]
    assert [stage["node"] for stage in stages] == [workers["tired"].node]


def test_coordinators_own_config_leaves_nodes_out(nodes: Nodes) -> None:
    desk = a_coordinator(nodes)
    token = desk.invite("--uses", "2")
    far, banned = (nodes.start(name, token=token) for name in ("far", "banned"))
    nodes.all_know_all([desk, far, banned])
    assert desk.stop() == 0
    desk = nodes.start("desk", *QUICK, "--declare-usable", "10MB", "--exclude", banned.node[:10],
                       "--max-stage-rtt-ms", "0.000001")  # fmt: skip
    nodes.all_know_all([desk, far, banned])
    desk.wait_event("rtt.changed", lambda event: event["peer"] == far.node)
    # Long enough for a corroborated RTT: two samples, 5 s apart.
    found = reasons(desk.json("split", PROFILE, "--deadline", "9", code=5))
    assert found == {banned.node: "operator_excluded", far.node: "stage_path_too_slow"}


def house_model(directory: Path, *, width: int = 64, per_part: int = 0) -> Path:
    """A small real model, `house`; another `width` gives other files, `per_part` tensors a set of parts."""
    directory.mkdir()
    writer = GGUFWriter(directory / "house.gguf", "llama", split_max_tensors=per_part)
    sizes = {"block_count": 2, "context_length": 4096, "embedding_length": 64, "feed_forward_length": 256,
             "attention.head_count": 4, "attention.head_count_kv": 2}  # fmt: skip
    for key, size in sizes.items():
        writer.add_uint32(f"llama.{key}", size)
    writer.add_tensor("token_embd.weight", np.zeros((100, 64), np.float16))
    for layer in range(2):
        writer.add_tensor(f"blk.{layer}.attn_k.weight", np.zeros((width, 64), np.float16))
    writer.add_tensor("output.weight", np.zeros((100, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return directory


def test_files_decide_who_can_hold_a_stage(nodes: Nodes, tmp_path: Path) -> None:
    whole = house_model(tmp_path / "whole")
    half = house_model(tmp_path / "half", per_part=2)
    sorted(half.glob("*.gguf"))[-1].unlink()
    other = house_model(tmp_path / "other", width=32)
    desk = a_coordinator(nodes, "--model-dir", str(whole))
    token = desk.invite("--uses", "9")
    wanted = {
        "twin": (whole, None),
        "half": (half, "artifact_transfer_unavailable"),
        "stranger": (other, "package_manifest_mismatch"),
        "bare": (None, "stage_inventory_empty"),
    }
    workers = {
        name: nodes.start(name, *(("--model-dir", str(files)) if files else ()), token=token, wait=False)
        for name, (files, _) in wanted.items()
    }
    nodes.all_know_all([desk, *workers.values()])
    answer = desk.json("split", "house", "--quorum", "5", "--deadline", "4", code=5)
    expected = {workers[name].node: reason for name, (_, reason) in wanted.items() if reason}
    assert reasons(answer) == expected
    assert {each["node"] for each in answer["participants"]} == {desk.node, workers["twin"].node}


def test_model_named_by_its_path_is_at_hand_where_it_is_asked_for(nodes: Nodes, tmp_path: Path) -> None:
    desk, study = nodes.mesh("desk", "study", options=QUICK)
    file = house_model(tmp_path / "aside") / "house.gguf"
    answer = desk.json("split", str(file), "--quorum", "2", "--deadline", "2", code=5)
    assert reasons(answer) == {study.node: "stage_inventory_empty"}
    assert [each["node"] for each in answer["participants"]] == [desk.node]
    assert [stage["node"] for stage in desk.json("split", str(file))["stages"]] == [desk.node]


def test_files_that_no_member_has_are_a_missing_source(nodes: Nodes, tmp_path: Path) -> None:
    half = house_model(tmp_path / "half", per_part=2)
    sorted(half.glob("*.gguf"))[-1].unlink()
    desk = a_coordinator(nodes, "--model-dir", str(half))
    sofa = nodes.start("sofa", *QUICK, "--client", token=desk.invite())
    nodes.all_know_all([desk, sofa])
    file = house_model(tmp_path / "aside") / "house.gguf"
    answer = sofa.json("split", str(file), "--deadline", "2", code=5)
    assert reasons(answer) == {desk.node: "missing_model_source", sofa.node: "client"}
