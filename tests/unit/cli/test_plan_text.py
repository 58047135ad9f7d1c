"""How plans and shortfalls read."""

from __future__ import annotations

from typing import Any

import pytest

from meshnode.cli.output import node_text
from meshnode.cli.plan_text import print_outcome

NODE = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"
OTHER = "z" * 52


def a_plan(**changes: Any) -> dict[str, Any]:
    stage = {
        "stage": 0, "node": NODE, "device": "cpu", "layer_start": 0, "layer_end": 32, "seconds": None,
        "bytes": {"weights": 50 * 10**9, "kv": 10**9, "state": 0, "endpoint": 10**8, "compute": 10**8,
                  "total": 51_200_000_000, "usable": 80 * 10**9},
    }  # fmt: skip
    return {
        "result": "plan", "model": "m", "objective": "latency", "value": 3.0, "lower_bound": 3.0, "gap": 0.0,
        "unit": "stages", "method": "exact", "context": 108_288, "lanes": 1, "engine": "llama_cpp_rpc",
        "coordinator": {"node": NODE, "is_stage": True, "host_bytes": 900_000_000}, "stages": [stage], "hops": [],
        "prediction": None, "warnings": ["bandwidth of cpu on mfrggzdfmz is unknown"], "capacity_only": True,
    } | changes  # fmt: skip


def a_shortfall(**changes: Any) -> dict[str, Any]:
    return {
        "result": "shortfall", "kind": "aggregate", "model": "m", "message": "aggregate split capacity for m ...",
        "participants": [
            {"node": NODE, "capacity_bytes": 80 * 10**9, "usable_bytes": 80 * 10**9, "cached_bytes": None,
             "missing_bytes": 0, "rtt_ms": None, "transfer": False, "placeable_layers": 17},
        ],
        "excluded": [{"node": OTHER, "reason": "client", "found": "role client", "required": "role worker",
                      "advice": "invite it as a worker"}],
        "remedies": [
            {"action": "add_node", "asks": "add a node with 147.5GB", "closes_bytes": 1, "sufficient": True},
            {"action": "cache_type", "asks": "use q8_0", "closes_bytes": 12_890_000_000, "sufficient": False},
        ],
    } | changes  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], outcome: dict[str, Any]) -> tuple[int, str]:
    code = print_outcome(outcome, {NODE: "attic"})
    return code, capsys.readouterr().out


def test_plan_says_what_has_to_be_fetched_first_and_nothing_where_all_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (stage,) = a_plan()["stages"]
    stages = [stage | {"missing_bytes": 2 * 10**9}, stage | {"node": OTHER, "missing_bytes": 0},
              stage | {"missing_bytes": 10**9}]  # fmt: skip
    _, text = printed(capsys, a_plan(stages=stages))
    assert "to fetch before it runs: 3.0GB of weights (mfrggzdfmz (attic) 3.0GB)\n" in text
    for told in (0, None):
        _, text = printed(capsys, a_plan(stages=[stage | {"missing_bytes": told}]))
        assert "fetch" not in text


@pytest.mark.parametrize(
    ("v_type", "kv_mode", "shown"),
    [("q8_0", "split", "KV cache q8_0"), ("f16", "unified", "KV cache q8_0 (K) and f16 (V) in one pool")],
)
def test_plan_says_how_the_cache_is_kept(
    capsys: pytest.CaptureFixture[str], v_type: str, kv_mode: str, shown: str
) -> None:
    _, text = printed(capsys, a_plan(workload={"k_type": "q8_0", "v_type": v_type, "kv_mode": kv_mode}))
    assert text.splitlines()[0] == f"m: 1 stage, context 108288 tokens, 1 lane, {shown}"


@pytest.mark.parametrize(
    ("kind", "why", "warnings", "line"),
    [
        ("f16", "f16 fits at 4096 tokens", [], "KV type auto: f16 fits at 4096 tokens"),
        ("q8_0", "f16 does not fit", ["KV type auto took q8_0: f16 does not fit"],
         "note: KV type auto took q8_0: f16 does not fit"),
    ],
)  # fmt: skip
def test_plan_says_once_why_the_caches_type_was_taken(
    capsys: pytest.CaptureFixture[str], kind: str, why: str, warnings: list[str], line: str
) -> None:
    workload = {"k_type": kind, "v_type": kind, "kv_mode": "split"}
    _, text = printed(capsys, a_plan(workload=workload, cache={"why": why}, warnings=warnings))
    assert f"KV cache {kind} (auto)" in text
    assert [each for each in text.splitlines() if why in each] == [line]


def test_shortfall_says_for_which_cache_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(capsys, a_shortfall(cache={"why": "f16 and q8_0 do not fit"}))
    assert "KV type auto: f16 and q8_0 do not fit." in text


