"""A real QUIC server that completes every handshake and then never says a word, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from meshnode.identity import Identity
from proto.versions import ALPN


@contextmanager
def mute_server(identity: Identity) -> Iterator[str]:
    """Its address; it proves the key of `identity`."""
    configuration = QuicConfiguration(alpn_protocols=[ALPN], is_client=False, max_datagram_frame_size=65_536)
    configuration.certificate = identity.certificate
    configuration.private_key = identity.private_key
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(serve("127.0.0.1", 0, configuration=configuration))
    assert server._transport is not None
    host, port = server._transport.get_extra_info("sockname")[:2]
    thread = threading.Thread(target=loop.run_forever, name="mute-server")
    thread.start()
    try:
        yield f"{host}:{port}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
