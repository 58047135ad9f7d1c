"""A model as a process: llama-cpp-python with the plan's devices, behind OpenAI's routes on a private Unix socket.

What lives here: the child's main function. What does not: the node's side (`meshnode.engine.runs.models`), the routes'
texts and checks (`meshnode.engine.serving.completions`). The package's own server can't be given devices and wants a
web framework of its own; its `Llama` class does everything that matters (chat templates, sampling, stop sequences) and
is used as it is.

llama.cpp leaves remote CPU devices out unless they are named in the model parameters' `devices`, which the package
keeps but never fills: the default parameters are replaced by ours for that.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources
from meshnode.engine.devices import CPU
from meshnode.engine.native import Native, NativeMissing
from meshnode.engine.words import Speaker

GGML_TYPES: Final = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
"""Numbers of GGML's types (ggml.h, `enum ggml_type`)."""
FAILED: Final = 70


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """One device of the plan as the engine is told it: a local one by `name`, or number `index` of those behind
    `endpoint`. `layers` counts the plan's layers on it, the output head as one more on the last."""

    layers: int
    name: str = ""
    endpoint: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class ModelOrders:
    """What to load and how. `context` is tokens per lane; `libraries` is the package's own directory; `reach` has the
    model's files."""

    model: str
    path: str
    socket: str
    libraries: str
    devices: tuple[EngineDevice, ...]
    context: int
    lanes: int
    kv_unified: bool
    micro_batch: int
    flash_attention: bool
    swa_full: bool
    k_type: str
    v_type: str
    threads: int
    reach: Reach = field(default_factory=Reach)

    def to_argument(self) -> str:
        """The one word of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> ModelOrders:
        """What `to_argument` made."""
        fields = json.loads(text)
        devices = tuple(EngineDevice(**device) for device in fields.pop("devices"))
        return cls(devices=devices, reach=Reach.from_fields(fields.pop("reach")), **fields)

    @property
    def needed(self) -> Reach:
        """What the process uses."""
        cards = any(device.name not in ("", CPU) for device in self.devices)
        return self.reach.also(reads=[self.path, self.libraries], cards=cards)


def main(arguments: Sequence[str]) -> int:
    """Loads, says `ready`, serves until it is killed. Returns an exit code where it can't."""
    orders = ModelOrders.from_argument(arguments[0])
    end_with_parent()
    speaker = Speaker()
    limit_resources()
    listener = listen_at(orders.socket)
    drop_rights()
    give_up_the_rest(orders.needed, connects=ports_of(orders.devices))
    try:
        llama = _load(orders, speaker)
    except (NativeMissing, ValueError, OSError) as error:
        sys.stderr.write(f"meshnode: the model can't be loaded: {error}\n")
        return FAILED
    from meshnode.engine.serving.completions import serve

    speaker.say(ready=True, context=int(llama.n_ctx()))
    serve(llama, orders.model, listener, lambda tokens: speaker.say(tokens=tokens))
    return 0


def ports_of(devices: Sequence[EngineDevice]) -> list[int]:
    """The TCP ports that lead to the devices of others."""
    return sorted({int(device.endpoint.rpartition(":")[2]) for device in devices if device.endpoint})


def listen_at(path: str) -> socket.socket:
    """A listening Unix socket for this user only. Raises `OSError`. In the model's process it is bound before the
    engine is loaded, so that a place that can't be used is told at once."""
    Path(path).unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(64)
    finally:
        os.umask(before)
    return listener


def _load(orders: ModelOrders, speaker: Speaker) -> Any:  # noqa: ANN401  # the package brings no types
    """The loaded model. Raises `ValueError` where llama.cpp refuses; its log says why."""
    import llama_cpp.llama_cpp as low

    from meshnode.engine.serving.counting import CountingLlama
    from meshnode.engine.serving.vocabularies import vocabulary_of

    native = Native(Path(orders.libraries))
    handles = _handles(orders.devices, native)
    wanted = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
    last = [-1]

    def tell(done: float, _: object) -> bool:
        if int(done * 100) != last[0]:
            last[0] = int(done * 100)
            speaker.say(progress=round(done, 4))
        return True

    parameters = low.llama_model_default_params()
    parameters.devices = ctypes.cast(wanted, ctypes.c_void_p)
    callback = low.llama_progress_callback(tell)
    parameters.progress_callback = callback
    # Weights repacked for this CPU would be a second copy that the plan does not know of.
    parameters.use_extra_bufts = False
    low.llama_model_default_params = lambda: parameters
    llama = CountingLlama(
        model_path=orders.path,
        n_gpu_layers=-1,
        tensor_split=[float(device.layers) for device in orders.devices],
        n_ctx=orders.context,
        n_batch=orders.micro_batch,
        n_ubatch=orders.micro_batch,
        n_threads=orders.threads,
        n_threads_batch=orders.threads,
        flash_attn=orders.flash_attention,
        swa_full=orders.swa_full,
        type_k=GGML_TYPES[orders.k_type],
        type_v=GGML_TYPES[orders.v_type],
        verbose=True,
    )
    llama.keeps = (wanted, callback, native)
    llama.vocabulary = vocabulary_of(llama._model.model, llama.metadata)
    return llama


def _handles(devices: Sequence[EngineDevice], native: Native) -> list[int]:
    behind: dict[str, list[int]] = {}
    handles = []
    for device in devices:
        if device.name:
            handles.append(native.device(device.name))
            continue
        if device.endpoint not in behind:
            behind[device.endpoint] = native.remote_devices(device.endpoint)
        found = behind[device.endpoint]
        if device.index >= len(found):
            raise NativeMissing(f"{device.endpoint}: device {device.index} of {len(found)} is asked for")
        handles.append(found[device.index])
    return handles


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
