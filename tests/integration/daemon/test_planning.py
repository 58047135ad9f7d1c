"""Plans, splits and pursuits over real nodes, through the command line."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from emulated_mesh import until
from making_nodes import DEADLINE_S, Nodes, RunningNode

MODEL = "qwen3-coder-480b-a35b-q4_k_xl"
NAME = "Qwen3-Coder-480B-A35B-Instruct-UD-Q4_K_XL"
CONTEXT = ("--context", "108288")
QUICK = ("--dwell-s", "0.3", "--first-quorum-window-s", "0.3", "--pending-s", "0.5", "--deadline-s", "15")


def a_mesh(nodes: Nodes, **sizes: str) -> list[RunningNode]:
    """Workers that declare these sizes, and know each other's."""
    names = list(sizes)
    founder = nodes.start(names[0], *QUICK, "--declare-usable", sizes[names[0]])
    token = founder.invite("--uses", "20")
    others = [nodes.start(name, *QUICK, "--declare-usable", sizes[name], token=token, wait=False) for name in names[1:]]
    nodes.all_know_all([founder, *others])
    for other in others:
        wanted = other.node
        founder.wait_event("peer.updated", lambda e, wanted=wanted: e["peer"] == wanted and e["part"] == "offer")  # type: ignore[misc]
    return [founder, *others]


def test_two_workers_are_short_by_the_planners_own_figures(nodes: Nodes) -> None:
    attic, study = a_mesh(nodes, attic="80GB", study="74.6GB")
    sofa = nodes.start("sofa", "--client", token=attic.invite())
    attic.wait_event("peer.joined", lambda event: event["peer"] == sofa.node)
    report = attic.json("split", MODEL, *CONTEXT, code=4)
    assert (report["kind"], report["required_bytes"], report["available_bytes"]) == (
        "aggregate", 302_136_317_812, 154_600_000_000,
    )  # fmt: skip
    assert report["message"].startswith(
        f"aggregate split capacity for {NAME} requires 302.1GB, mesh has 154.6GB across 2 participant(s), "
        "short by 147.5GB; participants ["
    )
    assert [(out["node"], out["reason"]) for out in report["excluded"]] == [(sofa.node, "client")]
    assert any(remedy["sufficient"] for remedy in report["remedies"])
    assert sorted(report["declared"]) == sorted([attic.node, study.node])
    text = attic.verb("split", MODEL, *CONTEXT, code=4)
    assert "80.0GB declared" in text
    assert "What would help, least effort first:" in text
    assert attic.wait_event("split.shortfall")["short_by_bytes"] == 302_136_317_812 - 154_600_000_000


def test_third_worker_turns_the_shortfall_into_a_plan(nodes: Nodes) -> None:
    attic, study, loft = a_mesh(nodes, attic="80GB", study="74.6GB", loft="170GB")
    plan = attic.json("split", MODEL, *CONTEXT)
    assert plan["result"] == "plan"
    assert {stage["node"] for stage in plan["stages"]} == {attic.node, study.node, loft.node}
    covered = [(stage["layer_start"], stage["layer_end"]) for stage in plan["stages"]]
    assert covered[0][0] == 0
    assert covered[-1][1] == 62
    assert all(before[1] == after[0] for before, after in pairwise(covered))
    assert all(stage["bytes"]["total"] <= stage["bytes"]["usable"] for stage in plan["stages"])
    assert "170.0GB declared" in attic.verb("split", MODEL, *CONTEXT)


