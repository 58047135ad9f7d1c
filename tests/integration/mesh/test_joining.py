"""Getting into a mesh, and staying in it, where the paths, the clocks and the tokens are as bad as at home."""

from __future__ import annotations

from emulated_mesh import EmulatedMesh, all_linked
from emulation import LinkConditions


def test_five_nodes_converge_over_lossy_paths_and_accuse_nobody(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft", "cellar", "sofa")
    for name in names:
        mesh.place(name)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            mesh.net.shape_both(one, other, LinkConditions(delay_ms=10, jitter_ms=2, loss=0.05))
    nodes = mesh.found(*names, options=("--network", "lan"))
    all_linked(nodes)
    assert all(not node.events("peer.dead") for node in nodes)
