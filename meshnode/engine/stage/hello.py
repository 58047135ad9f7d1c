"""The first words of llama.cpp's RPC protocol: which version a server speaks.

What lives here: `ask_version`. What does not: the rest of the protocol, which only engines speak.

Source: ggml-rpc.cpp, `RPC_CMD_HELLO` (14 for ever): a command byte, the request's size as 8 bytes little-endian, the
request; the answer's size as 8 bytes, then major, minor, patch. Since version 3.7 the request is 24 bytes of
capabilities and the answer is 28 bytes; before, the request was empty.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from proto.engines import RpcVersion

_HELLO: Final = 14
_CAPABILITIES: Final = 24
_MAX_ANSWER: Final = 64


def ask_version(connected: socket.socket) -> RpcVersion | None:
    """The version of the server behind `connected`, a blocking socket with a time-out; None where it does not tell."""
    request = struct.pack("<BQ", _HELLO, _CAPABILITIES) + bytes(_CAPABILITIES)
    try:
        connected.sendall(request)
        (size,) = struct.unpack("<Q", _exactly(connected, 8))
        if not 3 <= size <= _MAX_ANSWER:
            return None
        major, minor, patch = _exactly(connected, size)[:3]
    except (OSError, EOFError):
        return None
    return RpcVersion(major, minor, patch)


def _exactly(connected: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connected.recv(count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found
