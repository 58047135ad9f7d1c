"""What `meshnode doctor` says of routers and of members that only another one reaches. (Shut ports, narrow lines and
bridges: `test_namespaces.py`.)"""

from __future__ import annotations

from typing import Any

import pytest
from emulated_mesh import EmulatedMesh, all_linked, path_to, until
from emulation import NatKind
from making_nodes import PATIENT, RunningNode


def findings(node: RunningNode, check: str) -> list[dict[str, Any]]:
    return [one for one in node.control().post("/v1/doctor", {})["findings"] if one["check"] == check]


@pytest.mark.long
def test_router_with_a_mapping_for_each_peer_and_a_relayed_path_are_told(mesh: EmulatedMesh) -> None:
    for name in ("attic", "study", "loft"):
        mesh.place(name)
    mesh.net.put_behind_nat("loft", NatKind.SYMMETRIC)
    attic = mesh.start("attic", *PATIENT)
    token = attic.invite("--uses", "3")
    study, loft = (mesh.start(name, *PATIENT, token=token) for name in ("study", "loft"))
    all_linked([attic, study, loft])
    (nat,) = findings(loft, "nat")
    assert nat["grade"] == "warning"
    assert "gives each peer another outer address" in nat["found"]
    assert "--advertise" in nat["advice"]

    mesh.net.partition(("study",), ("cellar",))
    cellar = mesh.start("cellar", *PATIENT, token=token)
    all_linked([attic, cellar])
    until(lambda: path_to(study, cellar) == "relayed", "the relayed path")
    (relayed,) = [one for one in findings(study, "reachability") if cellar.node[:10] in one["subject"]]
    assert relayed["grade"] == "error"
    assert "through another member only" in relayed["found"]
