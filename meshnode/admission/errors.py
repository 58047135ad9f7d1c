"""What can be wrong with a wish about membership: one exception per thing the operator can do about it."""

from __future__ import annotations

from collections.abc import Sequence

from meshnode.admission.advice import ADVICE
from proto.ids import MeshId, NodeId, short
from proto.messages import RefusalCode


class AdmissionError(Exception):
    """A wish about membership can't be granted: `text` says why, `advice` what to do."""

    def __init__(self, text: str, advice: str) -> None:
        self.text = text
        self.advice = advice
        super().__init__(f"{text}; {advice}")


class NotAMember(AdmissionError):
    """This node belongs to no mesh (any more)."""


class AlreadyMember(AdmissionError):
    """This node belongs to a mesh and is asked to found or join another. `own` is its mesh, `other` the other one."""

    def __init__(self, own: MeshId, other: MeshId | None) -> None:
        self.own = own
        self.other = other
        wish = "can't found a second one" if other is None else f"the invite is for mesh {short(other)}"
        super().__init__(
            f"{RefusalCode.WRONG_MESH.value}: this node is a member of mesh {short(own)}; {wish}; nothing was changed",
            "leave the first mesh before (meshnode leave), or use another --state-dir",
        )


class UnusableInvite(AdmissionError):
    """An invite is refused before anybody is dialled. `code` is as in a member's refusal."""

    def __init__(self, code: RefusalCode, text: str, found: str = "", required: str = "") -> None:
        self.code = code
        self.found = found
        self.required = required
        super().__init__(f"{code.value}: {text}", ADVICE[code])


class InvalidInvite(AdmissionError):
    """An invite is asked for that can't be made: `field`, what was `found`, what is `expected`."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found}", f"expected {expected}")


class MayNotInvite(AdmissionError):
    """This node's credential does not give the right to let others in, or not with these rights."""


class UnknownInvite(AdmissionError):
    """No invite, or more than one, made here begins with the id given."""


class MayNotRemove(AdmissionError):
    """Only the root key or a node above another may remove it. `above` are the nodes that could."""

    def __init__(self, node: NodeId, above: Sequence[NodeId]) -> None:
        self.node = node
        self.above = tuple(above)
        who = ", ".join(short(one) for one in above)
        where = f"on {who}, or " if above else ""
        super().__init__(
            f"this node can't remove {short(node)}: it is not above it",
            f"run it {where}with the mesh's root key (--root-key FILE)",
        )


class UnknownNode(AdmissionError):
    """A node that no chain is known of."""
