"""A member that lies: it holds a good key and a good chain, and sends whatever it likes over its links.

What lives here: `HostileMember`, used by one scenario and by tests. It can sign for itself only; all else it forges.
"""

from __future__ import annotations

import msgspec

from meshnode.membership.trust import UNSIGNED
from meshnode.simulation.world import GB, SimulatedNode, World, an_offer
from proto.ids import NodeId
from proto.messages import Claim, ClaimKind, Delta, Message
from proto.parts import SignedPart

BOAST_BYTES = 10**18


class HostileMember:
    """Sends lies from a node that otherwise behaves."""

    def __init__(self, world: World, station: SimulatedNode) -> None:
        self._world = world
        self._station = station
        self.node = station.node
        self._collected: list[SignedPart] = []
        self._boasts = 0
        self._collect()

    def act(self) -> None:
        """One lie of each kind to a random linked peer."""
        self._collect()
        peers = list(self._station.links)
        if not peers:
            return
        for lie in (
            self._replay(),
            self._forgery(),
            self._accusation(),
            self._impossible_accusation(),
            self._own_flood(),
            self._boast(),
        ):
            self._world.wire.control(self._station, self._world.rng.choice(peers), lie)

    def _collect(self) -> None:
        """Keeps every record it can get, to send it again when it is old."""
        for node in self._world.running():
            assert node.machine is not None
            view = node.machine.view(self._world.clock.now_s).nodes[node.node]
            for part in (view.identity, view.offer, view.network):
                if part is not None:
                    self._collected.append(self._world.issued.envelope_of(part))
        del self._collected[:-2000]

    def _replay(self) -> Message:
        rng = self._world.rng
        return Delta(tuple(rng.sample(self._collected, min(8, len(self._collected)))), ())

    def _forgery(self) -> Message:
        """A victim's newest record with a higher version, which the victim never signed."""
        victim = self._collected[-1]
        decoded = msgspec.msgpack.decode(victim.body)
        decoded["version"] += 1000
        decoded["incarnation"] += 1
        return Delta((SignedPart(victim.kind, msgspec.msgpack.encode(decoded), victim.signature),), ())

    def _accusation(self) -> Message:
        return Delta((), (self._claim(0),), urgent=True)

    def _impossible_accusation(self) -> Message:
        return Delta((), (self._claim(2**50),), urgent=True)

    def _claim(self, above: int) -> Claim:
        victim = self._world.rng.choice([node for node in self._world.ids if node != self.node])
        kind = self._world.rng.choice((ClaimKind.SUSPECT, ClaimKind.DEAD))
        incarnation = self._world.nodes[victim].persisted_incarnation + above
        return self._station.member.trust.sign_claim(Claim(kind, victim, incarnation, self.node, 1, UNSIGNED))

    def _own_flood(self) -> Message:
        """Another member's words under the liar's own name are the liar's own record, and no more."""
        victim = self._world.rng.choice(self._world.ids)
        claim = Claim(ClaimKind.DEAD, NodeId(victim), 1, NodeId(victim), 1, UNSIGNED)
        return Delta((), (claim,))

    def _boast(self) -> Message:
        """Its own offer, well signed, of more bytes than there are."""
        self._boasts += 1
        version = 1000 + self._boasts
        offer = an_offer(BOAST_BYTES / GB).as_part(self.node, self._station.persisted_incarnation, version)
        return Delta((self._station.member.trust.sign_part(offer),), ())
