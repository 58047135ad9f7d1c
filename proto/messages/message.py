"""What every message is made from, and the fields that messages of several stages share.

What lives here: `Message`. What does not: the messages, by stage of a node's life in the modules beside this one, and
the fields that records have too (`proto.shapes`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

WireProbeNonce = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Message(Struct, frozen=True, tag_field="type", forbid_unknown_fields=False):
    """What every message is made from; the subclass's tag is its name on the wire."""