def test_plan_asks_the_mesh_as_it_is_and_draws_it(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> None:
    attic, _, _ = a_mesh(nodes, attic="80GB", study="74.6GB", loft="170GB")
    svg = tmp_path_factory.mktemp("p") / "plan.svg"
    plan = json.loads(attic.verb("plan", MODEL, *CONTEXT, "--kv-type", "auto", "--svg", str(svg), "--json"))
    assert plan["outcome"] == "immediate"
    assert (plan["cache"]["policy"], plan["workload"]["k_type"]) == ("auto", "f16")
    assert svg.read_text(encoding="utf-8").startswith("<svg")
    assert "picture" not in plan


def test_plan_of_the_mesh_is_explained_when_asked(nodes: Nodes) -> None:
    attic, study = a_mesh(nodes, attic="200GB", study="200GB")
    plan = attic.json("plan", MODEL, *CONTEXT, "--explain")
    assert attic.json("plan", MODEL, *CONTEXT, "--coordinator", "study")["coordinator"]["node"] == study.node
    assert {verdict["node"] for verdict in plan["explanation"]["nodes"]} == {attic.node, study.node}
    assert "Why each node is in or out:" in attic.verb("plan", MODEL, *CONTEXT, "--explain")


def test_alone_the_quorum_is_not_reached_and_exit_code_5_says_so(nodes: Nodes) -> None:
    attic = nodes.start("attic", *QUICK[:-1], "1.5", "--declare-usable", "80GB")
    assert attic.json("split", MODEL, code=5)["result"] == "quorum_not_reached"
    text = attic.verb("split", MODEL, code=5)
    assert f"quorum not reached for {NAME}: 1 of 2 after" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "qwen3-coder-480b-a35b-q4_k_x"), "did you mean qwen3-coder-480b-a35b-q4_k_xl"),
        (("split", "no-such-model-at-all-zzz"), "no file, directory or profile of this name"),
        (("plan", MODEL, "--coordinator", "zzzz"), "coordinator: found 'zzzz'"),
    ],
)
def test_wrong_wish_is_bad_usage_and_named(nodes: Nodes, words: tuple[str, ...], said: str) -> None:
    attic = nodes.start("attic")
    done = attic.ask(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_model_of_the_config_is_pursued_until_the_mesh_holds_it(nodes: Nodes) -> None:
    wanted = ("--model", MODEL, "--context", "108288", "--objective", "fewest")
    attic = nodes.start("attic", *QUICK, *wanted, "--declare-usable", "80GB")
    token = attic.invite("--uses", "5")
    nodes.start("study", *QUICK, "--declare-usable", "74.6GB", token=token)
    short = attic.wait_event("split.shortfall", lambda event: event["available_bytes"] == 154_600_000_000)
    assert short["short_by_bytes"] > 0
    assert attic.json("status")["splits"][0]["state"] == "short"
    nodes.start("loft", *QUICK, "--declare-usable", "170GB", token=token)
    planned = attic.wait_event("split.planned")
    assert len(planned["stages"]) == 3
    assert attic.json("status")["splits"][0]["state"] == "planned"
    assert f"{NAME}: planned" in attic.verb("status")


def test_daemon_that_planned_still_holds_no_numpy(nodes: Nodes) -> None:
    attic, _ = a_mesh(nodes, attic="200GB", study="200GB")
    attic.json("plan", MODEL, *CONTEXT)
    assert "numpy" not in Path(f"/proc/{attic.pid}/maps").read_text(encoding="utf-8")


def test_client_that_goes_away_ends_the_wait(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--declare-usable", "80GB", "--deadline-s", "3600")
    waiting = attic.background("split", MODEL)
    attic.wait_event("split.waiting")
    waiting.kill()
    waiting.wait(DEADLINE_S)
    assert attic.json("plan", MODEL, code=4)["result"] == "shortfall"
    assert attic.stop() == 0


def test_shortfall_of_a_pursued_model_knows_the_smaller_file_and_is_for_the_smallest_cache(
    nodes: Nodes, tmp_path: Path
) -> None:
    words: list[str] = []
    for name, weight_bytes in (("house-Q8_0", 900_000_000), ("house-Q2_K", 100_000_000)):
        profile = tmp_path / f"{name}.toml"
        profile.write_text(
            f'name = "{name}"\nnative_context = 4096\nvocabulary = 1000\nhidden_size = 64\n'
            f"[[layers]]\ncount = 4\nweight_bytes = {weight_bytes}\nkv_bytes_per_token = 64\n",
            encoding="utf-8",
        )
        words += ["--model", str(profile)]
    small = ("--declare-usable", "1GB", "--declare-host", "1GB", "--kv-type", "auto", "--force-split", "--quorum", "1")
    attic = nodes.start("attic", *QUICK, *small, *words)
    attic.wait_event("split.shortfall")
    result = next(each["result"] for each in attic.json("status")["splits"] if each["model"] == "house-Q8_0")
    assert result["cache"]["k_type"] == "q4_0"
    assert "smaller_file" in [remedy["action"] for remedy in result["remedies"]]


def test_model_pursued_by_its_path_can_be_asked_for_by_its_name(nodes: Nodes, tmp_path: Path) -> None:
    profile = tmp_path / "figures.toml"
    profile.write_text(
        'name = "house-model"\nnative_context = 4096\nembedding_bytes = 1000000\noutput_bytes = 1000000\n'
        "tied_embedding = false\nvocabulary = 1000\nhidden_size = 64\n"
        "[[layers]]\ncount = 4\nweight_bytes = 1000000\nkv_bytes_per_token = 64\n",
        encoding="utf-8",
    )
    attic = nodes.start("attic", *QUICK, "--declare-usable", "8GB", "--declare-host", "8GB", "--model", str(profile))
    attic.wait_event("model.indexed")
    assert attic.json("plan", "house-model")["model"] == "house-model"
    assert attic.json("models")["running"] is True
    until(lambda: [model["ref"] for model in attic.json("models")["models"]] == ["house-model"], "it is told of")
    solo = attic.json("split", "house-model")
    assert [stage["node"] for stage in solo["stages"]] == [attic.node]
    assert "holds it alone" in attic.verb("split", "house-model")
    assert attic.json("split", "house-model", "--force-split", "--deadline", "1", code=5)["quorum"] == 2


def test_status_says_which_model_cannot_be_read(nodes: Nodes, tmp_path: Path) -> None:
    broken = tmp_path / "half.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00")
    attic = nodes.start("attic", *QUICK, "--model", str(broken))
    event = attic.wait_event("model.unreadable")
    assert (event["level"], event["model"], event["path"]) == ("error", "half", str(broken))
    text = attic.verb("status")
    assert f"unreadable {broken}: " in text
    assert attic.json("status")["unreadable_models"][0]["model"] == "half"
