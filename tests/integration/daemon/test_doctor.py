"""`meshnode doctor` with real nodes on loopback, and without one. (Shut ports: `mesh/test_namespaces.py`.)"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import anyio
import anyio.to_thread
from hostile_peer import RawPeer
from making_nodes import MESHNODE, Nodes, environment

from meshnode.identity import Identity, SigningKey
from meshnode.state import StateDirectory
from meshnode.transport.trial import SIZED, trial_packet
from proto.credential import issue_credential
from proto.ids import MeshId, NodeId
from proto.messages import Delta, Revocations
from proto.parts import IdentityPart, Role
from proto.reach import ReachReport, ReachRequest
from proto.signing import sign_part

MESH_CHECKS = {"identity", "addresses", "nat", "reachability", "path_mtu", "clock", "versions"}
MACHINE_CHECKS = {"state_directory", "memory", "devices", "limits", "port", "engine"}


def test_healthy_mesh_is_found_healthy_by_both_nodes_at_once(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study", options=("--max-memory", "1GB"))
    asking = [
        subprocess.Popen(
            [*MESHNODE, "doctor", "--json", "--state-dir", str(node.state)],
            stdout=subprocess.PIPE, text=True, env=environment(),
        )
        for node in (attic, study)
    ]  # fmt: skip
    for process, node, other in zip(asking, (attic, study), (study, attic), strict=True):
        report = json.loads(process.communicate()[0])
        of_mesh = [finding for finding in report["findings"] if finding["check"] in MESH_CHECKS]
        assert {finding["check"] for finding in of_mesh} == MESH_CHECKS
        assert {finding["grade"] for finding in of_mesh} == {"ok"}, node.name
        assert {finding["check"] for finding in report["findings"]} == MESH_CHECKS | MACHINE_CHECKS
        (peer,) = report["peers"]
        assert peer["node"] == other.node
        assert peer["arrived"] == peer["addresses"]
        assert peer["arrived_here"] == node.json("status")["addresses"]
        assert process.returncode == report["exit_code"] == ["ok", "warning", "error"].index(report["worst"])
    shown = attic.ask("doctor", COLUMNS="80").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert f"path to study ({study.node[:10]})" in shown


def test_without_a_node_the_machine_is_checked(tmp_path: Path) -> None:
    def doctor(*words: str) -> tuple[int, str]:
        command = [*MESHNODE, "doctor", "--state-dir", str(tmp_path / "state"), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        return done.returncode, done.stdout

    code, text = doctor("--json")
    report = json.loads(text)
    assert (code, report["running"]) == (report["exit_code"], False)
    assert {finding["check"] for finding in report["findings"]} == MACHINE_CHECKS | {"daemon"}
    assert not (tmp_path / "state").exists()
    (tmp_path / "node.toml").write_text("quorum = 0\n")
    code, text = doctor("--config", str(tmp_path / "node.toml"))
    assert code == 2
    assert "configuration key quorum" in text
    assert os.listdir(tmp_path) == ["node.toml"]


def a_udp_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def waiting_in(receiver: socket.socket) -> int:
    """Datagrams that arrived."""
    count = 0
    while True:
        try:
            receiver.recv(4096)
        except BlockingIOError:
            return count
        count += 1


async def test_member_that_asks_without_end_makes_a_node_send_next_to_nothing_and_to_nobody_else(
    nodes: Nodes, tmp_path: Path
) -> None:
    attic = await anyio.to_thread.run_sync(nodes.start, "attic")
    shutil.copytree(attic.state, tmp_path / "copy")
    with StateDirectory.open(tmp_path / "copy") as directory:
        credential, founder = directory.credential(), directory.identity()
    assert credential is not None
    mesh, identity = MeshId(credential.mesh), Identity.starting(SigningKey.generate())
    own = issue_credential(
        founder, mesh, identity.node, Role.WORKER, may_invite=False, issued_at_unix_s=int(time.time())
    )
    chain = (*credential.chain, own)
    with a_udp_socket() as asker, a_udp_socket() as victim:
        here, elsewhere = (f"127.0.0.1:{one.getsockname()[1]}" for one in (asker, victim))
        address = (await anyio.to_thread.run_sync(lambda: attic.json("status")))["addresses"][0]
        peer = await RawPeer(address).open()
        await peer.authenticate(identity, mesh, chain, NodeId(attic.node))
        peer.say(Revocations(entries=(), complete=True))
        described = IdentityPart(identity.node, 1, 1, identity.boot_id, chain, (here,), (), 1, "raw")
        peer.say(Delta(parts=(sign_part(identity, mesh, described),), claims=()))
        await anyio.to_thread.run_sync(lambda: attic.wait_event("peer.joined"))
        began_s = time.monotonic()
        nonces = [number.to_bytes(32, "big") for number in range(100)]
        for nonce in nonces:
            peer.say(ReachRequest(nonce, (elsewhere,) * 16))
        host, _, port = address.rpartition(":")
        asker.sendto(trial_packet(nonces[0], 3), (host, int(port)))
        asker.sendto(trial_packet(nonces[0], SIZED, 1300), (host, int(port)))
        asker.sendto(trial_packet(nonces[1], 5), (host, int(port)))

        def reports() -> list[ReachReport]:
            return [message for message in peer.received if isinstance(message, ReachReport)]

        await peer.until(reports, "a report")
        (report,) = reports()
        assert time.monotonic() - began_s < 30
        assert (report.nonce, report.arrived, report.largest_bytes) == (nonces[0], (3,), 1300)
        assert here in report.tried
        assert elsewhere not in report.tried
        assert abs(report.clock_unix_ms / 1000 - time.time()) < 30
        assert 1 <= waiting_in(asker) <= 3
        assert waiting_in(victim) == 0
        peer.shut()
