"""What to do about a refusal: one sentence per code, and the whole line a person reads.

What lives here: `ADVICE` and `explain`. Called by the joining side, the command line and the events of refusals.
"""

from __future__ import annotations

from typing import Final

from proto.messages import Refusal, RefusalCode
from proto.times import utc_text

ADVICE: Final[dict[RefusalCode, str]] = {
    RefusalCode.EXPIRED: "ask for a new invite (meshnode invite), or set the clock that is wrong",
    RefusalCode.USED_UP: "ask for a new invite, one per node or one with --uses N",
    RefusalCode.REVOKED: "ask a member for a new invite",
    RefusalCode.WRONG_MESH: "use an invite of the right mesh, or leave the old one first (meshnode leave)",
    RefusalCode.MALFORMED: "copy the whole invite again, from mesh1_ to its last character",
    RefusalCode.INVITER_UNREACHABLE: "see that the inviter runs and that its UDP port can be reached from here",
    RefusalCode.UNREACHABLE: "nothing: the link comes back by itself once packets pass again",
    RefusalCode.ROLE_NOT_ALLOWED: "ask for an invite with the role you need, from a member that may give it",
    RefusalCode.NAMES_SELF: "use this invite on another machine: this node made it, or is the member it points at",
    RefusalCode.NO_COMMON_VERSION: "upgrade the older of the two",
    RefusalCode.BAD_PROOF: "the peer could not prove its key: see that no proxy rewrites the traffic",
    RefusalCode.BAD_CREDENTIAL: "join again with a new invite",
    RefusalCode.IDENTITY_IN_USE: "stop the other process, or give this one its own --state-dir and a new invite",
    RefusalCode.NOT_THE_ISSUER: "redeem it while the member that made it is online",
    RefusalCode.TOO_MANY_FAILURES: "wait a minute, then try once with the right invite",
    RefusalCode.BUSY: "try again in a moment",
    RefusalCode.PROTOCOL_ERROR: "upgrade both sides; if it stays, report it with the log of both",
    RefusalCode.DUPLICATE_LINK: "nothing: the other link to this peer stands",
    RefusalCode.SLOW_READER: "see what keeps this machine from reading (load, a full link)",
    RefusalCode.FLOODING: "see what makes this node send so much",
    RefusalCode.LEAVING: "nothing: the peer is stopping",
    RefusalCode.REMOVED: "the node was removed: to return it needs an empty --state-dir and a new invite",
    RefusalCode.APPROVAL_PENDING: "wait: the member's operator decides with `meshnode approve`",
    RefusalCode.APPROVAL_DENIED: "ask the member's operator; compare the six words on both screens",
    RefusalCode.APPROVAL_CLOSED: "run `meshnode approve` on a member first, or join with an invite token",
    RefusalCode.LINK_LIMIT: "nothing: other members take the link",
}


def explain(refusal: Refusal, own_now_unix_s: int) -> str:
    """The whole line: code, what happened, both facts, advice. An `expired` tells this machine's clock beside the
    member's, so that a wrong one can be seen."""
    facts = ""
    if refusal.found or refusal.required:
        facts = f" (found {refusal.found or 'nothing'}, required {refusal.required or 'nothing'})"
    clock = f"; this machine's clock reads {utc_text(own_now_unix_s)}" if refusal.code is RefusalCode.EXPIRED else ""
    return f"{refusal.code.value}: {refusal.text}{facts}{clock}; {ADVICE[refusal.code]}"
