"""The event catalogue: everything the daemon reports, each with a stable dotted name and typed fields.

What lives here: the event types and `CATALOGUE`. What does not: rendering and folding (`meshnode.logs`). Every room
builds events; sans-IO machines hand them out as `Emit` effects. The reference page `docs/events.md` is made from this
file, and a test holds catalogue, code and page together.

Node and mesh ids stand in full here; the pretty rendering shortens them. No field ever holds a token or a key.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar


class Level(StrEnum):
    """How loud an event is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Event:
    """What every event is made from: a stable `name`, a `level`, and the subclass's fields."""

    name: ClassVar[str]
    level: ClassVar[Level]

    def fields(self) -> dict[str, Any]:
        """Field names to values, in the order declared; plain JSON types only."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# --- the node itself -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeStarted(Event):
    """The daemon is up and answers."""

    name: ClassVar[str] = "node.started"
    level: ClassVar[Level] = Level.INFO
    node: str
    mesh: str
    role: str
    listen: str
    incarnation: int
    state_directory: str
    pid: int
    version: str


@dataclass(frozen=True)
class NodePortChanged(Event):
    """Port 0 is configured, and the port of the last start can't be had again: the node listens on another one."""

    name: ClassVar[str] = "node.port_changed"
    level: ClassVar[Level] = Level.WARNING
    old_port: int
    new_port: int
    problem: str
    advice: str


@dataclass(frozen=True)
class NodeDraining(Event):
    """The operator had this node take no new stages (`draining` true), or take them again."""

    name: ClassVar[str] = "node.draining"
    level: ClassVar[Level] = Level.INFO
    draining: bool


@dataclass(frozen=True)
class NodeStopping(Event):
    """A clean stop began; the mesh is told `left`."""

    name: ClassVar[str] = "node.stopping"
    level: ClassVar[Level] = Level.INFO
    node: str
    cause: str


@dataclass(frozen=True)
class NodeStopped(Event):
    """The daemon is down."""

    name: ClassVar[str] = "node.stopped"
    level: ClassVar[Level] = Level.INFO
    node: str
    after_s: float


@dataclass(frozen=True)
class NodeStalled(Event):
    """This process did not run for a while (blocked loop, suspend): it accuses nobody meanwhile."""

    name: ClassVar[str] = "node.stalled"
    level: ClassVar[Level] = Level.WARNING
    stalled_s: float
    cause: str


@dataclass(frozen=True)
class ConfigInvalid(Event):
    """A config value is wrong: which, what was found, what is right."""

    name: ClassVar[str] = "config.invalid"
    level: ClassVar[Level] = Level.ERROR
    key: str
    found: str
    expected: str
    source: str


@dataclass(frozen=True)
class ConfigReloaded(Event):
    """SIGHUP: the configuration was read anew. Each change as `key: old -> new`: `changed` holds from now on, `later`
    for splits and questions that begin from now on, `needs_restart` at the next start."""

    name: ClassVar[str] = "config.reloaded"
    level: ClassVar[Level] = Level.INFO
    changed: tuple[str, ...]
    later: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True)
class StateUnsaved(Event):
    """Something could not be stored in the state directory; the node goes on without it."""

    name: ClassVar[str] = "state.unsaved"
    level: ClassVar[Level] = Level.ERROR
    path: str
    problem: str
    advice: str


@dataclass(frozen=True)
class MeshCreated(Event):
    """This node founded a mesh."""

    name: ClassVar[str] = "mesh.created"
    level: ClassVar[Level] = Level.INFO
    mesh: str
    root_kept: bool


# --- invites and admission -------------------------------------------------------------------------


@dataclass(frozen=True)
class InviteCreated(Event):
    """An invite token was made; the token itself is never logged."""

    name: ClassVar[str] = "invite.created"
    level: ClassVar[Level] = Level.INFO
    token_id: str
    role: str
    uses: str
    expires_at: str
    may_invite: bool


@dataclass(frozen=True)
class InviteRedeemed(Event):
    """A node joined by a token; `again` where it had lost the first answer."""

    name: ClassVar[str] = "invite.redeemed"
    level: ClassVar[Level] = Level.INFO
    token_id: str
    node: str
    role: str
    uses_left: str
    again: bool


@dataclass(frozen=True)
class InviteRefused(Event):
    """A token was refused: the code, both facts, the advice."""

    name: ClassVar[str] = "invite.refused"
    level: ClassVar[Level] = Level.WARNING
    code: str
    address: str
    found: str
    required: str
    advice: str


