"""What a node checks of an invite before it dials anybody.

What lives here: `invite_to_join` and, for the end of the way, `take_membership`. What does not: dialling and proving
(the transport), what the member then checks (`meshnode.admission.redeeming`). Called by `meshnode run --join`. The
expiry is left to the member's clock: this one may be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from meshnode.admission.errors import AlreadyMember, UnusableInvite
from meshnode.identity import Identity
from meshnode.state import StateDirectory
from proto.credential import read_chain
from proto.errors import WireError
from proto.ids import MeshId, NodeId, short
from proto.messages import RefusalCode
from proto.token import ForgedToken, InviteToken, parse_token


def invite_to_join(text: str, own_node: NodeId, member_of: MeshId | None) -> InviteToken:
    """The invite in `text`, fit to be redeemed by this node, which is a member of `member_of` or of nothing yet.

    Raises `UnusableInvite` (`malformed`, `names_self`) or `AlreadyMember` where it is for another mesh. An invite of
    the mesh this node is in already is fine: whether to redeem it again is the caller's choice.
    """
    token = parsed_invite(text)
    if own_node in [member.node for member in token.members]:
        found = f"node {short(own_node)}"
        raise UnusableInvite(RefusalCode.NAMES_SELF, "the invite points at this very node", found, "another node")
    if member_of is not None and token.mesh != member_of:
        raise AlreadyMember(member_of, token.mesh)
    return token


def take_membership(state: StateDirectory, identity: Identity, mesh: MeshId, chain: Sequence[bytes]) -> None:
    """Keep the chain a member issued for this node, durably: from now on no token is needed. Raises `BadCredential`
    where it does not prove this node in `mesh` (a member that answers so is not what it says), `StateError`."""
    lineage = read_chain(chain, mesh, identity.node)
    state.save_credential(mesh, lineage.chain)


def parsed_invite(text: str) -> InviteToken:
    """The token in `text`. Raises `UnusableInvite` with `malformed`, saying whether it is mangled or forged."""
    try:
        return parse_token(text)
    except ForgedToken as error:
        sentence = "the invite is whole but was not signed by the member it names: it is forged"
        raise UnusableInvite(RefusalCode.MALFORMED, sentence, error.found, error.expected) from error
    except WireError as error:
        sentence = "the invite is damaged or incomplete"
        raise UnusableInvite(RefusalCode.MALFORMED, sentence, error.found, error.expected) from error
