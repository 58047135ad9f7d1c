"""A mesh of members without a network: each has its own state directory, and a token or a revocation is handed over by
the test. The clocks stand still unless a test moves them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from making_members import NOW_UNIX_S

from meshnode.admission import Admission, Admitted, InviteRequest, MadeInvite, Refused, found_mesh, take_membership
from meshnode.identity import Identity
from meshnode.state import StateDirectory
from proto.ids import NodeId
from proto.parts import Role

ADDRESS = "10.0.0.9:4411"


class MeshOfMembers:
    """`founder` is its first member; `joins` lets others in."""

    def __init__(
        self, directory: Path, stack: ExitStack, export_root: Path | None = None, role: Role = Role.WORKER
    ) -> None:
        self.directory = directory
        self.stack = stack
        self.now_unix_s = NOW_UNIX_S
        self.now_s = 0.0
        self._states: dict[str, StateDirectory] = {}
        founder = self.state("founder")
        found_mesh(founder, founder.identity(), NOW_UNIX_S, role=role, export_root=export_root)
        self.founder = self.member("founder")

    def state(self, name: str) -> StateDirectory:
        """The open state directory of `name`."""
        if name not in self._states:
            self._states[name] = self.stack.enter_context(StateDirectory.open(self.directory / name))
        return self._states[name]

    def identity(self, name: str) -> Identity:
        return self.state(name).identity()

    def member(self, name: str) -> Admission:
        """The member `name` as it starts from its state directory now."""
        return Admission(self.state(name), self.identity(name))

    def invite(self, inviter: Admission, others: tuple[Admission, ...] = (), **wishes: Any) -> MadeInvite:
        members = [(one.identity.node, ("10.0.0.1:4411",)) for one in (inviter, *others)]
        return inviter.invite(InviteRequest(**wishes), members, self.now_unix_s)

    def redeem(
        self, member: Admission, token: str, joiner: NodeId, *, address: str = ADDRESS, wanted: Role | None = None
    ) -> Admitted | Refused:
        return member.redeem(token, joiner, address, self.now_unix_s, self.now_s, wanted)

    def joins(self, name: str, inviter: Admission, **wishes: Any) -> Admission:
        """`name` joins through `inviter` and is a member from then on, known to everybody it met."""
        identity = self.identity(name)
        answer = self.redeem(inviter, self.invite(inviter, **wishes).text, identity.node)
        assert isinstance(answer, Admitted), answer
        take_membership(self.state(name), identity, inviter.mesh, answer.chain)
        member = self.member(name)
        self.introduce(inviter, member)
        return member

    def introduce(self, *members: Admission) -> None:
        """Each of `members` has seen the chain of each other."""
        for one in members:
            for other in members:
                one.roll.admit(other.identity.node, other.chain, self.now_unix_s)
