"""What was ever signed in one simulated mesh: the rules ask it whether an accepted part is its owner's word.

What lives here: `Issued`, filled by whoever signs (`oracle`, `keys`). What does not: signatures.
"""

from __future__ import annotations

from proto.codec import kind_of
from proto.parts import Part, SignedPart


class Issued:
    """Every part that its owner signed, by owner, the part's name, incarnation and version."""

    def __init__(self) -> None:
        self._envelopes: dict[tuple[str, str, int, int], SignedPart] = {}

    def note(self, part: Part, signed: SignedPart) -> None:
        """`part`'s owner signed it into this envelope."""
        self._envelopes[(part.node, kind_of(part).value, part.incarnation, part.version)] = signed

    def was_issued(self, node: str, part: str, incarnation: int, version: int) -> bool:
        """True where `node` itself signed such a part (`part` is a `PartKind`'s value)."""
        return (node, part, incarnation, version) in self._envelopes

    def envelope_of(self, part: Part) -> SignedPart:
        """The envelope `part` was signed in. Raises `KeyError` where nobody signed it."""
        return self._envelopes[(part.node, kind_of(part).value, part.incarnation, part.version)]
