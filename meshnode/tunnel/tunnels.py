"""The tunnels of one node.

What lives here: `Tunnels`, which joins the two sides, the carriers and the count of what is open. What does not: how
bytes travel (`tcp`, `relayed`, `meshnode.transport.streams`), what is at the ends (the engine, the API's gateway), who
is a member (a path is authenticated before anything is heard on it).

    opener                                        acceptor
      | -- tunnel_request: purpose, fence, key ---> |   offered? admitted? not too many?
      | <- tunnel_answer: carrier, ticket, port --- |   or the refusal
      | == TCP: pin, ticket ======================> |   the ticket is good once; admitted still?
      |    or a stream of the link, ticket first    |
      |    or sealed pieces, no ticket (`relayed`)  |

The acceptor chooses the carrier: where there is a direct link, TCP if the opener wants it and this node listens, else a
stream; where there is none, a neighbour's. Where TCP does not come about, the opener asks once more, for a stream, and
leaves TCP to that peer alone for a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from meshnode.events import Event, TunnelDenied, TunnelsListening
from meshnode.transport.addresses import SocketName, format_address
from meshnode.transport.boundary import LocalIdentity
from meshnode.transport.clock import boottime_s
from meshnode.transport.streams import LinkStream
from meshnode.tunnel.asking import Asking
from meshnode.tunnel.granting import Admit, Granting, Handler
from meshnode.tunnel.ledger import Ledger
from meshnode.tunnel.opening import (
    Carrier,
    Opening,
    Purpose,
    TunnelError,
    TunnelRefusal,
    TunnelRefused,
    TunnelUnavailable,
)
from meshnode.tunnel.ports import TunnelPaths
from meshnode.tunnel.relay_table import RelayTable
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.tcp import TcpCarrier
from meshnode.tunnel.tls import accepting_context
from meshnode.tunnel.tunnel import Tunnel
from proto.ids import NodeId
from proto.messages import Fence
from proto.tunnels import TunnelAnswer, TunnelBytes, TunnelCancel, TunnelCredit, TunnelRequest

REMOVED = "removed from the mesh"


class Tunnels:
    """One per daemon. `run` in the daemon's task group; everything from the event loop's thread."""

    def __init__(
        self,
        identity: LocalIdentity,
        paths: TunnelPaths,
        settings: TunnelSettings,
        *,
        listen: SocketName,
        scratch: Path,
        emit: Callable[[Event], None],
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        """`listen` is where the links listen, as bound; `scratch` a directory only this user can read."""
        self._identity = identity
        self._paths = paths
        self._settings = settings
        self._listen = listen
        self._scratch = scratch
        self._emit = emit
        self._tasks: anyio.abc.TaskGroup | None = None
        self._opening: Counter[tuple[NodeId, Purpose]] = Counter()
        self._ledger = Ledger(clock, emit)
        self._tcp = TcpCarrier(settings, clock)
        self._relays = RelayTable(identity.node, settings, clock, paths.send)
        self._asking = Asking(settings, paths, self._tcp, self._relays, clock, emit)
        self._granting = Granting(
            settings, paths, self._tcp, self._relays, self._ledger, clock, emit, begin=self._begin
        )
        paths.hear(TunnelRequest, self._granting.requested)
        paths.hear(TunnelAnswer, self._asking.answered)
        for kind in (TunnelBytes, TunnelCredit, TunnelCancel):
            paths.hear(kind, self._relays.hear)
        paths.take_streams(self._stream_opened)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen for TCP, serve what is offered, until cancelled. Started once listening."""
        if self._settings.carrier != Carrier.QUIC:
            self._listen_tcp()
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._tcp.serve, self._granting.show, self._granting.taken)
                tasks.start_soon(self._relays.keep)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            self.cut("the node stops")

    async def open(self, peer: NodeId, opening: Opening) -> Tunnel:
        """A tunnel to `peer` (not to this node itself). Raises `TunnelRefused` or `TunnelUnavailable`."""
        if peer == self._identity.node:
            raise TunnelUnavailable(peer, "this is this very node, which needs no tunnel to itself")
        with self._room_for(peer, opening.purpose):
            try:
                stream, carrier = await self._asking.connect(peer, opening)
            except TunnelError as error:
                code = error.code if isinstance(error, TunnelRefused) else TunnelRefusal.UNAVAILABLE
                self.deny(peer, opening, code, error.text, by_us=False)
                raise
            if not self._paths.has_path(peer):
                # Removed while the carrier came about: no cut has seen this tunnel, which is in no list yet.
                stream.abandon()
                raise TunnelUnavailable(peer, "the path to it was lost while the tunnel was opened")
            return self._ledger.enter(stream, peer, opening, carrier, opened_here=True)

    def offer(self, purpose: Purpose, handler: Handler, admit: Admit) -> None:
        """Take tunnels for `purpose` from now on; a later call replaces an earlier one."""
        self._granting.offer(purpose, handler, admit)

    def withdraw(self, purpose: Purpose) -> None:
        """Take no more of them. Those that are open go on."""
        self._granting.withdraw(purpose)

    def cut(
        self, reason: str, *, peer: NodeId | None = None, model: str | None = None, fence: Fence | None = None
    ) -> int:
        """End every tunnel that fits all that is given, with its tickets; how many. Both ends see it broken."""

        def fits(other: NodeId, opening: Opening) -> bool:
            return peer in (None, other) and model in (None, opening.model) and fence in (None, opening.fence)

        self._granting.tickets.drop(fits)
        doomed = [tunnel for tunnel in self._ledger if fits(tunnel.peer, tunnel.opening)]
        for tunnel in doomed:
            tunnel.cut(reason)
        return len(doomed)

    def members_removed(self, nodes: Iterable[NodeId]) -> None:
        """These nodes are no members any more."""
        for node in nodes:
            self._asking.removed(node)
            self.cut(REMOVED, peer=node)

    def deny(self, peer: NodeId, opening: Opening, code: str, reason: str, *, by_us: bool = True) -> None:
        """Report a tunnel that does not come about."""
        purpose, model = opening.purpose.value, opening.model[:100]
        self._emit(TunnelDenied(peer=peer, purpose=purpose, model=model, code=str(code), reason=reason, by_us=by_us))

    def status(self) -> dict[str, Any]:
        """Plain JSON: where it listens, totals by carrier, and each open tunnel with its bytes."""
        return {
            "carrier": self._settings.carrier,
            "tcp_port": self._tcp.port,
            "refused": self._granting.refused,
            "shed": self._tcp.shed,
            "carriers": {
                carrier.value: {
                    "opened": totals.opened,
                    "sent_bytes": totals.sent_bytes,
                    "received_bytes": totals.received_bytes,
                }
                for carrier, totals in self._ledger.totals().items()
            },
            "open": self._ledger.rows(),
        }

    # --- inside ---

    def _listen_tcp(self) -> None:
        """Without TCP the links still carry tunnels, so a port that can't be had is reported and no more."""
        host, port, *scope = self._listen
        name: Any = (host, port if self._settings.tcp_port is None else self._settings.tcp_port, *scope)
        try:
            self._tcp.listen(name, accepting_context(self._identity, self._scratch))
        except OSError as error:
            self._emit(TunnelsListening(address=None, problem=str(error)))
        else:
            bound: Any = (host, self._tcp.port, *scope)
            self._emit(TunnelsListening(address=format_address(bound), problem=None))

    @contextmanager
    def _room_for(self, peer: NodeId, purpose: Purpose) -> Iterator[None]:
        share = (peer, purpose)
        count = self._ledger.count(peer, purpose, opened_here=True) + self._opening[share]
        if count >= self._settings.per_peer or len(self._ledger) >= self._settings.in_all:
            text = f"this node has {count} tunnels to it for {purpose.value} and {len(self._ledger)} open in all"
            raise TunnelUnavailable(peer, text)
        self._opening[share] += 1
        try:
            yield
        finally:
            self._opening[share] -= 1
            if not self._opening[share]:
                del self._opening[share]

    def _stream_opened(self, peer: NodeId, stream: LinkStream) -> None:
        if self._tasks is None:
            stream.abandon()
        else:
            self._tasks.start_soon(self._granting.hear_stream, peer, stream)

    def _begin(self, tunnel: Tunnel, handler: Handler) -> None:
        if self._tasks is None:
            tunnel.cut("the node stops")
        else:
            self._tasks.start_soon(self._serve, tunnel, handler)

    @staticmethod
    async def _serve(tunnel: Tunnel, handler: Handler) -> None:
        try:
            await handler(tunnel)
        except (anyio.BrokenResourceError, anyio.EndOfStream, OSError) as error:
            tunnel.cut(str(error) or "broken")
        except Exception as error:  # noqa: BLE001  a fault met on one peer's tunnel must not cost the others theirs
            tunnel.cut("a fault of this node")
            message = f"tunnel: while serving {tunnel.purpose.value} for {tunnel.peer}"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
        finally:
            with anyio.CancelScope(shield=True):
                await tunnel.aclose()
