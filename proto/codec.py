"""Messages to bytes and back: frames on the control stream, datagrams, and the bodies of record parts.

What lives here: `encode_*`, `decode_*` and `FrameDecoder`. What does not: reading msgpack (`proto.packing`), the shapes
(`proto.messages`, `proto.parts`), signatures (`proto.signing`). Called by the transport and, for parts and relayed
payloads, by `meshnode.admission` and membership.

A frame is `u32 big-endian length | msgpack map`. The map's first key is `type`, so that a decoder knows the size limit,
and whether it knows the message at all, before it decodes anything else. A type it does not know is skipped whole
(forward compatibility), except on a link that is not authenticated yet.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from proto.errors import WireError
from proto.messages import Message
from proto.packing import pack, unpack
from proto.parts import PART_SHAPES, IdentityPart, NetworkPart, OfferPart, Part, PartKind
from proto.registry import CONTROL_MESSAGES, DATAGRAM_MESSAGES, MAX_DATAGRAM_BYTES, MAX_FRAME_BYTES
from proto.weights import WEIGHTS_MESSAGES

LENGTH_BYTES: Final = 4
MAX_PART_BYTES: Final = 16_384
MAX_TYPE_LENGTH: Final = 64

_LENGTH = struct.Struct(">I")
_TYPE_KEY = b"\xa4type"
_FIXMAP, _FIXMAP_END, _MAP16, _MAP32 = 0x80, 0x90, 0xDE, 0xDF
_FIXSTR, _FIXSTR_END, _STR8 = 0xA0, 0xC0, 0xD9


def _tag(shape: type[Message]) -> str:
    return str(shape.__struct_config__.tag)


_BY_NAME: Final = {_tag(shape): shape for shape in CONTROL_MESSAGES}
_LIMITS: Final = CONTROL_MESSAGES | WEIGHTS_MESSAGES
_IN_TUNNELS: Final = {_tag(shape): shape for shape in WEIGHTS_MESSAGES}
_DATAGRAM_BY_NAME: Final = {_tag(shape): shape for shape in DATAGRAM_MESSAGES}
_KIND_OF: Final[dict[type[IdentityPart] | type[OfferPart] | type[NetworkPart], PartKind]] = {
    shape: kind for kind, shape in PART_SHAPES.items()
}


def encode_message(message: Message) -> bytes:
    """The message's msgpack map without a length. Raises `WireError` where it is larger than its type's limit."""
    return _within(pack(message), message, _LIMITS[type(message)])


def decode_message(data: bytes, allowed: Collection[type[Message]] | None = None) -> Message | None:
    """One message without a length; None for a type this version does not know.

    With `allowed` every other type, known or not, is a `WireError`; only so are those of tunnels read. Raises
    `WireError` for anything malformed.
    """
    name = _type_name(data)
    shape = _BY_NAME.get(name) or (None if allowed is None else _IN_TUNNELS.get(name))
    if allowed is not None and shape not in allowed:
        names = ", ".join(sorted(_tag(one) for one in allowed))
        raise WireError("frame", "type", repr(name), f"one of {names}")
    return None if shape is None else unpack(data, shape, name, _LIMITS[shape])


def encode_frame(message: Message) -> bytes:
    """The message as a frame: 4 bytes of length, big-endian, then its map. Raises `WireError` where it is too large."""
    body = encode_message(message)
    return _LENGTH.pack(len(body)) + body


def encode_datagram(message: Message) -> bytes:
    """A probe as one datagram of at most 1,100 bytes; `WireError` for another message or a larger one."""
    if type(message) not in DATAGRAM_MESSAGES:
        expected = f"one of {', '.join(sorted(_DATAGRAM_BY_NAME))}"
        raise WireError("datagram", "type", repr(_tag(type(message))), expected)
    return _within(pack(message), message, MAX_DATAGRAM_BYTES)


def decode_datagram(data: bytes) -> Message | None:
    """The probe in a datagram; None for a type unknown to this version. `WireError` for anything else."""
    if len(data) > MAX_DATAGRAM_BYTES:
        raise WireError("datagram", "", f"{len(data)} bytes", f"at most {MAX_DATAGRAM_BYTES} bytes")
    name = _type_name(data)
    if (shape := _DATAGRAM_BY_NAME.get(name)) is not None:
        return unpack(data, shape, name, MAX_DATAGRAM_BYTES)
    if name in _BY_NAME:
        raise WireError("datagram", "type", repr(name), f"one of {', '.join(sorted(_DATAGRAM_BY_NAME))}")
    return None


def kind_of(part: Part) -> PartKind:
    """Which of a record's three parts `part` is."""
    return _KIND_OF[type(part)]


