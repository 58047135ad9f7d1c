"""The one error of everything that was read from a peer, a token or a stored credential.

What lives here: `WireError`. What does not: refusals that are said to a peer (`proto.messages.Refusal`) and a
credential's own reasons (`proto.credential.BadCredential`). Raised by every decoder of this package.
"""

from __future__ import annotations

from typing import Final

_MAX_SHOWN: Final = 200


class WireError(ValueError):
    """Bytes broke a rule of the wire.

    `message` names the thing that was read (`hello`, `frame`, `credential`, ...), `field` the place inside it (empty
    for the whole), `found` what stood there and `expected` what would be right. `found` describes long texts and bytes
    by their length and never repeats a secret.
    """

    def __init__(self, message: str, field: str, found: str, expected: str) -> None:
        self.message = message
        self.field = field
        self.found = found[:_MAX_SHOWN]
        self.expected = expected[:_MAX_SHOWN]
        place = f"{message}.{field}" if field else message
        super().__init__(f"{place}: found {self.found}, expected {self.expected}")
