"""A model as the planner sees it: bytes, widths and counts, layer by layer; no file, no tensor.

Lives here: `ModelSpec` and the runs of equal layers it is made of (`LayerSpec`). Not here: reading model files
(`meshnode.models`), profiles (`planner.files`), or what a workload makes of the figures (`planner.memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from planner.errors import MAX_BYTES, InvalidPlanInput, name, whole

MAX_LAYERS: Final = 4096


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A run of `count` equal, adjacent layers.

    `weight_bytes` lie in memory; `active_weight_bytes` are read for one token (less for a mixture of experts; None:
    all). `k_width` and `v_width` are cache elements per token and layer (KV heads x key or value length; MLA: 576 and
    0), so a row's size is exact for every cache type. `window` > 0 is a sliding-window layer of that many tokens; 0 is
    full attention. `state_bytes` is recurrent state per sequence. `active_parameters`, where known, lets compute time
    be predicted beside memory time.
    """

    count: int
    weight_bytes: int
    active_weight_bytes: int | None = None
    k_width: int = 0
    v_width: int = 0
    window: int = 0
    state_bytes: int = 0
    active_parameters: int | None = None

    def __post_init__(self) -> None:
        whole("layers.count", self.count, minimum=1, maximum=MAX_LAYERS)
        whole("layers.weight_bytes", self.weight_bytes)
        if self.active_weight_bytes is not None:
            whole("layers.active_weight_bytes", self.active_weight_bytes, maximum=self.weight_bytes)
        whole("layers.k_width", self.k_width, maximum=1 << 24)
        whole("layers.v_width", self.v_width, maximum=1 << 24)
        whole("layers.window", self.window, maximum=1 << 32)
        whole("layers.state_bytes", self.state_bytes)
        if self.active_parameters is not None:
            whole("layers.active_parameters", self.active_parameters)

    @classmethod
    def with_f16_kv(
        cls,
        *,
        count: int,
        weight_bytes: int,
        kv_bytes_per_token: int,
        active_weight_bytes: int | None = None,
        window: int = 0,
        state_bytes: int = 0,
    ) -> LayerSpec:
        """A run described by its f16 KV bytes per token and layer (K and V together), as profiles give them.

        Raises `InvalidPlanInput` if the figure is odd: an f16 element has two bytes.
        """
        whole("layers.kv_bytes_per_token", kv_bytes_per_token)
        if kv_bytes_per_token % 2:
            raise InvalidPlanInput("layers.kv_bytes_per_token", kv_bytes_per_token, "an even number (f16 elements)")
        elements = kv_bytes_per_token // 2
        return cls(
            count=count,
            weight_bytes=weight_bytes,
            active_weight_bytes=active_weight_bytes,
            k_width=elements - elements // 2,
            v_width=elements // 2,
            window=window,
            state_bytes=state_bytes,
        )

    @property
    def read_bytes(self) -> int:
        """Weight bytes read for one token."""
        return self.weight_bytes if self.active_weight_bytes is None else self.active_weight_bytes


@dataclass(frozen=True)
class ModelSpec:
    """A model. `layers` are runs in order; `layer_count` counts single layers.

    `embedding_bytes` is the token embedding. `output_bytes` is what the file holds beyond layers and embedding that
    lies with the output head (norm, and the head itself unless tied). `tied_embedding`: the head is the embedding; a
    second copy of `embedding_bytes` then lies with `output_bytes` (see `planner.engine` for when).
    `head_count` (attention heads) sizes the score buffers of attention without flash attention; `feed_forward_width`
    (what one token uses: experts used x expert width) and `attention_width` (heads x key length) size compute buffers;
    0 is unknown, and then 4 x and 1 x `hidden_size` are taken.

    Raises `InvalidPlanInput`: no layers, more than 4096, or a total above `MAX_BYTES`.
    """

    name: str
    layers: tuple[LayerSpec, ...]
    embedding_bytes: int = 0
    output_bytes: int = 0
    tied_embedding: bool = False
    vocabulary: int = 0
    hidden_size: int = 0
    native_context: int = 0
    head_count: int = 0
    feed_forward_width: int = 0
    attention_width: int = 0

    def __post_init__(self) -> None:
        name("model.name", self.name)
        whole("model.embedding_bytes", self.embedding_bytes)
        whole("model.output_bytes", self.output_bytes)
        whole("model.vocabulary", self.vocabulary, maximum=1 << 28)
        whole("model.hidden_size", self.hidden_size, maximum=1 << 24)
        whole("model.native_context", self.native_context, maximum=1 << 32)
        whole("model.head_count", self.head_count, maximum=1 << 20)
        whole("model.feed_forward_width", self.feed_forward_width, maximum=1 << 26)
        whole("model.attention_width", self.attention_width, maximum=1 << 24)
        if not self.layers:
            raise InvalidPlanInput("model.layers", 0, "at least one layer")
        if self.layer_count > MAX_LAYERS:
            raise InvalidPlanInput("model.layers", self.layer_count, f"at most {MAX_LAYERS} layers")
        if self.file_bytes > MAX_BYTES:
            raise InvalidPlanInput("model", self.file_bytes, f"a total of at most {MAX_BYTES} bytes")

    @cached_property
    def each_layer(self) -> tuple[LayerSpec, ...]:
        """The runs unrolled: one entry per layer (each entry's `count` is its run's; ignore it)."""
        return tuple(run for run in self.layers for _ in range(run.count))

    @property
    def layer_count(self) -> int:
        """L, the number of layers."""
        return sum(run.count for run in self.layers)

    @property
    def layer_weight_bytes(self) -> int:
        """Weight bytes of all layers."""
        return sum(run.count * run.weight_bytes for run in self.layers)

    @property
    def head_bytes(self) -> int:
        """Bytes that lie with the output head on the last stage, a tied embedding's copy included."""
        return self.output_bytes + (self.embedding_bytes if self.tied_embedding else 0)

    @property
    def file_bytes(self) -> int:
        """Bytes of the model's file: layers, embedding, output."""
        return self.layer_weight_bytes + self.embedding_bytes + self.output_bytes

    def to_dict(self) -> dict[str, object]:
        """Plain JSON, in the shape of a model profile."""
        return {
            "name": self.name,
            "native_context": self.native_context,
            "embedding_bytes": self.embedding_bytes,
            "output_bytes": self.output_bytes,
            "tied_embedding": self.tied_embedding,
            "vocabulary": self.vocabulary,
            "hidden_size": self.hidden_size,
            "head_count": self.head_count,
            "feed_forward_width": self.feed_forward_width,
            "attention_width": self.attention_width,
            "layers": [
                {
                    "count": run.count,
                    "weight_bytes": run.weight_bytes,
                    "active_weight_bytes": run.read_bytes,
                    "k_width": run.k_width,
                    "v_width": run.v_width,
                    "kv_bytes_per_token": 2 * (run.k_width + run.v_width),
                    "window": run.window,
                    "state_bytes": run.state_bytes,
                }
                for run in self.layers
            ],
        }
