"""One membership machine alone with its clock, for unit tests: the test is the network and every other node.

`Lone` holds the machine, carries out nothing, and keeps the effects. `Lone.meets(name)` makes another member, links it
and hands over its record; what that member says later is signed by the simulator's oracle, as everything here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TypeVar

from meshnode.events import Event
from meshnode.membership.effects import CloseLink, Dial, Effect, Emit, Send, SendDatagram
from meshnode.membership.local import LocalNode
from meshnode.membership.machine import Membership
from meshnode.membership.settings import LAN, MembershipSettings
from meshnode.membership.trust import UNSIGNED, Trust
from meshnode.membership.view import LinkFacts, PathKind
from meshnode.simulation.oracle import Oracle
from proto.ids import BootId, NodeId, mesh_id_of, node_id_of, short_id_of
from proto.messages import Ack, Claim, ClaimKind, Delta, Message, Ping
from proto.parts import IdentityPart, NetworkPart, Role, RttEntry, SignedPart

QUIET = replace(LAN, timer_slack_s=0.0)
E = TypeVar("E", bound=Event)
M = TypeVar("M", bound=Message)


@dataclass
class Other:
    """Another member, played by the test."""

    node: NodeId
    trust: Trust
    address: str
    boot_id: BootId
    incarnation: int = 1
    version: int = 0

    def identity(self, *, left: bool = False) -> SignedPart:
        """What it says of itself now, newer than what it said before."""
        self.version += 1
        part = IdentityPart(
            node=self.node, incarnation=self.incarnation, version=self.version, boot_id=self.boot_id, chain=(b"chain",),
            addresses=(self.address,), features=(), stage_protocol_generation=1, software="test", name="", engine=None,
            left=left,
        )  # fmt: skip
        return self.trust.sign_part(part)

    def network(self, **rtt_ms: tuple[Other, float]) -> SignedPart:
        """Its network part, with what it says of its links: `name=(other, ms)` each."""
        self.version += 1
        row = tuple(
            RttEntry(short_id_of(other.node), round(1e3 * ms), round(1e3 * ms), 5, False)
            for other, ms in rtt_ms.values()
        )
        return self.trust.sign_part(NetworkPart(self.node, self.incarnation, self.version, row, None))

    def claims(self, subject: NodeId, incarnation: int, kind: ClaimKind = ClaimKind.SUSPECT) -> Claim:
        """Its signed word about another node."""
        return self.trust.sign_claim(Claim(kind, subject, incarnation, self.node, self.incarnation, UNSIGNED))


class Lone:
    """The machine of one node, and what it wants done."""

    """`oracle` of another one puts both into one mesh."""

    def __init__(self, settings: MembershipSettings = QUIET, seed: int = 1, oracle: Oracle | None = None) -> None:
        self._rng = random.Random(seed)
        self.oracle = oracle or Oracle()
        self.now_s = 1000.0
        self.effects: list[Effect] = []
        self.node = node_id_of(self._rng.randbytes(32))
        self._trust = self.oracle.trust_of(self.node, Role.WORKER)
        self._settings = settings
        self._local = LocalNode(
            node=self.node, mesh=mesh_id_of(self._rng.randbytes(32)), role=Role.WORKER,
            boot_id=BootId(self._rng.randbytes(16)), incarnation=1, chain=(b"chain",), addresses=("10.0.0.1:4411",),
        )  # fmt: skip
        self.machine = Membership(self._local, settings, self._trust, random.Random(seed), self.now_s)

    def restarts(self) -> None:
        """Another process of this node: nothing is known and nobody linked."""
        again = replace(self._local, boot_id=BootId(self._rng.randbytes(16)), incarnation=self._local.incarnation + 1)
        self._local = again
        seed = self._rng.getrandbits(64)
        self.machine = Membership(again, self._settings, self._trust, random.Random(seed), self.now_s)
        self.effects.clear()

    def other(self) -> Other:
        """A member that this node has not heard of."""
        node = node_id_of(self._rng.randbytes(32))
        address = f"10.0.1.{len(self.oracle.roles)}:4411"
        return Other(node, self.oracle.trust_of(node, Role.WORKER), address, BootId(self._rng.randbytes(16)))

    def itself(self) -> Other:
        """Another process with this node's key."""
        trust = self.oracle.trust_of(self.node, Role.WORKER)
        return Other(self.node, trust, "10.0.9.9:4411", BootId(self._rng.randbytes(16)))

    def meets(self, *, linked: bool = True, via: Other | None = None) -> Other:
        """A member this node knows: over its own link, or from what `via` passed on."""
        other = self.other()
        if linked:
            self.link(other)
        self.hears(via or other, other.identity())
        return other

    def link(self, other: Other, floor: int = 0) -> None:
        """A link to `other`, which holds `floor` as what this node must exceed."""
        facts = LinkFacts(PathKind.DIRECT, other.address, dialled_by_us=True, up_since_s=self.now_s)
        self.effects += self.machine.link_up(other.node, facts, floor, self.now_s)

    def hears(self, via: Other, *said: SignedPart | Claim) -> None:
        """`via` sends these parts and claims over its link."""
        parts = tuple(one for one in said if isinstance(one, SignedPart))
        claims = tuple(one for one in said if isinstance(one, Claim))
        self.receives(via, Delta(parts, claims))

    def receives(self, via: Other, message: Message) -> None:
        self.effects += self.machine.receive(via.node, message, self.now_s, self.now_s)

    def passes(self, duration_s: float, *answering: Other) -> None:
        """Time passes; `answering` members answer every ping at once, the others say nothing."""
        until_s = self.now_s + duration_s
        nodes = {other.node: other for other in answering}
        while True:
            due_s = self.machine.next_wakeup()
            if due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            effects = self.machine.poll(self.now_s)
            while effects:
                self.effects += effects
                effects = [more for effect in effects for more in self._answered(effect, nodes)]
        self.now_s = until_s

    def _answered(self, effect: Effect, nodes: dict[NodeId, Other]) -> list[Effect]:
        if not isinstance(effect, Send | SendDatagram) or not isinstance(effect.message, Ping):
            return []
        other = nodes.get(effect.peer)
        if other is None:
            return []
        ack = Ack(effect.message.nonce, other.incarnation, 0, False, None)
        return self.machine.receive_datagram(other.node, ack, self.now_s + 0.0005, self.now_s + 0.0005)

    # --- what it did ---

    def events(self, kind: type[E]) -> list[E]:
        """The events of this type, in order."""
        return [one.event for one in self.effects if isinstance(one, Emit) and isinstance(one.event, kind)]

    def sent(self, kind: type[M], to: Other | None = None) -> list[M]:
        """The messages of this type, to anybody or to one."""
        return [
            one.message
            for one in self.effects
            if isinstance(one, Send | SendDatagram)
            and isinstance(one.message, kind)
            and (to is None or one.peer == to.node)
        ]

    def dialled(self) -> list[NodeId]:
        return [one.peer for one in self.effects if isinstance(one, Dial)]

    def closed(self) -> list[NodeId]:
        return [one.peer for one in self.effects if isinstance(one, CloseLink)]

    def forget_effects(self) -> None:
        """Looks only at what comes from now on."""
        self.effects.clear()
