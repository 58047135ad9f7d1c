"""What goes wrong in practice, looked for: on this machine, and in the mesh that its node is in.

`Finding` is one result. `check_machine` needs no running node; `check_mesh` judges what a running one knows.
"""

from meshnode.doctor.finding import Finding, Grade, worst
from meshnode.doctor.machine import MachineFacts, check_machine
from meshnode.doctor.mesh import MeshFacts, check_mesh
from meshnode.doctor.peers import PeerFacts

__all__ = [
    "Finding",
    "Grade",
    "MachineFacts",
    "MeshFacts",
    "PeerFacts",
    "check_machine",
    "check_mesh",
    "worst",
]
