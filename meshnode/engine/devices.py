"""A machine's devices in the engine's words.

What lives here: which names and which environment make llama.cpp see exactly the devices of a stage. What does not:
finding devices (`meshnode.resources`), whose ids these are: `cpu`, `metal`, or an NVIDIA device's UUID.

CUDA numbers devices by what it is allowed to see, in the order of `CUDA_VISIBLE_DEVICES` (CUDA programming guide,
environment variables), so a stage's cards are `CUDA0`, `CUDA1`, ... in the stage's own order, and a process without
cards sees none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

CPU: Final = "CPU"
_OTHERS: Final = {"cpu": CPU, "metal": "Metal"}
_CARD_PREFIXES: Final = ("GPU-", "MIG-")
_LEFT_OUT: Final = ("MESHNODE_", "LLAMA_", "AIP_")
"""`LLAMA_ARG_*` and `LLAMA_API_KEY` are options of llama-server (common/arg.cpp), `AIP_*` make it listen elsewhere
(tools/server/server-http.cpp)."""


def is_card(device: str) -> bool:
    """Whether the id is an NVIDIA device's."""
    return device.startswith(_CARD_PREFIXES)


def engine_device_names(devices: Sequence[str]) -> tuple[str, ...]:
    """What the engine calls `devices` in a process with the environment of `engine_environment(devices)`. An id of
    another make, as a nodes file may have, is taken for a card."""
    names = []
    cards = 0
    for device in devices:
        if device in _OTHERS:
            names.append(_OTHERS[device])
        else:
            names.append(f"CUDA{cards}")
            cards += 1
    return tuple(names)


def engine_environment(devices: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of an engine process for `devices`: this one, without what is meshnode's own (it may hold a
    secret), without the options that llama.cpp's programs take from it (the plan's would not hold), and with the cards
    of the stage alone. An engine that aborts shall not call a debugger first, which takes seconds and buries what it
    said."""
    given = os.environ if environment is None else environment
    kept = {name: value for name, value in given.items() if not name.startswith(_LEFT_OUT)}
    cards = ",".join(device for device in devices if is_card(device))
    return {**kept, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": cards, "GGML_NO_BACKTRACE": "1"}