@dataclass(frozen=True)
class InviteRevoked(Event):
    """A token was revoked by the operator."""

    name: ClassVar[str] = "invite.revoked"
    level: ClassVar[Level] = Level.INFO
    token_id: str


@dataclass(frozen=True)
class ApprovalOpened(Event):
    """The operator opened this node to others that ask to be let in (`meshnode approve`), for so long."""

    name: ClassVar[str] = "approval.opened"
    level: ClassVar[Level] = Level.INFO
    for_s: float
    role: str


@dataclass(frozen=True)
class ApprovalDecided(Event):
    """The operator compared the six words of a node that asks, and decided."""

    name: ClassVar[str] = "approval.decided"
    level: ClassVar[Level] = Level.INFO
    node: str
    address: str
    role: str
    accepted: bool


@dataclass(frozen=True)
class ApprovalUsed(Event):
    """A node that the operator had let in fetched its credential."""

    name: ClassVar[str] = "approval.used"
    level: ClassVar[Level] = Level.INFO
    node: str
    role: str
    address: str


@dataclass(frozen=True)
class JoinAttempt(Event):
    """The joiner tried one address of the token: what came of it."""

    name: ClassVar[str] = "join.attempt"
    level: ClassVar[Level] = Level.INFO
    address: str
    outcome: str
    after_ms: float


@dataclass(frozen=True)
class JoinSucceeded(Event):
    """This node holds a credential of the mesh now."""

    name: ClassVar[str] = "join.succeeded"
    level: ClassVar[Level] = Level.INFO
    mesh: str
    through: str
    role: str


@dataclass(frozen=True)
class JoinFailed(Event):
    """No pinned member let this node in."""

    name: ClassVar[str] = "join.failed"
    level: ClassVar[Level] = Level.ERROR
    code: str
    text: str
    advice: str


@dataclass(frozen=True)
class NodeRemoved(Event):
    """A revocation took effect: the node and every chain through it."""

    name: ClassVar[str] = "node.removed"
    level: ClassVar[Level] = Level.WARNING
    node: str
    by: str
    descendants: int


# --- links -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinkUp(Event):
    """An authenticated link stands."""

    name: ClassVar[str] = "link.up"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str
    dialled_by_us: bool
    protocol: str
    path: str


@dataclass(frozen=True)
class LinkDown(Event):
    """A link ended, and why."""

    name: ClassVar[str] = "link.down"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str
    code: str
    reason: str
    by_peer: bool
    after_s: float


@dataclass(frozen=True)
class LinkRefused(Event):
    """A link was refused, by us or by them: the code, both facts, who has to act."""

    name: ClassVar[str] = "link.refused"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    address: str
    by_us: bool
    code: str
    text: str
    found: str
    required: str


@dataclass(frozen=True)
class LinkReplaced(Event):
    """Of two links to one node one was kept."""

    name: ClassVar[str] = "link.replaced"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    kept: str
    reason: str


@dataclass(frozen=True)
class LinkMigrated(Event):
    """A peer's address changed under a living link."""

    name: ClassVar[str] = "link.migrated"
    level: ClassVar[Level] = Level.INFO
    peer: str
    old_address: str
    new_address: str


@dataclass(frozen=True)
class DialFailed(Event):
    """No address of a peer answered."""

    name: ClassVar[str] = "dial.failed"
    level: ClassVar[Level] = Level.INFO
    peer: str
    addresses: tuple[str, ...]
    reason: str
    retry_in_s: float


@dataclass(frozen=True)
class AddressDropped(Event):
    """An address answered as another node: it is dropped for this peer."""

    name: ClassVar[str] = "address.dropped"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    address: str
    answered_as: str


@dataclass(frozen=True)
class WireRejected(Event):
    """Something from a peer broke a rule: the field, what was found, what would be right."""

    name: ClassVar[str] = "wire.rejected"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    address: str
    message: str
    field: str
    found: str
    expected: str


@dataclass(frozen=True)
class RecordRejected(Event):
    """A relayed record or claim was no good; charged to whoever relayed it."""

    name: ClassVar[str] = "record.rejected"
    level: ClassVar[Level] = Level.WARNING
    subject: str
    relayed_by: str
    part: str
    reason: str


@dataclass(frozen=True)
class HandshakesShed(Event):
    """Half-open links passed the threshold: address validation is on, the oldest are dropped."""

    name: ClassVar[str] = "handshake.shed"
    level: ClassVar[Level] = Level.WARNING
    half_open: int
    dropped: int
    retry_on: bool


