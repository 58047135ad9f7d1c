"""`meshnode doctor` with real nodes on loopback, and without one. (Shut ports: `mesh/test_namespaces.py`.)"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from making_nodes import MESHNODE, Nodes, environment

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
