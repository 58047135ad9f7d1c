"""Checks of the engine: whether this machine has one that works, and whether its peers' fit to it. No I/O.

What lives here: `EngineFacts`, `check_engines`. What does not: finding and trying out an engine
(`meshnode.engine.found`), which a node does at its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshnode.doctor.finding import Finding, Grade
from meshnode.doctor.peers import PeerFacts
from meshnode.engine.devices import engine_device_names
from proto.engines import rpc_version_of


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """What bounds engine processes here, as the event `engine.found` has it."""

    private_network: bool
    landlock: int
    tcp_only: bool


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """`word` is the engine as records say it, None where there is none; `reason` and `advice` say why. `devices` are
    the ids of those offered, `died` what was said of engine processes that ended by themselves, oldest first;
    `api_problem` says why the OpenAI-compatible interface does not listen."""

    is_client: bool
    word: str | None
    reason: str = ""
    advice: str = ""
    devices: tuple[str, ...] = ()
    died: tuple[str, ...] = ()
    bounds: EngineBounds | None = None
    api_problem: str = ""
    api_advice: str = ""


def check_engines(facts: EngineFacts, peers: Sequence[PeerFacts] = ()) -> list[Finding]:
    """This machine's engine, then the peers' against it."""
    return [_own(facts), *_bounds(facts.bounds), *_deaths(facts), *_api(facts), *_others(facts, peers)]


def _own(facts: EngineFacts) -> Finding:
    checked = "an engine that was found and tried out, and the devices it is given"
    if facts.is_client:
        return Finding("engine", Grade.OK, "this node", checked, "a client holds no stages and needs none")
    if facts.word is None:
        found = f"none: {facts.reason or 'see the event engine.missing'}. Plans can be asked for, none is carried out"
        return Finding("engine", Grade.WARNING, "this node", checked, found, facts.advice)
    names = ", ".join(engine_device_names(facts.devices)) or "none"
    return Finding("engine", Grade.OK, "this node", checked, f"{facts.word}; its devices: {names}")


def _bounds(bounds: EngineBounds | None) -> Iterator[Finding]:
    """How far an engine process is kept from the rest of the machine, which a coordinator's code may try to reach."""
    if bounds is None:
        return
    checked = "what keeps engine processes from the rest of this machine"
    kept = [
        "a network of their own" if bounds.private_network else "no network of their own",
        f"files and ports by Landlock (ABI {bounds.landlock})" if bounds.landlock else "no bound on files",
        "TCP sockets only" if bounds.tcp_only else "sockets of all kinds",
    ]
    found, is_bound = ", ".join(kept), bounds.landlock > 0
    advice = "" if is_bound else (
        "coordinators are trusted with all that this node's user can read; a Linux kernel from 5.13 on with Landlock"
        " (`landlock` in its list of `lsm`) bounds that"
    )  # fmt: skip
    yield Finding("engine", Grade.OK if is_bound else Grade.WARNING, "its processes", checked, found, advice)


def _deaths(facts: EngineFacts) -> Iterator[Finding]:
    checked = "engine processes that ended by themselves"
    for text in dict.fromkeys(facts.died):
        advice = "see the event engine.died for its last words; too little memory is the usual cause"
        yield Finding("engine", Grade.WARNING, "this node", checked, text, advice)


def _api(facts: EngineFacts) -> Iterator[Finding]:
    if facts.api_problem:
        checked = "whether the OpenAI-compatible interface listens"
        yield Finding("engine", Grade.ERROR, "api_port", checked, facts.api_problem, facts.api_advice)


def _others(facts: EngineFacts, peers: Sequence[PeerFacts]) -> Iterator[Finding]:
    """Two nodes share a split if one can serve the other's coordinator; which one coordinates is not known here."""
    own = rpc_version_of(facts.word)
    for peer in peers:
        theirs = rpc_version_of(peer.engine)
        if own is None or theirs is None or own.can_serve(theirs) or theirs.can_serve(own):
            continue
        checked = "RPC versions of members' engines, which stages of one split must share"
        advice = "use the same build of llama.cpp on both"
        found = f"{peer.engine}; here {facts.word}"
        yield Finding("engine", Grade.WARNING, peer.called, checked, found, advice)