@dataclass(frozen=True)
class PeerThrottled(Event):
    """A peer sends more than its budget."""

    name: ClassVar[str] = "peer.throttled"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    frames_per_s: float
    bytes_per_s: float


# --- peers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerJoined(Event):
    """A node is known and alive for the first time."""

    name: ClassVar[str] = "peer.joined"
    level: ClassVar[Level] = Level.INFO
    peer: str
    role: str
    incarnation: int
    usable_bytes: int | None


@dataclass(frozen=True)
class PeerSuspect(Event):
    """A node does not answer; it has until the suspicion time is over to refute."""

    name: ClassVar[str] = "peer.suspect"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    incarnation: int
    accuser: str
    suspicion_s: float


@dataclass(frozen=True)
class PeerRefuted(Event):
    """A suspicion proved wrong; `accuser` raised it."""

    name: ClassVar[str] = "peer.refuted"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int
    accuser: str
    witness: str


@dataclass(frozen=True)
class PeerDead(Event):
    """A node is dead to this node: nothing of it is counted any more."""

    name: ClassVar[str] = "peer.dead"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    incarnation: int
    accusers: tuple[str, ...]
    silent_s: float


@dataclass(frozen=True)
class PeerLeft(Event):
    """A node said goodbye."""

    name: ClassVar[str] = "peer.left"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int


@dataclass(frozen=True)
class PeerReturned(Event):
    """A node that was dead or had left is back."""

    name: ClassVar[str] = "peer.returned"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int
    was: str
    away_s: float


@dataclass(frozen=True)
class PeerUpdated(Event):
    """A newer part of a peer's record was accepted."""

    name: ClassVar[str] = "peer.updated"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    part: str
    incarnation: int
    version: int


@dataclass(frozen=True)
class LanCalled(Event):
    """Members are missing, and none of their addresses answers: this node called for them on its local networks."""

    name: ClassVar[str] = "lan.called"
    level: ClassVar[Level] = Level.DEBUG
    missing: int
    networks: tuple[str, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True)
class PeerCalled(Event):
    """A member without a link called on the local network; it is dialled where it called from."""

    name: ClassVar[str] = "peer.called"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str


@dataclass(frozen=True)
class PeerIdentityConflict(Event):
    """Two processes run with one key; the newcomer is refused."""

    name: ClassVar[str] = "peer.identity_conflict"
    level: ClassVar[Level] = Level.ERROR
    peer: str
    address: str
    other_address: str
    advice: str


@dataclass(frozen=True)
class IdentityClaimRejected(Event):
    """A member said that another process runs with this node's key, and gave no proof by that key: not believed."""

    name: ClassVar[str] = "identity.claim_rejected"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    address: str
    advice: str


@dataclass(frozen=True)
class SuspicionRefutedSelf(Event):
    """This node was suspected and answered with a higher incarnation."""

    name: ClassVar[str] = "self.refuted"
    level: ClassVar[Level] = Level.WARNING
    accuser: str
    incarnation: int
    health: int


@dataclass(frozen=True)
class HealthChanged(Event):
    """Lifeguard's local health score changed; a higher score slows this node's own accusations."""

    name: ClassVar[str] = "self.health"
    level: ClassVar[Level] = Level.INFO
    score: int
    reason: str


@dataclass(frozen=True)
class ViewConverged(Event):
    """This node's view equals a peer's."""

    name: ClassVar[str] = "view.converged"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    nodes: int


# --- measurements ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RttChanged(Event):
    """A link's RTT changed by more than 20 % and 1 ms."""

    name: ClassVar[str] = "rtt.changed"
    level: ClassVar[Level] = Level.INFO
    peer: str
    old_ms: float | None
    new_ms: float
    samples: int
    path: str


@dataclass(frozen=True)
class CapacityChanged(Event):
    """What this machine has to offer, on its devices or as a coordinator's host, changed by more than 5 %."""

    name: ClassVar[str] = "capacity.changed"
    level: ClassVar[Level] = Level.INFO
    usable_bytes: int
    old_usable_bytes: int
    host_usable_bytes: int
    devices: int
    source: str


@dataclass(frozen=True)
class CapacityNone(Event):
    """This machine can give nothing, and why."""

    name: ClassVar[str] = "capacity.none"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    advice: str


