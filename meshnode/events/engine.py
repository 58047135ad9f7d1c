"""The engine room: engines found, stages and models run, weights brought to them, the interface to clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


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
