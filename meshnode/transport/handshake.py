"""How two nodes come to trust a fresh connection: versions, mesh, key, credential, in both directions.

What lives here: `DialHandshake` and `AcceptHandshake`, sans-IO: a message in, one step out. What does not: QUIC and
frames (`link`), which of two links stays (`link_table`), what a credential or token is worth (`AdmissionGate`).

    dialler                                     acceptor
      | -- TLS: acceptor proves its key ----------> |   (the dialler pins it; done before any of this)
      | -- hello: versions, mesh, node, boot -----> |   no_common_version, wrong_mesh
      | <- challenge: version, nonce, boot -------- |
      | -- proof: signature, chain or token ------> |   bad_proof, bad_credential, removed, the token's own codes,
      |                                             |   identity_in_use, duplicate_link
      | <- welcome: chain, address seen, floor ---- |
      |    bad_credential, removed, identity_in_use |   (now the dialler's to refuse)

The proof signs (context, mesh, dialler, acceptor, nonce, ALPN). The nonce is the acceptor's own and used once, so a
proof cannot be replayed; the acceptor's node id is the one whose key TLS proved to the dialler, so a proof made for one
node is worthless to another: a man in the middle has a key of his own and cannot pass it on. Mesh and chain are checked
before anything else is read, so two meshes can never merge by accident.

Where another process of the dialler's key is linked already, the nonce is made of that one's boot id, so that the
dialler's signature shows it that it has a double (`life`).

A refusal is the last frame of a link. Both sides report it, with both facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from meshnode.transport.life import is_about, nonce_about
from proto import signing
from proto.ids import BootId, MeshId, NodeId, public_key_of, short
from proto.messages import Challenge, Hello, Message, Proof, Refusal, RefusalCode, SignedChallenge, Welcome
from proto.parts import Role
from proto.versions import ProtocolVersion, VersionRange, highest_common, who_must_upgrade

CheckChain = Callable[[NodeId, tuple[bytes, ...]], Refusal | None]


@dataclass(frozen=True, slots=True)
class LocalSide:
    """What this node brings to every handshake. `own_chain` is empty while this node has not been admitted."""

    node: NodeId
    boot_id: BootId
    mesh: MeshId
    software: str
    versions: VersionRange
    sign: Callable[[bytes], bytes]
    own_chain: Callable[[], tuple[bytes, ...]]
    check_chain: CheckChain


@dataclass(frozen=True, slots=True)
class Say:
    """Send `message` and wait for the answer."""

    message: Message


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send `refusal` as the last frame and end the link."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer refused; end the link."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Proved:
    """Acceptor: the dialler holds its key and, unless it redeems a token, a good credential. Judge it (link table,
    gate), then send what `AcceptHandshake.welcome` gives, or a refusal. `own_floor` is the highest incarnation of this
    node that the dialler remembers."""

    peer: NodeId
    boot_id: BootId
    version: ProtocolVersion
    own_floor: int
    token: str | None
    role: Role | None = None
    """What a redeeming dialler asks to be; None takes the token's role."""


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Dialler: the acceptor let this node in and is a good member itself. `issued_chain` came for a token."""

    peer: NodeId
    boot_id: BootId
    version: ProtocolVersion
    own_floor: int
    observed_address: str
    issued_chain: tuple[bytes, ...] | None


DialStep = Say | Refuse | Refused | Welcomed
AcceptStep = Say | Refuse | Refused | Proved


class _Expect(Enum):
    HELLO = "hello"
    CHALLENGE = "challenge"
    PROOF = "proof"
    WELCOME = "welcome"
    NOTHING = "nothing"


class DialHandshake:
    """The dialling side. `peer` is the node whose key TLS proved; `token` is given where this node redeems one, with
    the `role` it asks for (None: the token's); `peer_floor` is the highest incarnation of the peer that this node
    remembers."""

    def __init__(
        self,
        local: LocalSide,
        peer: NodeId,
        *,
        peer_floor: int = 0,
        token: str | None = None,
        role: Role | None = None,
    ) -> None:
        self._local = local
        self._peer = peer
        self._peer_floor = peer_floor
        self._token = token
        self._role = role
        self._expect = _Expect.CHALLENGE
        self._version = local.versions.highest
        self._peer_boot_id = BootId(b"")

    def start(self) -> Hello:
        """The first frame."""
        local = self._local
        return Hello(
            lowest=local.versions.lowest,
            highest=local.versions.highest,
            mesh=local.mesh,
            node=local.node,
            boot_id=local.boot_id,
            software=local.software,
            redeeming=self._token is not None,
        )

    def receive(self, message: Message) -> DialStep:
        """The acceptor's next frame."""
        expected, self._expect = self._expect, _Expect.NOTHING
        match message:
            case Refusal():
                return Refused(message)
            case Challenge() if expected is _Expect.CHALLENGE:
                return self._answer(message)
            case Welcome() if expected is _Expect.WELCOME:
                return self._enter(message)
        return _out_of_turn(message, expected)

    def _answer(self, challenge: Challenge) -> Say | Refuse:
        local = self._local
        version = ProtocolVersion(*challenge.version)
        if is_about(challenge.nonce, local.mesh, local.boot_id):
            text = "this process signs nothing that makes it its own double"
            return _refuse(RefusalCode.PROTOCOL_ERROR, text, "a nonce made of its own boot id", "a random one")
        if not local.versions.lowest <= version <= local.versions.highest:
            text = "the chosen version is none that was offered"
            return _refuse(RefusalCode.PROTOCOL_ERROR, text, str(version), str(local.versions))
        self._version = version
        self._peer_boot_id = BootId(challenge.boot_id)
        signed = local.sign(signing.proof_input(local.mesh, local.node, self._peer, challenge.nonce))
        self._expect = _Expect.WELCOME
        return Say(
            Proof(
                signature=signed,
                chain=None if self._token is not None else local.own_chain(),
                token=self._token,
                incarnation_floor=self._peer_floor,
                role=self._role,
            )
        )

    def _enter(self, welcome: Welcome) -> Refuse | Welcomed:
        refusal = self._local.check_chain(self._peer, welcome.chain)
        if refusal is not None:
            return Refuse(refusal)
        if self._token is not None:
            if welcome.issued_chain is None:
                return _refuse(
                    RefusalCode.PROTOCOL_ERROR, "the welcome to a token carries no credential", "none", "one"
                )
            refusal = self._local.check_chain(self._local.node, welcome.issued_chain)
            if refusal is not None:
                return Refuse(refusal)
        return Welcomed(
            peer=self._peer,
            boot_id=self._peer_boot_id,
            version=self._version,
            own_floor=welcome.incarnation_floor,
            observed_address=welcome.observed_address,
            issued_chain=welcome.issued_chain if self._token is not None else None,
        )


class AcceptHandshake:
    """The accepting side. `nonce` is 32 fresh random bytes, for this handshake only; `running` tells the boot id of the
    process of that key to which a link stands."""

    def __init__(
        self, local: LocalSide, nonce: bytes, running: Callable[[NodeId], BootId | None] = lambda _: None
    ) -> None:
        self._local = local
        self._nonce = nonce
        self._running = running
        self._signed: SignedChallenge | None = None
        self._expect = _Expect.HELLO
        self._claimed: NodeId | None = None
        self._hello: Hello | None = None
        self._version = local.versions.highest

    def receive(self, message: Message) -> AcceptStep:
        """The dialler's next frame."""
        expected, self._expect = self._expect, _Expect.NOTHING
        match message:
            case Refusal():
                return Refused(message)
            case Hello() if expected is _Expect.HELLO:
                return self._challenge(message)
            case Proof() if expected is _Expect.PROOF and self._hello is not None:
                return self._judge(self._hello, message)
        return _out_of_turn(message, expected)

    @property
    def claimed_peer(self) -> NodeId | None:
        """Who the dialler says it is; unproved until `Proved`."""
        return self._claimed

    @property
    def signed(self) -> SignedChallenge | None:
        """What the dialler signed, once that is verified."""
        return self._signed

    def welcome(
        self, *, observed_address: str, peer_floor: int, issued_chain: tuple[bytes, ...] | None = None
    ) -> Welcome:
        """The frame that lets the dialler in. `peer_floor` is the highest incarnation of it that this node knows."""
        return Welcome(
            chain=self._local.own_chain(),
            observed_address=observed_address,
            incarnation_floor=peer_floor,
            issued_chain=issued_chain,
        )

    def _challenge(self, hello: Hello) -> Say | Refuse:
        local = self._local
        self._claimed = NodeId(hello.node)
        theirs = VersionRange(ProtocolVersion(*hello.lowest), ProtocolVersion(*hello.highest))
        version = highest_common(local.versions, theirs)
        if version is None:
            return _refuse_versions(local, NodeId(hello.node), theirs)
        if hello.mesh != local.mesh:
            text = "this node belongs to another mesh"
            return _refuse(RefusalCode.WRONG_MESH, text, short(MeshId(hello.mesh)), short(local.mesh))
        if not local.own_chain():
            return _refuse(RefusalCode.BUSY, "this node has not been admitted to its mesh yet; try again", "", "")
        older = self._running(NodeId(hello.node))
        if older is not None and older != hello.boot_id:
            self._nonce = nonce_about(self._nonce, local.mesh, older)
        self._hello = hello
        self._version = version
        self._expect = _Expect.PROOF
        return Say(Challenge(version=version, nonce=self._nonce, boot_id=local.boot_id))

    def _judge(self, hello: Hello, proof: Proof) -> Refuse | Proved:
        local = self._local
        peer = NodeId(hello.node)
        signed = signing.proof_input(local.mesh, peer, local.node, self._nonce)
        if not signing.verify(public_key_of(peer), proof.signature, signed):
            return _refuse(RefusalCode.BAD_PROOF, "the proof is not this node's over this challenge", short(peer), "")
        self._signed = SignedChallenge(self._nonce, proof.signature)
        if hello.redeeming is not (proof.token is not None) or (proof.token is None) is not (proof.chain is not None):
            text = "a proof carries a credential chain, or the token that its hello announced"
            return _refuse(RefusalCode.PROTOCOL_ERROR, text, _carried(proof), "token" if hello.redeeming else "chain")
        if proof.chain is not None:
            refusal = local.check_chain(peer, proof.chain)
            if refusal is not None:
                return Refuse(refusal)
        return Proved(
            peer=peer,
            boot_id=BootId(hello.boot_id),
            version=self._version,
            own_floor=proof.incarnation_floor,
            token=proof.token,
            role=proof.role,
        )


def _refuse(code: RefusalCode, text: str, found: str, required: str) -> Refuse:
    return Refuse(Refusal(code=code, text=text, found=found, required=required))


def _refuse_versions(local: LocalSide, peer: NodeId, theirs: VersionRange) -> Refuse:
    behind = local.node if who_must_upgrade(local.versions, theirs) == "us" else peer
    text = (
        f"no common protocol version: {short(peer)} speaks {theirs}, {short(local.node)} speaks {local.versions};"
        f" {short(behind)} must upgrade"
    )
    return _refuse(RefusalCode.NO_COMMON_VERSION, text, str(theirs), str(local.versions))


def _out_of_turn(message: Message, expected: _Expect) -> Refuse:
    found = message.__struct_config__.tag
    return _refuse(RefusalCode.PROTOCOL_ERROR, "a handshake frame out of turn", str(found), expected.value)


def _carried(proof: Proof) -> str:
    carried = [name for name, value in (("chain", proof.chain), ("token", proof.token)) if value is not None]
    return " and ".join(carried) or "neither"
