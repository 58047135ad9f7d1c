"""Readiness and splits: what is asked directly over the link, never gossiped.

What lives here: the shapes. What does not: their meaning (`meshnode.readiness`, `meshnode.split`), and the tunnels that
a running split uses (`proto.tunnels`, `proto.weights`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from proto.messages.message import Message, WireProbeNonce
from proto.shapes import (
    WireBytesFigure,
    WireCounter,
    WireNodeId,
    WireText,
    WireWord,
)


class ConfirmRequest(Message, frozen=True, tag="confirm_request"):
    """A waiting split asks a candidate to confirm its figures for one model; this reserves nothing."""

    nonce: WireProbeNonce
    model: WireText


class DeviceFigure(Struct, frozen=True, array_like=True):
    """One device's figures at the moment of asking."""

    id: WireWord
    usable_bytes: WireBytesFigure
    reserved_bytes: WireBytesFigure


class Confirm(Message, frozen=True, tag="confirm"):
    """The candidate's answer: what it offers now, whether it can serve a stage, and its willingness to do so."""

    nonce: WireProbeNonce
    devices: Annotated[tuple[DeviceFigure, ...], Meta(max_length=32)]
    host_usable_bytes: WireBytesFigure
    draining: bool
    stage_control: bool
    cached_bytes: WireBytesFigure | None
    missing_bytes: WireBytesFigure | None
    manifest: Annotated[str, Meta(max_length=128)] | None


class Fence(Struct, frozen=True, array_like=True, order=True):
    """Orders plans of one model: (generation, coordinator). A worker rejects anything below the highest it promised."""

    generation: WireCounter
    coordinator: WireNodeId


class Prepare(Message, frozen=True, tag="prepare"):
    """The coordinator asks a worker to reserve exact bytes on its devices for its stage: the layers from `layer_start`
    to `layer_end`. `ranges` are (device, layer start, layer end), for a stage that lies on several devices."""

    nonce: WireProbeNonce
    model: WireText
    fence: Fence
    layer_start: WireCounter
    layer_end: WireCounter
    reserve: Annotated[tuple[tuple[WireWord, WireBytesFigure], ...], Meta(max_length=32)]
    ranges: Annotated[tuple[tuple[WireWord, WireCounter, WireCounter], ...], Meta(max_length=32)] = ()


class Prepared(Message, frozen=True, tag="prepared"):
    """The worker's answer: reserved, or why not, with the highest fence it holds for the model."""

    nonce: WireProbeNonce
    accepted: bool
    reason: WireText
    highest: Fence


class Commit(Message, frozen=True, tag="commit"):
    """All stages are reserved: the plan of this fence stands. Also renews the lease."""

    model: WireText
    fence: Fence


class Release(Message, frozen=True, tag="release"):
    """Gives the reservation of this fence back (abort before commit, withdraw after it)."""

    model: WireText
    fence: Fence
    reason: WireText


class LeaseRenewal(Message, frozen=True, tag="lease_renewal"):
    """Coordinator to worker, and its echo back (`held` tells whether the worker still holds the fence)."""

    nonce: WireProbeNonce
    model: WireText
    fence: Fence
    held: bool


class StageState(StrEnum):
    """How far a worker's stage is: its weights cache is filled, its engine process runs, or it can't run any more."""

    FILLING = "filling"
    READY = "ready"
    FAILED = "failed"


class StageReport(Message, frozen=True, tag="stage_report"):
    """A worker tells the coordinator of `fence` how its stage is. `text` says why it failed: the engine process's end
    and its last words. `fetching`: what fills its weights cache comes from another node, not from files of its own. The
    bytes of a `ready` one are those of tensors that it need not be sent."""

    model: WireText
    fence: Fence
    state: StageState
    done_bytes: WireBytesFigure = 0
    total_bytes: WireBytesFigure = 0
    text: WireText = ""
    fetching: bool = False
