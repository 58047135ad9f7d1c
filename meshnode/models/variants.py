"""Other files of the same model: the same layers in fewer bytes, known by their names and shapes.

What lives here: `smaller_variants`, and which files beside a model's own are worth reading for it. What does not:
whether one of them would help (`planner.remedies`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from meshnode.models.package import ModelPackage
from meshnode.models.refs import find_models
from planner import ModelSpec

_TYPE: Final = re.compile(
    r"[-_. ]((UD|i1)[-_.])?(I?Q\d\w*|T?Q\d_\d|MXFP4\w*|NVFP4\w*|BF16|F16|FP16|F32|FP8|\d+bit)$", re.I
)
_PART: Final = re.compile(r"-\d{5}-of-\d{5}$")
_MOST_NEIGHBOURS: Final = 8


def family(name: str) -> str:
    """A model's name without its part number and the type of its weights."""
    return _TYPE.sub("", _PART.sub("", name)).lower()


def smaller_variants(model: ModelPackage, others: Iterable[ModelPackage]) -> tuple[ModelSpec, ...]:
    """Those of `others` that are the same model in fewer bytes."""
    return tuple(
        other.spec
        for other in others
        if family(other.name) == family(model.name)
        and (other.architecture, other.spec.layer_count) == (model.architecture, model.spec.layer_count)
        and other.spec.hidden_size == model.spec.hidden_size
        and other.spec.file_bytes < model.spec.file_bytes
    )


def neighbours(ref: str) -> tuple[str, ...]:
    """Refs of files beside the GGUF file `ref` that are named as the same model; none for any other ref."""
    path = Path(ref).expanduser()
    if path.suffix != ".gguf" or not path.is_file():
        return ()
    beside = [found for found in find_models((path.parent,)) if Path(found.ref).parent == path.parent]
    named = [found.ref for found in beside if family(Path(found.ref).stem) == family(path.stem)]
    return tuple(each for each in named if Path(each) != path)[:_MOST_NEIGHBOURS]
