"""This node as a member of its mesh: letting others in, removing them, and noticing what became of itself.

What lives here: `Admission`, which ties the rooms beside it together over one state directory. What does not: links
(the transport asks through `meshnode.admission.gate`), records (`meshnode.admission.trust`), which sockets close after
a removal (the daemon). Called by the daemon only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from meshnode.admission.approving import ApprovalDesk
from meshnode.admission.errors import AdmissionError, MayNotInvite, NotAMember, UnknownInvite
from meshnode.admission.invite_book import Invite, InviteBook, InvitesFile
from meshnode.admission.inviting import InviteRequest, MadeInvite, PinnedAddresses, make_invite
from meshnode.admission.issuing import Issuer
from meshnode.admission.redeeming import Admitted, Redeemer, Refused
from meshnode.admission.removing import RemovalPlan, plan_removal, sign_removal
from meshnode.admission.revocation_store import FIX, Learned, RevocationsFile, RevocationStore
from meshnode.admission.roll import MemberRoll
from meshnode.durable import DamagedState
from meshnode.identity import Identity, SigningKey
from meshnode.state import StateDirectory
from proto.credential import BadCredential, BadCredentialReason, Lineage, Standing, read_chain, standing_of
from proto.ids import MeshId, NodeId, mesh_id_of, short
from proto.messages import Refusal, RefusalCode, Revocations
from proto.parts import Role
from proto.revocation import sign_revocation

_INVITES_FIX = "delete it: invites that are still open become void, make new ones"


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal that was carried out here: the revocations to push to everybody, who lost membership, who was kept."""

    entries: tuple[bytes, ...]
    removed: tuple[NodeId, ...]
    kept: tuple[NodeId, ...]
    learned: Learned


@dataclass(frozen=True, slots=True)
class RevokedInvite:
    """An invite nobody can use any more. `entries` go to everybody: other members redeem unlimited ones."""

    invite: Invite
    entries: tuple[bytes, ...]


