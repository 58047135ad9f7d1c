"""One node as the rules see it: its view, the figures in force, and the facts of the mesh around it.

What lives here: `Candidate`, `Answer`, and how a direct answer replaces gossiped figures. What does not: the rules
(`meshnode.readiness.rules`). Pure: everything comes from the view, the request and the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from msgspec import structs

from meshnode.membership.view import MeshView, NodeView, RttFigure, RttSource, Status
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.request import HOST_MEMORY, Purpose, SplitRequest
from proto.ids import BootId, NodeId
from proto.messages import Confirm
from proto.parts import DeviceOffer, ModelOffer, OfferPart, Role


@dataclass(frozen=True, slots=True)
class AnswerBasis:
    """What an answer was about: it is void once the node restarted, was linked anew, or offered something newer."""

    boot_id: BootId | None
    link_up_since_s: float | None
    offer_order: tuple[int, int] | None

    @classmethod
    def of(cls, node: NodeView) -> AnswerBasis:
        """The basis that holds for `node` now."""
        boot_id = node.boot_id if node.identity is None else BootId(node.identity.boot_id)
        up_since_s = None if node.link is None else node.link.up_since_s
        order = None if node.offer is None else (node.offer.incarnation, node.offer.version)
        return cls(boot_id, up_since_s, order)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a node directly: its confirmation, or None where it did not answer."""

    confirm: Confirm | None
    basis: AnswerBasis
    asked_s: float

    def holds_for(self, node: NodeView) -> bool:
        """Whether it still says something about `node`. Silence is about boot and link only: a newer offer that came
        by gossip does not show that the node answers."""
        now = AnswerBasis.of(node)
        same = (now.boot_id, now.link_up_since_s) == (self.basis.boot_id, self.basis.link_up_since_s)
        return same and (self.confirm is None or now.offer_order == self.basis.offer_order)


@dataclass(frozen=True)
class MeshFacts:
    """What some rules need of the whole mesh: who holds the complete package, who a part, who has not said yet."""

    complete_holders: tuple[NodeId, ...]
    partial_holders: tuple[tuple[NodeId, int | None], ...]
    unread_inventories: int

    @classmethod
    def of(cls, view: MeshView, request: SplitRequest) -> MeshFacts:
        """The facts of `view` for `request`'s model. Only alive workers count: a dead node can't give anything, and a
        client does not coordinate, which takes the complete package."""
        complete: list[NodeId] = []
        partial: list[tuple[NodeId, int | None]] = []
        unread = 0
        for node in view.alive():
            if node.role is Role.CLIENT:
                continue
            if node.offer is None or not node.offer.inventory_known:
                unread += 1
                continue
            model = model_in(node.offer, request.model)
            if model is None or manifests_differ(model.manifest, request.manifest):
                continue
            if model.complete:
                complete.append(node.node)
            elif model.cached_bytes != 0:
                partial.append((node.node, model.cached_bytes))
        return cls(tuple(complete), tuple(partial), unread)


@dataclass(frozen=True)
class Candidate:
    """A node before the rules. `offer` are the figures in force: gossiped, or replaced by its own direct answer. `rtt`
    is the coordinator's figure. `patience_over` are the causes for which it was pending long enough."""

    node: NodeView
    request: SplitRequest
    mesh: MeshFacts
    is_coordinator: bool
    judged_by_own_link: bool
    offer: OfferPart | None
    rtt: RttFigure | None
    answer: Answer | None
    patience_over: frozenset[ReasonCode]
    coordinator: NodeId | None = None
    manifest: str | None = None
    """Of the package that the coordinator has now; None where that is unknown."""

    @cached_property
    def model(self) -> ModelOffer | None:
        """What it says of the request's model; None where it lists nothing of it."""
        return None if self.offer is None else model_in(self.offer, self.request.model)

    @cached_property
    def own_files(self) -> ModelOffer | None:
        """What it has of the coordinator's very package; None where it has nothing of it."""
        model = self.model
        return None if model is None or manifests_differ(model.manifest, self.manifest) else model

    @cached_property
    def layers_at_hand(self) -> tuple[tuple[int, int], ...]:
        """Layers [start, end) that it fetched before and keeps. What came from somebody else, or is of another package,
        is not used."""
        kept = () if self.model is None or self.manifest is None else self.model.fetched
        wanted = (self.coordinator, self.manifest)
        return tuple((each.layer_start, each.layer_end) for each in kept if (each.source, each.manifest) == wanted)

    @cached_property
    def usable_rtt(self) -> RttFigure | None:
        """The RTT that counts: corroborated, or, where it is only asked what would be, an estimate marked as such."""
        figure = self.rtt
        if figure is None:
            return None
        asked_only = self.request.purpose is Purpose.PLAN and figure.source is RttSource.ESTIMATED
        return figure if figure.corroborated or asked_only else None


