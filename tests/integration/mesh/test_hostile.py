"""A running daemon under attack: it serves its operator and keeps its links, and its memory stays bounded."""

from __future__ import annotations

import socket
import time
from itertools import count
from pathlib import Path
from statistics import median

import anyio
import anyio.to_thread
import psutil
from emulated_mesh import EmulatedMesh, all_linked, nobody_given_up, of_peer, seen, status_of, until
from hostile_peer import RawPeer, an_initial, the_member_in
from making_nodes import DEADLINE_S, PATIENT, RunningNode

from proto.codec import encode_frame
from proto.ids import NodeId
from proto.messages import Revocations, ViewHash

INITIALS = 2000
WAVE = 25


def answer_s(node: RunningNode) -> float:
    """How long its operator waits for an answer."""
    started_s = time.monotonic()
    assert node.control().get("/v1/status")["node"] == node.node
    return time.monotonic() - started_s


def memory_bytes(node: RunningNode) -> int:
    return int(psutil.Process(node.pid).memory_info().rss)


def test_thousands_of_half_open_links_cost_a_daemon_neither_links_nor_memory(mesh: EmulatedMesh) -> None:
    nodes = mesh.found("attic", "study", "loft", options=PATIENT)
    attic = nodes[0]
    initials = [an_initial() for _ in range(INITIALS)]
    before_bytes = memory_bytes(attic)
    answers_s = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.bind(("127.0.0.1", 0))
        for start in range(0, INITIALS, WAVE):
            for packet in initials[start : start + WAVE]:
                attacker.sendto(packet, ("127.0.0.1", mesh.port["attic"]))
            answers_s.append(answer_s(attic))
    attic.wait_event("handshake.shed")
    grown_bytes = memory_bytes(attic) - before_bytes
    print(f"answers took {median(answers_s) * 1000:.1f} ms at the median, {max(answers_s) * 1000:.0f} ms at most")
    print(f"memory grew by {grown_bytes / 1e6:.1f} MB")
    # 64 half-open connections of about 70 KiB are 4.5 MB; 2,000 would be 140.
    assert grown_bytes < 30_000_000
    all_linked(nodes)
    nobody_given_up(nodes)
    for node in nodes:
        assert node.events("link.down") == []
    newcomer = mesh.start("sofa", *PATIENT, token=attic.invite())
    until(lambda: status_of(attic, newcomer) == "alive", "a newcomer is let in right after it")


async def test_member_that_floods_is_cut_off_by_name_and_the_others_are_served(
    mesh: EmulatedMesh, tmp_path: Path
) -> None:
    nodes = await anyio.to_thread.run_sync(lambda: mesh.found("attic", "study", "loft", options=PATIENT))
    attic, study, loft = nodes
    assert await anyio.to_thread.run_sync(loft.stop) == 0
    identity, own_mesh, chain = the_member_in(loft.state, tmp_path / "loft-copy")
    before_bytes = memory_bytes(attic)
    flooder = await RawPeer(f"127.0.0.1:{mesh.port['attic']}").open()
    await flooder.authenticate(identity, own_mesh, chain, NodeId(attic.node))
    flooder.say(Revocations(entries=(), complete=True))
    answers_s = []
    with anyio.fail_after(DEADLINE_S):
        for number in count():
            frame = encode_frame(ViewHash(value=number.to_bytes(8, "big"), nodes=number))
            if backlog(flooder) < 1_000_000:
                flooder.write(frame * 500)
            answers_s.append(await anyio.to_thread.run_sync(answer_s, attic))
            if of_peer(attic, "link.down", loft.node)[1:]:
                break
            await anyio.sleep(0.02)
    flooder.shut()
    assert of_peer(attic, "peer.throttled", loft.node)
    assert of_peer(attic, "link.down", loft.node)[-1]["code"] == "flooding"
    print(f"answers took {median(answers_s) * 1000:.1f} ms at the median, {max(answers_s) * 1000:.0f} ms at most")
    assert memory_bytes(attic) - before_bytes < 30_000_000
    nobody_given_up([attic, study])
    assert len(of_peer(attic, "link.up", study.node)) == 1
    assert seen(attic, study) is not None


def backlog(peer: RawPeer) -> int:
    """Bytes that its QUIC still has to send."""
    sender = peer.connection._streams[0].sender
    return int(sender._buffer_stop - sender._buffer_start)