@dataclass(frozen=True)
class CapacityWarning(Event):
    """Something costs this machine memory that it could give, or promises memory that it has not."""

    name: ClassVar[str] = "capacity.warning"
    level: ClassVar[Level] = Level.WARNING
    device: str
    finding: str


@dataclass(frozen=True)
class CapacityFinding(Event):
    """Something learnt while looking at this machine's memory; nothing is wrong."""

    name: ClassVar[str] = "capacity.finding"
    level: ClassVar[Level] = Level.INFO
    device: str
    finding: str


@dataclass(frozen=True)
class ModelIndexed(Event):
    """A model at hand was read."""

    name: ClassVar[str] = "model.indexed"
    level: ClassVar[Level] = Level.INFO
    model: str
    layers: int
    weight_bytes: int
    complete: bool
    manifest: str | None


@dataclass(frozen=True)
class ModelUnreadable(Event):
    """A model file could not be read: the field, what was found, what would be right."""

    name: ClassVar[str] = "model.unreadable"
    level: ClassVar[Level] = Level.ERROR
    model: str
    path: str
    field: str
    found: str
    expected: str


# --- splits ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitWaiting(Event):
    """A split waits for participants."""

    name: ClassVar[str] = "split.waiting"
    level: ClassVar[Level] = Level.INFO
    model: str
    quorum: int
    deadline_s: float
    waited_s: float
    participants: int
    pending: int
    excluded: int


@dataclass(frozen=True)
class SplitCandidates(Event):
    """The verdicts changed: who takes part, who may, who can't and why."""

    name: ClassVar[str] = "split.candidates"
    level: ClassVar[Level] = Level.INFO
    model: str
    participants: tuple[str, ...]
    pending: tuple[str, ...]
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class SplitReady(Event):
    """The members have settled."""

    name: ClassVar[str] = "split.ready"
    level: ClassVar[Level] = Level.INFO
    model: str
    participants: tuple[str, ...]
    excluded: tuple[str, ...]
    outcome: str
    waited_s: float
    generation: int


@dataclass(frozen=True)
class SplitQuorumFailed(Event):
    """The deadline passed below the quorum."""

    name: ClassVar[str] = "split.quorum_failed"
    level: ClassVar[Level] = Level.ERROR
    model: str
    quorum: int
    participants: tuple[str, ...]
    excluded: tuple[str, ...]
    waited_s: float


@dataclass(frozen=True)
class SplitPlanned(Event):
    """A plan stands: each stage's node and layers. `missing_bytes` have to be fetched by its nodes before it runs, as
    far as it is known what they have."""

    name: ClassVar[str] = "split.planned"
    level: ClassVar[Level] = Level.INFO
    model: str
    objective: str
    stages: tuple[str, ...]
    generation: int
    coordinator: str
    missing_bytes: int
    method: str
    gap: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SplitShortfall(Event):
    """No plan exists; the message says how short, who was counted, who was left out and what would help."""

    name: ClassVar[str] = "split.shortfall"
    level: ClassVar[Level] = Level.ERROR
    model: str
    kind: str
    required_bytes: int
    available_bytes: int
    short_by_bytes: int
    short_layers: int
    message: str
    remedies: tuple[str, ...]


@dataclass(frozen=True)
class SplitReplanned(Event):
    """A running split has a new plan: why, and which. Where a stage was lost, `node` is whose and `lost` which layers
    of the plan before were on it; without, a better plan was found."""

    name: ClassVar[str] = "split.replanned"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    cause: str
    node: str | None
    lost: tuple[str, ...]
    stages: tuple[str, ...]
    moved_bytes: int


@dataclass(frozen=True)
class SplitWithdrawn(Event):
    """A split ended: why, and what it would need."""

    name: ClassVar[str] = "split.withdrawn"
    level: ClassVar[Level] = Level.WARNING
    model: str
    generation: int
    cause: str


@dataclass(frozen=True)
class SplitFenced(Event):
    """This worker refused an older plan's request."""

    name: ClassVar[str] = "split.fenced"
    level: ClassVar[Level] = Level.INFO
    model: str
    coordinator: str
    generation: int
    highest_generation: int


@dataclass(frozen=True)
class SplitReserved(Event):
    """This worker holds bytes for a stage."""

    name: ClassVar[str] = "split.reserved"
    level: ClassVar[Level] = Level.INFO
    model: str
    coordinator: str
    generation: int
    layer_start: int
    layer_end: int
    reserved_bytes: int


@dataclass(frozen=True)
class SplitReleased(Event):
    """This worker gave a reservation back."""

    name: ClassVar[str] = "split.released"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    reason: str
    reserved_bytes: int