def test_plan_shows_stages_proof_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = printed(capsys, a_plan())
    assert code == 0
    assert "m: 1 stage, context 108288 tokens, 1 lane" in text
    row = next(line for line in text.splitlines() if "0-31" in line)
    assert row.split() == [
        "0", "mfrggzdfmz", "(attic)", "cpu", "0-31", "32",
        "50.0GB", "1.0GB", "0.2GB", "51.2GB", "80.0GB", "28.8GB", "-",
    ]  # fmt: skip
    assert "objective latency: 3 stages, proved to be the best possible (exact)" in text
    assert "capacity-only" in text
    assert "note: bandwidth of cpu" in text


def test_plan_with_a_gap_says_how_far_from_the_best_it_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(capsys, a_plan(value=0.021, lower_bound=0.02, gap=0.05, unit="s"))
    assert "21ms per token, at most 5.0% above the best possible (20ms per token)" in text


def test_plan_without_a_bound_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(capsys, a_plan(lower_bound=None, gap=None))
    assert "no bound is known" in text


def test_shortfall_shows_message_counted_left_out_and_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = printed(capsys, a_shortfall())
    assert code == 4
    assert text.startswith("aggregate split capacity for m ...\n")
    counted = next(line for line in text.splitlines() if line.startswith("mfrggzdfmz"))
    assert counted.split() == ["mfrggzdfmz", "(attic)", "80.0GB", "80.0GB", "unknown", "0.0GB", "unknown", "no", "17"]
    out = next(line for line in text.splitlines() if line.startswith("zzzzzzzzzz"))
    assert ["client" in out, "role client" in out, "role worker" in out, "invite it as a worker" in out] == [True] * 4
    assert "1. add a node with 147.5GB (then it fits)" in text
    assert "2. use q8_0 (closes 12.9GB of the gap, not enough alone)" in text


def test_ids_in_notes_are_shown_as_people_know_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(capsys, a_plan(warnings=[f"RTT from {NODE} to {OTHER} is unknown"]))
    assert "note: RTT from attic to zzzzzzzzzz is unknown" in text


def test_names_of_peers_cannot_move_the_cursor() -> None:
    assert node_text(NODE, {NODE: "a\x1b[2J"}) == "mfrggzdfmz (a?[2J)"


def test_node_of_a_nodes_file_keeps_its_whole_id() -> None:
    assert node_text("mac-studio-in-the-attic", {}) == "mac-studio-in-the-attic"


@pytest.mark.parametrize(("is_stage", "told"), [(True, "which also holds a stage"), (False, "which holds no stage")])
def test_plan_says_whether_its_coordinator_holds_a_stage(
    capsys: pytest.CaptureFixture[str], is_stage: bool, told: str
) -> None:
    coordinator = {"node": NODE, "is_stage": is_stage, "host_bytes": 900_000_000}
    _, text = printed(capsys, a_plan(coordinator=coordinator))
    assert f"\ncoordinator mfrggzdfmz (attic), {told}; host memory 0.9GB, engine llama_cpp_rpc\n" in text


def test_remedy_about_a_node_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    asks = "admit mfrggzdfmz (80.0GB, excluded as not_alive) and free 1.0GB on zzzzzzzzzz"
    remedy = {"action": "combination", "asks": asks, "closes_bytes": 1, "sufficient": True}
    _, text = printed(capsys, a_shortfall(remedies=[remedy]))
    told = "admit mfrggzdfmz (attic) (80.0GB, excluded as not_alive) and free 1.0GB on zzzzzzzzzz (then it fits)\n"
    assert f"  1. {told}" in text


def test_missed_quorum_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"result": "quorum_not_reached", "model": "m", "quorum": 2, "waited_s": 3.0, "excluded": []}
    there = {"node": NODE, "usable_bytes": 10**9}
    code, text = printed(capsys, report | {"participants": [there]})
    assert code == 5
    assert text.endswith("To reach it, let workers join (`meshnode invite`), or plan with what is there: --quorum 1\n")
    _, text = printed(capsys, report | {"participants": []})
    assert text.endswith("let workers join (`meshnode invite`)\n")


def test_nodes_in_a_reason_are_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    out = {"node": OTHER, "reason": "stage_path_relay_only", "found": f"relayed through {NODE[:10]}",
           "required": "a direct link, or allow_relayed", "advice": f"forward a UDP port to {OTHER[:10]}"}  # fmt: skip
    _, text = printed(capsys, a_shortfall(excluded=[out]))
    assert "relayed through attic " in text
    assert "forward a UDP port to zzzzzzzzzz" in text, "it has no name"
    _, text = printed(capsys, a_shortfall(excluded=[out | {"found": None, "required": None}]))
    assert "stage_path_relay_only  -" in text