def candidate_of(
    node: NodeView,
    view: MeshView,
    request: SplitRequest,
    mesh: MeshFacts,
    answer: Answer | None,
    patience_over: frozenset[ReasonCode],
) -> Candidate:
    """`node` made ready for the rules."""
    coordinator = request.coordinator or view.local
    held = answer if answer is not None and answer.holds_for(node) else None
    return Candidate(
        node=node,
        request=request,
        mesh=mesh,
        is_coordinator=node.node == coordinator,
        judged_by_own_link=coordinator == view.local,
        offer=offer_in_force(node.offer, held, request.own_reserved.get(node.node, {}), request.model),
        rtt=rtt_between(view, coordinator, node),
        answer=held,
        patience_over=patience_over,
        coordinator=coordinator,
        manifest=_manifest(view, request, coordinator),
    )


def _manifest(view: MeshView, request: SplitRequest, coordinator: NodeId) -> str | None:
    """Of the package that the coordinator has now."""
    source = view.nodes.get(coordinator)
    own = None if source is None or source.offer is None else model_in(source.offer, request.model)
    return request.manifest or (None if own is None else own.manifest)


def rtt_between(view: MeshView, coordinator: NodeId, node: NodeView) -> RttFigure | None:
    """The coordinator's figure to `node`, or the one `node` reports of the way back; None where neither is known."""
    if coordinator == view.local and node.rtt is not None:
        return node.rtt
    return view.rtt.get((coordinator, node.node)) or view.rtt.get((node.node, coordinator))


def offer_in_force(
    offer: OfferPart | None, answer: Answer | None, own_reserved: Mapping[str, int], model: str
) -> OfferPart | None:
    """The gossiped offer with a direct answer's figures in place of its own, and this split's own bytes free again."""
    if offer is None:
        return None
    offer = _well_formed(offer)
    if answer is not None and answer.confirm is not None:
        offer = _confirmed(offer, answer.confirm, model)
    if not own_reserved:
        return offer
    devices = tuple(
        structs.replace(device, reserved_bytes=max(0, device.reserved_bytes - own_reserved.get(device.id, 0)))
        for device in offer.devices
    )
    host_bytes = offer.host_usable_bytes + own_reserved.get(HOST_MEMORY, 0)
    return structs.replace(offer, devices=devices, host_usable_bytes=host_bytes)


def _well_formed(offer: OfferPart) -> OfferPart:
    """Without devices whose id is empty, unprintable or used twice: no meshnode offers such, and nothing can be placed
    on them by name."""
    named: dict[str, DeviceOffer] = {}
    for device in offer.devices:
        if device.id and device.id.isprintable():
            named.setdefault(device.id, device)
    return offer if len(named) == len(offer.devices) else structs.replace(offer, devices=tuple(named.values()))


def _confirmed(offer: OfferPart, confirm: Confirm, model: str) -> OfferPart:
    """Devices that the answer does not name are gone; devices that only it names have no known kind and wait for the
    next offer."""
    figures = {figure.id: figure for figure in confirm.devices}
    devices = tuple(
        structs.replace(
            device,
            usable_bytes=figures[device.id].usable_bytes,
            reserved_bytes=figures[device.id].reserved_bytes,
        )
        for device in offer.devices
        if device.id in figures
    )
    return structs.replace(
        offer,
        devices=devices,
        host_usable_bytes=confirm.host_usable_bytes,
        draining=confirm.draining,
        models=tuple(_confirmed_model(entry, confirm) if entry.ref == model else entry for entry in offer.models),
    )


def _confirmed_model(model: ModelOffer, confirm: Confirm) -> ModelOffer:
    known = confirm.missing_bytes is not None
    return structs.replace(
        model,
        manifest=model.manifest if confirm.manifest is None else confirm.manifest,
        cached_bytes=model.cached_bytes if confirm.cached_bytes is None else confirm.cached_bytes,
        missing_bytes=model.missing_bytes if confirm.missing_bytes is None else confirm.missing_bytes,
        complete=confirm.missing_bytes == 0 if known else model.complete,
    )


def model_in(offer: OfferPart, ref: str) -> ModelOffer | None:
    """The entry of `ref` in an offer, or None."""
    return next((model for model in offer.models if model.ref == ref), None)


def manifests_differ(one: str | None, other: str | None) -> bool:
    """True where both are known and not the same: an unknown hash is no mismatch."""
    return one is not None and other is not None and one != other


def free_bytes(device: DeviceOffer) -> int:
    """What a new stage may fill: usable less what running splits hold."""
    return max(0, device.usable_bytes - device.reserved_bytes)


def is_alive(node: NodeView) -> bool:
    """Suspect counts as not alive: a split built on a suspect is a split that fails."""
    return node.status is Status.ALIVE
