"""The engine's own report of what it loaded where, read from its log.

What lives here: `LoadReport`, which takes log lines. What does not: comparing it (`meshnode.engine.runs.checking`).

The lines, as llama.cpp writes them (llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp):

    load_tensors: layer  11 assigned to device RPC1, is_swa = 1              (debug level)
    load_tensors: RPC0[127.0.0.1:50052] model buffer size =    25.15 MiB
    llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =    12.00 MiB
    llama_memory_recurrent: CUDA0 RS buffer size =    75.38 MiB
    sched_reserve:        CPU compute buffer size =    46.30 MiB

    srv    llama_server: model loaded                                        (llama-server alone, the last of a load)

The output head counts as one more layer. Sizes have two decimals of a MiB, so they are known to 5,243 bytes. Remote
devices are numbered twice: over all servers in layers, within their own server in buffers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_LAYER: Final = re.compile(r"load_tensors: layer\s+(\d{1,6}) assigned to device ([^\s,]+)")
_BUFFER: Final = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([0-9]{1,12}\.[0-9]{1,4}) MiB")
_LOCAL: Final = re.compile(r"(.+?)(?:_Mapped|_REPACK)?$")
_COMPLETE: Final = "model loaded"
MAX_LAYERS: Final = 10_000


class BufferKind(StrEnum):
    """What a buffer is for, in the engine's words."""

    WEIGHTS = "model"
    KV = "KV"
    STATE = "RS"
    COMPUTE = "compute"
    OUTPUT = "output"


@dataclass
class LoadReport:
    """What was read so far. `layers` maps a layer's number to its device; `buffers` has bytes by `holder_of` the buffer
    and kind; `mapped` are the holders whose weights are a mapped file. `is_complete`: no more is to come (llama-server
    says so)."""

    is_complete: bool = False
    mapped: set[str] = field(default_factory=set)
    layers: dict[int, str] = field(default_factory=dict)
    buffers: dict[tuple[str, BufferKind], int] = field(default_factory=dict)
    _compute: dict[str, int] = field(default_factory=dict)

    def read_line(self, line: str) -> None:
        """One line of the engine's log; most say nothing here."""
        if (layer := _LAYER.search(line)) is not None and len(self.layers) < MAX_LAYERS:
            self.layers[int(layer[1])] = layer[2]
        elif (buffer := _BUFFER.search(line)) is not None:
            self._add(buffer[1], BufferKind(buffer[2]), round(float(buffer[3]) * 2**20))
        elif _COMPLETE in line:
            self.is_complete = True

    def bytes_of(self, holder: str, *kinds: BufferKind) -> int:
        """Sum over `kinds` of what `holder` holds."""
        return sum(self.buffers.get((holder, kind), 0) for kind in kinds)

    def _add(self, name: str, kind: BufferKind, size_bytes: int) -> None:
        holder = holder_of(name)
        if name.endswith("_Mapped"):
            self.mapped.add(holder)
        if kind is BufferKind.COMPUTE:
            # Reserved anew for every kind of graph; the last line of a buffer is what it is in the end.
            self._compute[name] = size_bytes
            mine = [size for other, size in self._compute.items() if holder_of(other) == holder]
            self.buffers[holder, kind] = sum(mine)
        else:
            self.buffers[holder, kind] = self.buffers.get((holder, kind), 0) + size_bytes


def holder_of(buffer: str) -> str:
    """Whose memory a buffer is in: a remote device's as it is named (`RPC0[127.0.0.1:50052]`), `CPU` of `CPU_Mapped`,
    and also of `CUDA_Host`, which is pinned memory of the host."""
    if buffer.endswith("_Host"):
        return "CPU"
    match = _LOCAL.fullmatch(buffer)
    return match[1] if match is not None else buffer
