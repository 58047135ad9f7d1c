"""What a frame of 64 full records costs to decode, to validate, and to verify."""

from __future__ import annotations

import statistics
import time

from proto.codec import FrameDecoder, decode_part, encode_frame, encode_part
from proto.ids import node_id_of, short_id_of
from proto.messages import Delta
from proto.parts import DeviceOffer, ModelOffer, NetworkPart, OfferPart, PartKind, RttEntry, SignedPart, Willingness

RECORDS = 64


def _offer(number: int) -> SignedPart:
    node = node_id_of(bytes([number]) * 32)
    device = DeviceOffer(
        id="cuda:0", kind="cuda", name="NVIDIA RTX 4090", capacity_bytes=24 * 10**9, usable_bytes=21 * 10**9
    )
    model = ModelOffer(
        ref="qwen3-coder-480b-a35b-q4_k_xl", manifest="ab" * 32, wanted=True, complete=False, cached_bytes=10**9,
        missing_bytes=10**11,
    )  # fmt: skip
    part = OfferPart(
        node=node, incarnation=1, version=number, devices=(device, device), host_usable_bytes=16 * 10**9,
        host_declared=False, models=(model,), willingness=Willingness.ALWAYS, draining=False, interested_in=None,
        inventory_known=True, artifact_transfer=True,
    )  # fmt: skip
    return SignedPart(kind=PartKind.OFFER, body=encode_part(part), signature=bytes(64))


def _row(number: int) -> SignedPart:
    peers = [short_id_of(node_id_of(bytes([peer]) * 32)) for peer in range(1, 16)]
    part = NetworkPart(
        node=node_id_of(bytes([number]) * 32), incarnation=1, version=number, coordinate=None,
        row=tuple(RttEntry(peer=peer, rtt_us=250, smoothed_us=300, samples=9, relayed=False) for peer in peers),
    )  # fmt: skip
    return SignedPart(kind=PartKind.NETWORK, body=encode_part(part), signature=bytes(64))


def main() -> None:
    """Print the median of 200 runs."""
    records = tuple(make(number) for number in range(1, RECORDS // 2 + 1) for make in (_offer, _row))
    frame = encode_frame(Delta(parts=records, claims=()))
    timings_ms = []
    for _ in range(200):
        started = time.perf_counter()
        (delta,) = FrameDecoder().feed(frame)
        assert isinstance(delta, Delta)
        for signed in delta.parts:
            decode_part(signed.kind, signed.body)
        timings_ms.append((time.perf_counter() - started) * 1000)
    median_ms = statistics.median(timings_ms)
    print(f"frame of {RECORDS} records, {len(frame)} bytes: decoded and validated in {median_ms:.2f} ms (goal 2 ms)")
