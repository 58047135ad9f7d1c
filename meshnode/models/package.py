"""A package: a model's files and what they mean to the planner.

What lives here: the result of reading a model ref, as plain frozen data that goes into the cache and over a process
border. What does not: reading (`gguf_file`, `safetensors_dir`, `profile`), identity (`manifest`), what of it is at hand
(`inventory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from planner import ModelSpec

EMBEDDING = -1
"""Part number of the token embedding (and other tensors on the input side)."""
OUTPUT = -2
"""Part number of the output head and everything that lies with it."""


class PackageKind(StrEnum):
    """What a model ref led to. A profile has figures and no files: good for planning only."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    PROFILE = "profile"


@dataclass(frozen=True, slots=True)
class PartBytes:
    """`bytes` of tensors of one part: a layer by its index, `EMBEDDING` or `OUTPUT`."""

    part: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of a package with the tensor bytes it holds, part by part. `size_bytes` is the whole file's;
    `tensors_digest` a hash of its tensors' names and sizes."""

    path: str
    size_bytes: int
    holds: tuple[PartBytes, ...] = ()
    tensors_digest: str = ""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model ref as read. `spec` is what the planner works with.

    `left_out_bytes` lie in the files but are never loaded for text generation (multi-token-prediction layers, vision
    towers); `layers_in_files` counts layers as the files number them, those left out included, for engines that count
    so. `notes` are lines for the operator about figures that had to be assumed.
    """

    ref: str
    kind: PackageKind
    spec: ModelSpec
    architecture: str
    files: tuple[PackageFile, ...] = ()
    left_out_bytes: int = 0
    layers_in_files: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the model is called in messages."""
        return self.spec.name

    @property
    def size_bytes(self) -> int:
        """All files, headers and left-out tensors included; 0 for a profile."""
        return sum(file.size_bytes for file in self.files)

    def bytes_of(self, layer_start: int, layer_end: int, *, embedding: bool = False, output: bool = False) -> int:
        """Weight bytes of layers [layer_start, layer_end), and of the endpoints asked for (a tied head is not a second
        copy here: files hold it once)."""
        layers = self.spec.each_layer[layer_start:layer_end]
        endpoints = (self.spec.embedding_bytes if embedding else 0) + (self.spec.output_bytes if output else 0)
        return sum(layer.weight_bytes for layer in layers) + endpoints
