"""What the outside tells membership about the local node: who it is, and what it offers.

What lives here: `LocalNode` and `OfferDraft`, the inputs. What does not: when they are published (`publisher`).
"""

from __future__ import annotations

from dataclasses import dataclass

from proto.ids import BootId, MeshId, NodeId
from proto.parts import DeviceOffer, ModelOffer, OfferPart, Role, Willingness
from proto.versions import STAGE_PROTOCOL_GENERATION


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The local node as this process start knows it. `incarnation` is already persisted and above every earlier one;
    `chain` is its credential chain, root's first, as the identity part carries it."""

    node: NodeId
    mesh: MeshId
    role: Role
    boot_id: BootId
    incarnation: int
    chain: tuple[bytes, ...]
    addresses: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    software: str = ""
    name: str = ""
    engine: str | None = None
    stage_protocol_generation: int = STAGE_PROTOCOL_GENERATION


@dataclass(frozen=True, slots=True)
class OfferDraft:
    """An offer before it has an incarnation and a version: what `OfferPart` says, field by field."""

    devices: tuple[DeviceOffer, ...] = ()
    host_usable_bytes: int = 0
    host_declared: bool = False
    models: tuple[ModelOffer, ...] = ()
    willingness: Willingness = Willingness.ALWAYS
    draining: bool = False
    interested_in: tuple[str, ...] | None = None
    inventory_known: bool = False
    artifact_transfer: bool = False

    def as_part(self, node: NodeId, incarnation: int, version: int) -> OfferPart:
        """The part that says this."""
        return OfferPart(
            node=node,
            incarnation=incarnation,
            version=version,
            devices=self.devices,
            host_usable_bytes=self.host_usable_bytes,
            host_declared=self.host_declared,
            models=self.models,
            willingness=self.willingness,
            draining=self.draining,
            interested_in=self.interested_in,
            inventory_known=self.inventory_known,
            artifact_transfer=self.artifact_transfer,
        )