# --- engine ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineFound(Event):
    """This machine has an engine that works; `rpc_version` must match among a split's nodes. What bounds its processes:
    a network of their own, the kernel's file rules (`landlock`: their ABI; 0: none, and engine processes read what this
    user reads) and making TCP sockets only."""

    name: ClassVar[str] = "engine.found"
    level: ClassVar[Level] = Level.INFO
    engine: str
    kind: str
    rpc_version: str
    private_network: bool
    landlock: int
    tcp_only: bool


@dataclass(frozen=True)
class EngineMissing(Event):
    """This machine can hold no stages and serve no model: why, and what to do."""

    name: ClassVar[str] = "engine.missing"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    advice: str


@dataclass(frozen=True)
class EngineDied(Event):
    """An engine process ended by itself: by which signal or exit code, and what it wrote last."""

    name: ClassVar[str] = "engine.died"
    level: ClassVar[Level] = Level.ERROR
    model: str
    generation: int
    part: str
    how: str
    last_lines: tuple[str, ...]


@dataclass(frozen=True)
class StageStarted(Event):
    """This worker's stage runs: its RPC server answers, and only its coordinator's tunnels lead there."""

    name: ClassVar[str] = "stage.started"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    coordinator: str
    layer_start: int
    layer_end: int
    pid: int
    private_network: bool
    landlock: int
    tcp_only: bool
    cached_weights: bool


@dataclass(frozen=True)
class SplitLoading(Event):
    """A model is being loaded: `percent` of it, or of what `node` fetches before, or copies from files of its own."""

    name: ClassVar[str] = "split.loading"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    step: str
    node: str
    percent: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class SplitMemoryCheck(Event):
    """What a stage really takes on its device beside what the plan predicted, after loading. Where the weights are
    `mapped` from the file, found is all from the first of them to the last, also what is of other stages and never
    read."""

    name: ClassVar[str] = "split.memory_check"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    node: str
    device: str
    weights_bytes: int
    predicted_weights_bytes: int
    cache_bytes: int
    predicted_cache_bytes: int
    compute_bytes: int
    predicted_compute_bytes: int
    mapped: bool


@dataclass(frozen=True)
class SplitServing(Event):
    """A model is loaded and answers requests."""

    name: ClassVar[str] = "split.serving"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    stages: int
    after_s: float


@dataclass(frozen=True)
class SplitLoadFailed(Event):
    """A plan stood and could not be run; `node` is the one whose part failed."""

    name: ClassVar[str] = "split.load_failed"
    level: ClassVar[Level] = Level.ERROR
    model: str
    generation: int
    node: str
    reason: str


@dataclass(frozen=True)
class WeightsFilled(Event):
    """Large tensors of a local model file were put where the engine finds them by hash; they cross no network."""

    name: ClassVar[str] = "weights.filled"
    level: ClassVar[Level] = Level.INFO
    model: str
    tensors: int
    total_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class WeightsFetching(Event):
    """This worker lacks the model: it fetches the large tensors of its stage from `source`, the coordinator or a nearer
    member with the same files. `resumed_bytes` are here already, from an earlier load or one that was broken off."""

    name: ClassVar[str] = "weights.fetching"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    source: str
    carrier: str
    total_bytes: int
    resumed_bytes: int


@dataclass(frozen=True)
class WeightsFetched(Event):
    """All large tensors of the stage are here, each verified by its hash. `resumed_bytes` of them were here before."""

    name: ClassVar[str] = "weights.fetched"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    source: str
    tensors: int
    total_bytes: int
    received_bytes: int
    resumed_bytes: int
    after_s: float


@dataclass(frozen=True)
class WeightsInterrupted(Event):
    """Fetching was broken off; it goes on after a pause, from where it stopped."""

    name: ClassVar[str] = "weights.interrupted"
    level: ClassVar[Level] = Level.WARNING
    model: str
    source: str
    reason: str
    done_bytes: int
    total_bytes: int
    retry_after_s: float


@dataclass(frozen=True)
class WeightsRejected(Event):
    """What `peer` sent of a tensor, or said of all its tensors, is wrong; it was thrown away. `again`: it is fetched
    once more from its beginning."""

    name: ClassVar[str] = "weights.rejected"
    level: ClassVar[Level] = Level.WARNING
    model: str
    peer: str
    tensor: str
    size_bytes: int
    reason: str
    again: bool


