"""What is asked of a model: context, lanes, cache types, micro-batch.

Lives here: `Workload` and the enums it is made of. Not here: what it costs (`planner.memory`, `planner.timing`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from planner.errors import InvalidPlanInput, whole


class CacheType(enum.StrEnum):
    """Element type of the K or V cache, named as GGML names it. Block sizes: ggml-common.h."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
    IQ4_NL = "iq4_nl"

    @property
    def block(self) -> tuple[int, int]:
        """(bytes per block, elements per block)."""
        return _BLOCKS[self]

    @property
    def is_quantised(self) -> bool:
        """A quantised V cache needs flash attention in llama.cpp."""
        return self.block[1] > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row of `elements`; a started block is stored whole."""
        block_bytes, block_elements = self.block
        return -(-elements // block_elements) * block_bytes


_BLOCKS = {
    CacheType.F32: (4, 1),
    CacheType.F16: (2, 1),
    CacheType.BF16: (2, 1),
    CacheType.Q8_0: (34, 32),
    CacheType.Q5_1: (24, 32),
    CacheType.Q5_0: (22, 32),
    CacheType.Q4_1: (20, 32),
    CacheType.Q4_0: (18, 32),
    CacheType.IQ4_NL: (18, 32),
}


class KvMode(enum.StrEnum):
    """How lanes share cache cells.

    `split`: each lane has its own cells, lanes x pad256(context). `unified`: one pool of pad256(context) for all.
    """

    SPLIT = "split"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class Workload:
    """A request: `context` tokens **per lane**, `lanes` parallel sequences, and how the cache is kept.

    `context=None` asks for the largest that fits. `filled_tokens` is how many tokens of each lane's context are in the
    cache in the moment that is timed; None means all of it, so predicted speeds are those of a full context (the
    slowest). `swa_full` keeps sliding-window layers at the full context. `k_auto`, `v_auto`: the type is decided with
    the plan (`planner.cache_ladder`); it stands at f16 until then.

    Raises `InvalidPlanInput`, also for a quantised V cache without flash attention (llama.cpp refuses it).
    """

    context: int | None = None
    lanes: int = 1
    kv_mode: KvMode = KvMode.SPLIT
    k_type: CacheType = CacheType.F16
    v_type: CacheType = CacheType.F16
    micro_batch: int = 512
    flash_attention: bool = True
    swa_full: bool = False
    filled_tokens: int | None = None
    k_auto: bool = False
    v_auto: bool = False

    def __post_init__(self) -> None:
        if self.context is not None:
            whole("context", self.context, maximum=1 << 32)
        if self.filled_tokens is not None:
            whole("filled_tokens", self.filled_tokens, maximum=1 << 32)
        whole("lanes", self.lanes, minimum=1, maximum=4096)
        whole("micro_batch", self.micro_batch, minimum=1, maximum=1 << 20)
        _cache_type("k_type", self.k_type)
        if _cache_type("v_type", self.v_type).is_quantised and not self.flash_attention:
            raise InvalidPlanInput("v_type", self.v_type.value, "f32, f16 or bf16 when flash attention is off")
        for field, auto, kind in (("k_type", self.k_auto, self.k_type), ("v_type", self.v_auto, self.v_type)):
            if auto and kind is not CacheType.F16:
                raise InvalidPlanInput(field, kind.value, "f16, where a type that is decided with the plan begins")

    def to_dict(self) -> dict[str, object]:
        """Plain JSON of every field of a workload that is planned: nothing of it is `auto` any more."""
        return {
            "context": self.context,
            "lanes": self.lanes,
            "kv_mode": self.kv_mode.value,
            "k_type": self.k_type.value,
            "v_type": self.v_type.value,
            "micro_batch": self.micro_batch,
            "flash_attention": self.flash_attention,
            "swa_full": self.swa_full,
            "filled_tokens": self.filled_tokens,
        }


def _cache_type(field: str, value: object) -> CacheType:
    if not isinstance(value, CacheType):
        raise InvalidPlanInput(field, value, "one of " + ", ".join(CacheType))
    return value
