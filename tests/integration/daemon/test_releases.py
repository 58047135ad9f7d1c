"""Releases of adjacent minor versions in one mesh, each from its own wheel; and a node that is upgraded in place.

There is no release before the first: the earlier and the later one are made of this tree, with lower and higher
numbers, the narrowest protocol range that is compatible, and fields that this tree does not know.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from making_nodes import MESHNODE, Nodes, RunningNode
from making_releases import Release, program_of

from meshnode import __version__
from proto.versions import OURS

MAJOR, MINOR = map(int, re.findall(r"\d+", __version__)[:2])
EARLIER = Release(f"{MAJOR}.{MINOR - 1}.0", OURS.lowest.minor, max(OURS.lowest.minor, OURS.highest.minor - 1))
LATER = Release(f"{MAJOR}.{MINOR + 1}.0", OURS.lowest.minor, OURS.highest.minor + 1, novelty=True)
FAR = Release(f"{MAJOR}.{MINOR + 2}.0", OURS.highest.minor + 1, OURS.highest.minor + 2)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[Release, tuple[str, ...]]:
    """How each release is started."""
    root = tmp_path_factory.mktemp("releases")
    with ThreadPoolExecutor(2) as builders:
        made = builders.map(lambda release: program_of(release, root), (EARLIER, LATER, FAR))
        return dict(zip((EARLIER, LATER, FAR), made, strict=True))


def spoken(node: RunningNode, other: RunningNode) -> str:
    wanted = other.node
    return str(node.wait_event("link.up", lambda event: event["peer"] == wanted)["protocol"])


@pytest.mark.long
def test_three_releases_make_one_mesh_and_one_is_upgraded_and_taken_back(
    nodes: Nodes, programs: dict[Release, tuple[str, ...]]
) -> None:
    options = ("--declare-usable", "20GB")
    early = nodes.start("early", *options, program=programs[EARLIER])
    here = nodes.start("here", *options, token=early.invite("--uses", "9", "--may-invite"))
    late = nodes.start("late", *options, token=here.invite(), program=programs[LATER])
    mesh = [early, here, late]
    nodes.all_know_all(mesh)
    assert [node.wait_event("node.started")["version"] for node in mesh] == [
        EARLIER.version, __version__, LATER.version,
    ]  # fmt: skip
    assert spoken(late, here) == str(OURS.highest)
    assert spoken(early, here) == f"1.{EARLIER.highest}"
    for node in mesh:
        for other in mesh:
            if other is not node:
                wanted = other.node
                node.wait_event(
                    "peer.updated",
                    lambda event, wanted=wanted: (event["peer"], event["part"]) == (wanted, "offer"),  # type: ignore[misc]
                )
        plan = node.json("plan", "qwen3-32b-q4_k_m", "--objective", "fewest")
        assert plan["result"] == "plan"
        assert node.events("wire.rejected") == []
        assert node.events("record.rejected") == []
    found = [one for one in here.json("doctor", code=here.ask("doctor").returncode)["findings"]
             if one["check"] in ("versions", "reachability")]  # fmt: skip
    assert {one["grade"] for one in found} == {"ok"}
    assert sum(one["check"] == "versions" for one in found) == 2

    for program, version in ((MESHNODE, __version__), (programs[EARLIER], EARLIER.version)):
        before = early.node
        assert early.stop() == 0
        early = nodes.start("early", *options, program=program)
        assert early.wait_event("node.started")["version"] == version
        assert early.node == before
        here.wait_event("peer.returned", lambda event, before=before: event["peer"] == before)  # type: ignore[misc]


@pytest.mark.long
def test_release_that_is_too_far_is_refused_with_both_ranges(
    nodes: Nodes, programs: dict[Release, tuple[str, ...]]
) -> None:
    here = nodes.start("here")
    far = nodes.start("far", token=here.invite(), program=programs[FAR], wait=False)
    assert far.process.wait(60) == 1
    assert far.process.stderr is not None
    assert "no_common_version" in far.process.stderr.read()
    refused = here.wait_event("link.refused", lambda event: event["code"] == "no_common_version")
    assert str(OURS) in f"{refused['found']} {refused['required']}"
    versions = [one for one in here.json("doctor", code=2)["findings"] if one["check"] == "versions"]
    assert [one["grade"] for one in versions] == ["error"]


def test_state_of_a_newer_release_is_refused_by_the_process_and_left_alone(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic")
    assert attic.stop() == 0
    newer = '{"format": 99, "peers": []}'
    (tmp_path / "attic" / "peers.json").write_text(newer)
    again = nodes.start("attic", wait=False)
    assert again.process.wait(60) == 1
    assert again.process.stderr is not None
    assert "written by a newer meshnode (format 99" in again.process.stderr.read()
    assert (tmp_path / "attic" / "peers.json").read_text() == newer