@dataclass(frozen=True)
class WeightsSkipped(Event):
    """The weights cache was not filled: the coordinator's engine sends these bytes over the network instead, at every
    load."""

    name: ClassVar[str] = "weights.skipped"
    level: ClassVar[Level] = Level.WARNING
    model: str
    needed_bytes: int
    reason: str


@dataclass(frozen=True)
class WeightsRemoved(Event):
    """Files of the weights cache that no stage uses were removed. `folder` is the manifest's, with the node that the
    tensors were fetched from."""

    name: ClassVar[str] = "weights.removed"
    level: ClassVar[Level] = Level.INFO
    folder: str
    freed_bytes: int


@dataclass(frozen=True)
class ApiListening(Event):
    """The OpenAI-compatible interface answers."""

    name: ClassVar[str] = "api.listening"
    level: ClassVar[Level] = Level.INFO
    address: str


@dataclass(frozen=True)
class ApiUnavailable(Event):
    """The OpenAI-compatible interface can't listen; the node runs without it."""

    name: ClassVar[str] = "api.unavailable"
    level: ClassVar[Level] = Level.ERROR
    address: str
    reason: str
    advice: str


@dataclass(frozen=True)
class ApiFailed(Event):
    """An answer to a client broke off, or could not begin."""

    name: ClassVar[str] = "api.failed"
    level: ClassVar[Level] = Level.WARNING
    model: str
    node: str
    reason: str


# --- tunnels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TunnelsListening(Event):
    """Where tunnels over TCP are taken; `problem` says why nowhere, and the links carry them then."""

    name: ClassVar[str] = "tunnel.listening"
    level: ClassVar[Level] = Level.INFO
    address: str | None
    problem: str | None


@dataclass(frozen=True)
class TunnelCarrier(Event):
    """What carries the tunnels to and from a peer (`tcp`, `quic`: the link, `relay`: a neighbour), told with the first
    of each split generation, and of requests; again when it changes."""

    name: ClassVar[str] = "tunnel.carrier"
    level: ClassVar[Level] = Level.INFO
    peer: str
    purpose: str
    carrier: str
    model: str
    generation: int | None


@dataclass(frozen=True)
class TunnelOpened(Event):
    """A tunnel stands: to whom, what for, and what carries it (`tcp`, `quic`: the link, `relay`: a neighbour)."""

    name: ClassVar[str] = "tunnel.opened"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    purpose: str
    carrier: str
    opened_here: bool
    model: str
    generation: int | None
    stage: int


@dataclass(frozen=True)
class TunnelClosed(Event):
    """A tunnel is over, with the bytes it carried."""

    name: ClassVar[str] = "tunnel.closed"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    purpose: str
    carrier: str
    reason: str
    sent_bytes: int
    received_bytes: int
    after_s: float


@dataclass(frozen=True)
class TunnelDenied(Event):
    """A tunnel was refused, by this node (`by_us`) or by the peer. `peer` is not known where a TCP connection showed a
    ticket that is worth nothing (`bad_ticket`)."""

    name: ClassVar[str] = "tunnel.refused"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    purpose: str
    model: str
    code: str
    reason: str
    by_us: bool


@dataclass(frozen=True)
class TunnelTcpFailed(Event):
    """TCP to a peer did not come about, so that its link carries tunnels to it for now."""

    name: ClassVar[str] = "tunnel.tcp_failed"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    problem: str
    retry_after_s: float


# --- control and log -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ControlListening(Event):
    """The control socket answers."""

    name: ClassVar[str] = "control.listening"
    level: ClassVar[Level] = Level.INFO
    address: str


@dataclass(frozen=True)
class ControlRefused(Event):
    """A control request was refused."""

    name: ClassVar[str] = "control.refused"
    level: ClassVar[Level] = Level.WARNING
    route: str
    reason: str


@dataclass(frozen=True)
class LogFolded(Event):
    """Repeats of an event were folded into this line."""

    name: ClassVar[str] = "log.folded"
    level: ClassVar[Level] = Level.INFO
    folded_event: str
    subject: str
    count: int
    over_s: float


@dataclass(frozen=True)
class LibraryMessage(Event):
    """A warning of a library that this program is built on, in the library's own words."""

    name: ClassVar[str] = "log.library"
    level: ClassVar[Level] = Level.WARNING
    logger: str
    text: str


CATALOGUE: dict[str, type[Event]] = {event.name: event for event in Event.__subclasses__()}
"""Every event type by its dotted name."""
