"""Messages and tensors' bytes over one blocking socket: both ends of a tunnel for weights, in child processes.

What lives here: `Talk`. What does not: what is said (`proto.weights`), and by whom
(`meshnode.engine.weights.source_process`, `meshnode.engine.weights.fetch_process`). The socket leads to the node, which
joins it to the tunnel.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from typing import BinaryIO, Final

from proto.codec import LENGTH_BYTES, decode_message, encode_frame
from proto.errors import WireError
from proto.messages import Message
from proto.weights import WEIGHTS_MESSAGES

PIECE_BYTES: Final = 2**20
STALL_S: Final = 60.0
"""A peer that takes or gives no byte for so long is gone, or might as well be."""
THINKING_S: Final = 600.0
"""Between messages the other side may be hashing or writing a tensor."""
_LENGTH: Final = struct.Struct(">I")
_LARGEST: Final = max(WEIGHTS_MESSAGES.values())


class TalkBroken(Exception):
    """The other side is gone, or silent for too long: worth another try."""


class Talk:
    """One side of a conversation. Everything raises `TalkBroken`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def say(self, message: Message) -> None:
        """One message."""
        self._end.settimeout(STALL_S)
        try:
            self._end.sendall(encode_frame(message))
        except OSError as error:
            raise _broken(error) from error

    def hear(self, allowed: Collection[type[Message]]) -> Message | None:
        """The next message; None where the other side has ended. Raises `WireError` for what is none of `allowed`."""
        head = self._exactly(LENGTH_BYTES, THINKING_S, may_end=True)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if not 0 < length <= _LARGEST:
            raise WireError("frame", "length", f"{length} bytes", f"1 to {_LARGEST} bytes")
        body = self._exactly(length, STALL_S)
        assert body is not None, "an end inside is broken"
        return decode_message(body, allowed)

    def give(self, file: BinaryIO, offset: int, count: int) -> None:
        """`count` bytes of `file` from `offset` on. Raises `OSError` where the file has fewer."""
        self._end.settimeout(STALL_S)
        try:
            sent = self._end.sendfile(file, offset, count)
        except (TimeoutError, ConnectionError) as error:
            raise _broken(error) from error
        if sent != count:
            raise OSError(f"{file.name} ended {count - sent} bytes too early")

    def take(self, room: memoryview) -> int:
        """At least one byte of a tensor into `room`; how many."""
        self._end.settimeout(STALL_S)
        try:
            count = self._end.recv_into(room)
        except OSError as error:
            raise _broken(error) from error
        if count == 0:
            raise TalkBroken("the other side ended in the middle of a tensor")
        return count

    def _exactly(self, count: int, patience_s: float, *, may_end: bool = False) -> bytes | None:
        """That many bytes; None for an end before the first of them where it `may_end`."""
        self._end.settimeout(patience_s)
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._end.recv(count - len(data))
            except OSError as error:
                raise _broken(error) from error
            if not piece:
                if may_end and not data:
                    return None
                raise TalkBroken("the other side ended in the middle of a message")
            data += piece
        return bytes(data)


def _broken(error: OSError) -> TalkBroken:
    if isinstance(error, TimeoutError):
        return TalkBroken("the other side was silent for too long")
    return TalkBroken(error.strerror or str(error))
