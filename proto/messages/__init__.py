"""The messages two nodes exchange, as bounded, frozen shapes.

What lives here: the shapes of the handshake, of membership, and of splits, which others import from here whatever stage
they belong to. What does not: those of tunnels (`proto.tunnels`, `proto.weights`) and of paths under trial
(`proto.reach`), the list of all with their limits (`proto.registry`), bytes (`proto.codec`), meaning
(`meshnode.transport.handshake`, `meshnode.membership`, `meshnode.readiness`).

A message is a msgpack map whose `type` names it. Unknown types and unknown fields are skipped (forward compatibility);
a wrong type or an out-of-range value is a `WireError` that names the field.
"""

# ruff: noqa: F403  # all shapes of a stage are public here: a new one is written down once, and once in the registry

from proto.messages.gossip import *
from proto.messages.handshake import *
from proto.messages.message import Message as Message
from proto.messages.message import WireProbeNonce as WireProbeNonce
from proto.messages.probes import *
from proto.messages.splits import *