def encode_part(part: Part) -> bytes:
    """The body that `proto.signing.sign_part` signs. `WireError` above 16,384 bytes."""
    body = pack(part)
    if len(body) > MAX_PART_BYTES:
        raise WireError(kind_of(part).value, "", f"{len(body)} bytes", f"at most {MAX_PART_BYTES} bytes")
    return body


def decode_part(kind: PartKind, body: bytes) -> Part:
    """The part in a signed envelope's body, checked for shape (not for its signature). `WireError` where it is none."""
    return unpack(body, PART_SHAPES[kind], f"part.{kind.value}", MAX_PART_BYTES)


class FrameDecoder:
    """Takes a stream's bytes as they come and gives back messages.

    `allowed` restricts the types (`HANDSHAKE_MESSAGES` until the link is authenticated; None for all) and may be set at
    any time: it holds for the frames taken after that. `max_frame_bytes` is checked as soon as a frame's length is
    there, so that no more than one frame is ever kept waiting. After a `WireError` the stream is out of step: the
    decoder raises the same error for ever.
    """

    def __init__(
        self, allowed: Collection[type[Message]] | None = None, max_frame_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        self.allowed = allowed
        self.max_frame_bytes = max_frame_bytes
        self._waiting = bytearray()
        self._broken: WireError | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes received that make no complete frame yet, or whose frames have not been taken."""
        return len(self._waiting)

    def feed(self, data: bytes) -> list[Message]:
        """All messages completed by `data`, in order; unknown types are skipped. Raises `WireError`.

        An error hides the messages before it in the same `data`; where these matter, use `push` and `take`.
        """
        self.push(data)
        messages: list[Message] = []
        while (message := self.take()) is not None:
            messages.append(message)
        return messages

    def push(self, data: bytes) -> None:
        """Keep `data` for `take`."""
        self._waiting += data

    def take(self) -> Message | None:
        """The next complete message of a known type; None where more bytes are needed. Raises `WireError`."""
        if self._broken is not None:
            raise self._broken
        try:
            return self._next()
        except WireError as error:
            self._broken = error
            self._waiting.clear()
            raise

    def _next(self) -> Message | None:
        while len(self._waiting) >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(self._waiting)
            if not 0 < length <= self.max_frame_bytes:
                raise WireError("frame", "length", f"{length} bytes", f"1 to {self.max_frame_bytes} bytes")
            end = LENGTH_BYTES + length
            if len(self._waiting) < end:
                return None
            body = bytes(self._waiting[LENGTH_BYTES:end])
            del self._waiting[:end]
            if (message := decode_message(body, self.allowed)) is not None:
                return message
        return None


def _within(data: bytes, message: Message, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise WireError(_tag(type(message)), "", f"{len(data)} bytes", f"at most {max_bytes} bytes")
    return data


def _type_name(data: bytes) -> str:
    """The value of the first key, which must be `type`, read without decoding the rest."""
    start = _after_map_header(data)
    if start == 0 or data[start : start + len(_TYPE_KEY)] != _TYPE_KEY:
        raise WireError("frame", "type", "no `type` as its first key", "a msgpack map that begins with `type`")
    at = start + len(_TYPE_KEY)
    head = data[at] if at < len(data) else -1
    if _FIXSTR <= head < _FIXSTR_END:
        at, length = at + 1, head - _FIXSTR
    elif head == _STR8 and at + 1 < len(data):
        at, length = at + 2, data[at + 1]
    else:
        raise WireError("frame", "type", "no short text", f"a text of at most {MAX_TYPE_LENGTH} characters")
    name = data[at : at + length]
    if len(name) != length or not 0 < length <= MAX_TYPE_LENGTH or not name.isascii():
        raise WireError("frame", "type", f"{len(name)} bytes", f"1 to {MAX_TYPE_LENGTH} ASCII characters")
    return name.decode("ascii")


def _after_map_header(data: bytes) -> int:
    head = data[0] if data else -1
    if _FIXMAP < head < _FIXMAP_END:
        return 1
    return {_MAP16: 3, _MAP32: 5}.get(head, 0)
