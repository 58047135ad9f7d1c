"""Whatever a mesh does, a waiter returns by the deadline, with nobody who is gone, and nothing of anyone left out."""

from __future__ import annotations

import math
from dataclasses import replace

from driving_waiters import Drive
from hypothesis import given, settings
from hypothesis import strategies as st
from making_views import MANIFEST, MODEL, a_confirm, a_link, a_model, a_node, a_view, an_offer, an_rtt, node_id

from meshnode.membership.view import MeshView, NodeView, PathKind, Status
from meshnode.readiness import (
    Eligibility,
    Excluded,
    Failed,
    Finished,
    Participant,
    Pending,
    SettleSettings,
    SplitRequest,
    snapshot_now,
)
from meshnode.readiness.judge import judge_mesh
from proto.ids import NodeId
from proto.messages import Confirm
from proto.parts import Role, Willingness

DEADLINE_S = 30.0
NAMES = "abcdef"


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeView:
    """A node in any state membership may show it in."""
    node = node_id(name)
    cached = draw(st.sampled_from([0, 5, 10, None]))
    models = draw(st.sampled_from([(), (a_model(),), (a_model(complete=False, cached_bytes=cached, missing_bytes=5),)]))
    offer = an_offer(
        node,
        usable_bytes=draw(st.sampled_from([0, 1, 10**9, 24 * 10**9])),
        reserved_bytes=draw(st.sampled_from([0, 10**9])),
        models=models,
        draining=draw(st.booleans()),
        willingness=draw(st.sampled_from(list(Willingness))),
        inventory_known=draw(st.booleans()),
        artifact_transfer=draw(st.booleans()),
        version=draw(st.integers(1, 3)),
    )
    path = draw(st.sampled_from(list(PathKind)))
    view = a_node(
        name,
        role=draw(st.sampled_from([Role.WORKER, Role.WORKER, Role.CLIENT])),
        status=draw(st.sampled_from([Status.ALIVE, Status.ALIVE, Status.ALIVE, *Status])),
        start=draw(st.integers(0, 1)),
        offer=offer,
        link=a_link(path=path, up_since_s=draw(st.sampled_from([0.0, 1.0]))),
        rtt=an_rtt(draw(st.sampled_from([0.2, 200.0])), corroborated=draw(st.booleans())),
    )
    gone: dict[str, None] = dict.fromkeys(
        draw(st.sets(st.sampled_from(["identity", "offer", "link", "rtt"]), max_size=1))
    )
    return replace(view, connecting=draw(st.booleans()), **gone)  # type: ignore[arg-type]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, MeshView]]:
    """Up to a dozen views, each changing some nodes; node `a` is local, and alive."""
    shown: dict[str, NodeView] = {"a": a_node("a")}
    moments = sorted({0.0, *draw(st.lists(st.floats(0.0, DEADLINE_S - 0.001), max_size=12))})
    history = []
    for generation, at_s in enumerate(moments):
        for name in draw(st.sets(st.sampled_from(NAMES[1:]), max_size=3)):
            if name in shown and draw(st.integers(0, 3)) == 0:
                del shown[name]
            else:
                shown[name] = draw(nodes(name))
        history.append((at_s, a_view(*shown.values(), generation=generation, at_s=at_s)))
    return history


requests = st.builds(
    SplitRequest,
    model=st.just(MODEL),
    manifest=st.just(MANIFEST),
    is_profile=st.booleans(),
    settle=st.builds(
        SettleSettings,
        quorum=st.integers(1, 4),
        dwell_s=st.sampled_from([0.0, 2.0, 8.0]),
        first_quorum_window_s=st.sampled_from([0.0, 8.0]),
        deadline_s=st.just(DEADLINE_S),
        pending_s=st.sampled_from([0.0, 10.0]),
        confirm_s=st.sampled_from([0.5, 2.0, 40.0]),
    ),
    eligibility=st.builds(
        Eligibility,
        max_stage_rtt_ms=st.sampled_from([None, 80.0]),
        min_capacity_bytes=st.sampled_from([0, 2 * 10**9]),
        allow_relayed=st.booleans(),
    ),
)


@given(history=histories(), request=requests, data=st.data())
@settings(max_examples=120, deadline=None)
def test_waiter_returns_by_the_deadline_with_living_confirmed_participants_only(
    history: list[tuple[float, MeshView]], request: SplitRequest, data: st.DataObject
) -> None:
    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        delay_s = data.draw(st.sampled_from([0.0, 0.3, 3.0, math.inf]))
        if view.nodes[node].offer is None:
            return math.inf, None
        usable = data.draw(st.sampled_from([None, None, 0, 10**9]))
        return delay_s, a_confirm(view.nodes[node], usable_bytes=usable)

    drive = Drive(request, history, answering=answering).run()
    assert drive.at_s <= DEADLINE_S
    assert isinstance(drive.over, Finished | Failed)
    snapshot = drive.over.snapshot if isinstance(drive.over, Finished) else drive.over.error.snapshot
    newest = [view for at_s, view in history if at_s <= drive.at_s][-1]
    assert snapshot.view is newest
    for participant in snapshot.participants:
        assert newest.nodes[participant.node].status is Status.ALIVE
        assert participant.confirmed
    listed = [each.node for each in snapshot.participants] + [each.node for each in snapshot.exclusions]
    assert sorted(listed) == sorted(newest.nodes)
    enough = len(snapshot.participants) >= request.settle.quorum
    assert enough == isinstance(drive.over, Finished)
    assert snapshot.usable_bytes == sum(participant.usable_bytes for participant in snapshot.participants)


@given(history=histories(), request=requests)
@settings(max_examples=80, deadline=None)
def test_capacity_of_an_excluded_node_changes_no_sum(
    history: list[tuple[float, MeshView]], request: SplitRequest
) -> None:
    view = history[-1][1]
    before = snapshot_now(view, request)
    richer = dict(view.nodes)
    for exclusion in before.exclusions:
        node = richer[exclusion.node]
        if node.offer is not None and exclusion.reason not in ("missing_vram", "below_min_capacity"):
            usable = 10**15
            richer[node.node] = replace(
                node,
                offer=an_offer(
                    node.node,
                    usable_bytes=usable,
                    models=node.offer.models,
                    draining=node.offer.draining,
                    willingness=node.offer.willingness,
                    inventory_known=node.offer.inventory_known,
                    artifact_transfer=node.offer.artifact_transfer,
                ),
            )
    after = snapshot_now(replace(view, nodes=richer), request)
    assert after.participants == before.participants
    assert after.usable_bytes == before.usable_bytes


@given(history=histories(), request=requests)
@settings(max_examples=80, deadline=None)
def test_every_node_gets_exactly_one_verdict(history: list[tuple[float, MeshView]], request: SplitRequest) -> None:
    for _, view in history:
        verdicts = judge_mesh(view, request)
        assert list(verdicts) == sorted(view.nodes)
        for node, verdict in verdicts.items():
            assert isinstance(verdict, Participant | Pending | Excluded)
            assert verdict.node == node
