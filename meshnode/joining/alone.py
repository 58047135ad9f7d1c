"""Joining a mesh without running a node: the token is redeemed, the credential kept, and that is all.

What lives here: `join_alone`. What does not: the way in (`meshnode.joining.entering`). Called by `meshnode join`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio

from meshnode.admission import Admission
from meshnode.config import NodeConfig
from meshnode.config.values import SocketAddress
from meshnode.daemon import StartFailed, start_failures
from meshnode.events import Event, JoinAttempt
from meshnode.joining.entering import enter
from meshnode.logs import catch_library_logs
from meshnode.state import StateDirectory
from proto.credential import BadCredential


@dataclass(frozen=True, slots=True)
class Joined:
    """A member now; `already` where it was one of this mesh before."""

    mesh: str
    node: str
    role: str
    already: bool


def join_alone(config: NodeConfig, token: str, *, tell: Callable[[str], None]) -> Joined:
    """Redeem `token`, telling each address that is tried. Raises `StartFailed`."""

    def emit(event: Event) -> None:
        if isinstance(event, JoinAttempt):
            tell(f"tried {event.address}: {event.outcome} ({event.after_ms:.0f} ms)")

    catch_library_logs(emit)
    # Any port will do: nothing but the redemption happens on it, and another node may have the usual one.
    config = replace(config, listen=SocketAddress(config.listen.host, 0))
    with start_failures(), StateDirectory.open(config.state_dir) as state:
        already = state.credential() is not None
        admission = anyio.run(enter, state, state.identity(), config, token, emit)
        return _joined(admission, already)


def _joined(admission: Admission, already: bool) -> Joined:
    try:
        role = admission.standing(int(time.time())).role
    except BadCredential as error:
        advice = "forget that mesh with `meshnode leave`, then join with a new invite"
        raise StartFailed(f"this node is no member any more: {error.found}", advice) from error
    return Joined(admission.mesh, admission.identity.node, role.value, already)
