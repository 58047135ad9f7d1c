"""One HTTP/1.1 request over a byte stream: a Unix socket to a model's process, or a tunnel to the node that runs it.

What lives here: `ask`, `whole_body`. What does not: which stream (`meshnode.engine.api.gateway`). h11 speaks the
protocol; a connection carries one request, because both kinds of stream are cheap to open and a broken one then breaks
one answer only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream

READ_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
Headers = Sequence[tuple[bytes, bytes]]


class AnswerBroken(Exception):
    """The other side ended or broke HTTP before its answer was complete."""


@dataclass(frozen=True)
class Answer:
    """The head of an answer, and its body as it comes. Reading the body raises `AnswerBroken`."""

    status: int
    headers: dict[bytes, bytes]
    body: AsyncIterator[bytes]


async def ask(stream: ByteStream, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
    """Send the request and return once the answer's head is there. Raises `AnswerBroken`. The caller closes `stream`,
    and reads the body before."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    head = [(b"host", b"meshnode"), (b"content-length", b"%d" % len(body)), (b"connection", b"close"), *headers]
    try:
        await stream.send(
            (connection.send(h11.Request(method=method, target=path, headers=head)) or b"")
            + (connection.send(h11.Data(data=body)) or b"" if body else b"")
            + (connection.send(h11.EndOfMessage()) or b"")
        )
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise AnswerBroken("the connection broke before the request was sent") from error
    while True:
        event = await _next_event(connection, stream)
        if isinstance(event, h11.Response):
            return Answer(event.status_code, dict(event.headers), _body(connection, stream))
        if not isinstance(event, h11.InformationalResponse):
            raise AnswerBroken("it ended before it answered")


async def whole_body(answer: Answer, most_bytes: int) -> bytes:
    """All of an answer's body. Raises `AnswerBroken`, also where it is longer than `most_bytes`."""
    body = bytearray()
    async for piece in answer.body:
        body += piece
        if len(body) > most_bytes:
            raise AnswerBroken(f"its answer is over {most_bytes} bytes")
    return bytes(body)


async def _body(connection: h11.Connection, stream: ByteStream) -> AsyncIterator[bytes]:
    while True:
        event = await _next_event(connection, stream)
        if isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        else:
            raise AnswerBroken("it ended in the middle of its answer")


async def _next_event(connection: h11.Connection, stream: ByteStream) -> object:
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            try:
                connection.receive_data(await stream.receive(READ_BYTES))
            except anyio.EndOfStream:
                connection.receive_data(b"")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, h11.RemoteProtocolError) as error:
        raise AnswerBroken(f"it broke off: {error or type(error).__name__}"[:200]) from error
    return event