class Admission:
    """Everything about membership that this node decides, keeps and says. Wall-clock times are whole seconds UTC."""

    def __init__(
        self, state: StateDirectory, identity: Identity, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Take up the membership in `state`. Raises `NotAMember` where there is none, `StateError` where a file is
        damaged. Members known from earlier are on the roll at once."""
        stored = state.credential()
        if stored is None:
            raise NotAMember("this node belongs to no mesh yet", "found one (meshnode init) or join (--join TOKEN)")
        self.mesh = MeshId(stored.mesh)
        self.identity = identity
        self._state = state
        self._random_bytes = random_bytes
        self._own = self._own_lineage(stored.chain)
        self._root = self._root_key()
        self._store = RevocationStore(state.file("revocations.json", RevocationsFile, FIX), self.mesh)
        self._book = InviteBook(state.file("invites.json", InvitesFile, _INVITES_FIX))
        self.roll = MemberRoll(self.mesh, self._store.revoked)
        self._redeemer = Redeemer(identity.node, self.roll, self._book)
        self.desk = ApprovalDesk(identity.node, self.mesh, random_bytes)
        self._call_roll()

    # --- what this node is

    @property
    def chain(self) -> tuple[bytes, ...]:
        """This node's credential chain, the root's entry first."""
        return self._own.chain

    @property
    def keeps_root(self) -> bool:
        """True where the mesh's root key lies in this node's state directory."""
        return self._root is not None

    def standing(self, now_unix_s: int) -> Standing:
        """What this node's own chain proves now. Raises `BadCredential` where it was removed or has expired."""
        return standing_of(self._own, now_unix_s, self.roll.revoked)

    def adopt(self, chain: Sequence[bytes]) -> None:
        """Hold `chain` from now on, durably. Raises `BadCredential` where it does not prove this node."""
        lineage = read_chain(chain, self.mesh, self.identity.node)
        self._state.save_credential(self.mesh, lineage.chain)
        self._own = lineage
        self.roll.recall(lineage.node, lineage.chain)

    # --- invites

    def invite(self, request: InviteRequest, members: PinnedAddresses, now_unix_s: int) -> MadeInvite:
        """Make an invite and remember it. `members` are this node first, then others that are online and may invite,
        with their addresses. Raises `MayNotInvite`, `InvalidInvite`, `BookFull`, `StateError`."""
        issuer = self._issuer(now_unix_s)
        able = [(node, addresses) for node, addresses in members if self._may_be_pinned(node, now_unix_s)]
        made = make_invite(
            request,
            able,
            key=self.identity,
            own=self._own,
            issuer=issuer,
            now_unix_s=now_unix_s,
            random_bytes=self._random_bytes,
        )
        self._book.add(made.invite, now_unix_s)
        return made

    def invites(self) -> tuple[Invite, ...]:
        """All invites made here, the newest first."""
        return self._book.invites()

    def redeem(
        self,
        token_text: str,
        joiner: NodeId,
        source_address: str,
        now_unix_s: int,
        now_s: float,
        wanted: Role | None = None,
    ) -> Admitted | Refused:
        """Let `joiner`, whose key was proved, in by a token, or say why not (see `meshnode.admission.redeeming`)."""
        try:
            issuer = self._issuer(now_unix_s)
        except MayNotInvite as error:
            return Refused(RefusalCode.ROLE_NOT_ALLOWED, error.text)
        return self._redeemer.redeem(
            token_text, joiner, source_address, now_unix_s, now_s, issuer=issuer, wanted=wanted
        )

    # --- approval, in place of an invite

    def require_may_invite(self, now_unix_s: int) -> None:
        """Raises `MayNotInvite` where this node can let nobody in."""
        self._issuer(now_unix_s)

    def approve(self, joiner: NodeId, role: Role, now_unix_s: int) -> tuple[bytes, ...] | Refusal:
        """A chain for `joiner`, whose key was proved and whom the operator let in; or why there is none."""
        try:
            issuer = self._issuer(now_unix_s)
        except MayNotInvite as error:
            return Refusal(RefusalCode.ROLE_NOT_ALLOWED, error.text)
        if (obstacle := issuer.obstacle(joiner, role)) is not None:
            return Refusal(RefusalCode.ROLE_NOT_ALLOWED, "this member can't let it in", obstacle)
        above = () if issuer.lineage is None else issuer.lineage.nodes
        if self.roll.revoked.cut_in((*above, joiner)) is not None:
            return Refusal(RefusalCode.REMOVED, "this node was removed from the mesh", short(joiner))
        return issuer.issue(
            joiner, role, may_invite=False, now_unix_s=now_unix_s, expires_at_unix_s=None, token_id=None
        )

    def revoke_invite(self, token_id_start: str, now_unix_s: int) -> RevokedInvite:
        """Void the invite whose id, in hexadecimal, begins so. Raises `UnknownInvite`, `StateError`."""
        invite = self._book.revoke(self._invite_named(token_id_start).token_id)
        return RevokedInvite(invite, self._revocation_of(invite, now_unix_s) if invite.uses is None else ())

    # --- removal

    def plan_removal(self, node: NodeId, now_unix_s: int, root: SigningKey | None = None) -> RemovalPlan:
        """What removing `node` would do, signed by `root` (an exported key), the root key kept here, or this node.
        Raises `MayNotRemove`, `UnknownNode`, `AdmissionError` for this node itself."""
        if node == self.identity.node:
            raise AdmissionError("this is the node the command runs on", "to leave the mesh, use meshnode leave there")
        issuers = [Issuer(key, self.mesh, None) for key in (root, self._root) if key is not None]
        try:
            self.standing(now_unix_s)
        except BadCredential:
            return plan_removal(node, self.roll, issuers)
        return plan_removal(node, self.roll, [*issuers, Issuer(self.identity, self.mesh, self._own)])

    def remove(self, plan: RemovalPlan, keep: Sequence[NodeId], now_unix_s: int) -> Removal:
        """Carry `plan` out, keeping the descendants in `keep`. Raises `UnknownNode` for one that is none."""
        entries = sign_removal(plan, keep, self.roll, now_unix_s)
        learned = self.learn(entries, now_unix_s)
        lost = tuple(node for node in plan.descendants if node not in keep)
        return Removal(entries, (plan.node, *lost), tuple(dict.fromkeys(keep)), learned)

    def learn(self, entries: Sequence[bytes], now_unix_s: int) -> Learned:
        """Take in revocations, own or a peer's. Where one cuts this node's chain and carries a new credential for it,
        that is adopted (`Learned.adopted`). The caller passes `Learned.new` on and closes what belongs to nodes that
        are cut now."""
        learned = self._store.learn(entries)
        if self.roll.revoked.cut_in(self._own.nodes) is None:
            return learned
        kept = self.roll.kept_lineage(self.identity.node, now_unix_s)
        if kept is None:
            return learned
        self.adopt(kept.chain)
        return replace(learned, adopted=True)

    def revocation_frames(self) -> Iterator[Revocations]:
        """What opens every link: all revocations known, in one or more frames."""
        return self._store.frames()

    # --- below

    def _issuer(self, now_unix_s: int) -> Issuer:
        try:
            standing = self.standing(now_unix_s)
        except BadCredential as error:
            what = "was removed" if error.reason is BadCredentialReason.REVOKED else "has no valid credential any more"
            raise MayNotInvite(f"this member {what} and lets nobody in", "ask another member") from error
        if self._root is not None:
            return Issuer(self._root, self.mesh, None)
        if not standing.may_invite:
            raise MayNotInvite("this member may not invite", "ask one whose invite had --may-invite")
        return Issuer(self.identity, self.mesh, self._own)

    def _may_be_pinned(self, node: NodeId, now_unix_s: int) -> bool:
        if node == self.identity.node:
            return True
        standing = self.roll.standing(node, now_unix_s)
        return standing is not None and standing.may_invite

    def _invite_named(self, start: str) -> Invite:
        found = [one for one in self._book.invites() if one.token_id.hex().startswith(start.lower())]
        if len(found) != 1 or not start:
            how_many = "no invite" if not found else f"{len(found)} invites"
            problem = f"{how_many} made here with an id that begins with {start[:64]!r}"
            raise UnknownInvite(problem, "see meshnode invites for their ids")
        return found[0]

    def _revocation_of(self, invite: Invite, now_unix_s: int) -> tuple[bytes, ...]:
        entry = sign_revocation(
            self.identity,
            self.mesh,
            None,
            chain=self._own.chain,
            made_at_unix_s=now_unix_s,
            token_ids=(invite.token_id,),
        )
        return self.learn((entry,), now_unix_s).new

    def _own_lineage(self, chain: Sequence[bytes]) -> Lineage:
        try:
            return read_chain(chain, self.mesh, self.identity.node)
        except BadCredential as error:
            fix = "if node.key was replaced, restore the old one; else delete it and join again with a new invite"
            raise DamagedState(self._state.path / "credential.json", f"not this node's ({error})", fix) from error

    def _root_key(self) -> SigningKey | None:
        root = self._state.root_key()
        if root is not None and mesh_id_of(root.public_key) != self.mesh:
            found = "holds the root key of another mesh than credential.json"
            raise DamagedState(self._state.path / "root.key", found, "move it away")
        return root

    def _call_roll(self) -> None:
        """This node itself, and whom it knew when it last ran."""
        self.roll.recall(self.identity.node, self.chain)
        for peer in self._state.known_peers():
            self.roll.recall(NodeId(peer.node), peer.chain)
