"""Meshes that serve a real model: what their tests share."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from asking_models import ModelClient
from making_nodes import RunningNode

MODEL = "gemma3-270m"
CONTEXT = 2048
PACE = (
    "--dwell-s", "0.5", "--first-quorum-window-s", "0.5", "--deadline-s", "30", "--pending-s", "1",
    "--engine-threads", "1", "--context", str(CONTEXT), "--capacity-interval-s", "1",
)  # fmt: skip
SPREAD = ("--force-split", "--objective", "proportional", "--declare-host", "2GB")
"""Every node gets a share, so that a model of 0.3 GB makes a split worth the name."""

PACKAGE, PROGRAMS = "package", "programs"
both_engines = pytest.mark.parametrize("engine", [PACKAGE, PROGRAMS], indirect=True)
"""For a test with the fixture `engine`, or `worker`: once with each kind."""
RPC_SERVER, LLAMA_SERVER = "ggml-rpc-server", "llama-server"


def programs() -> Path:
    """The folder of llama.cpp's own programs. A test that needs them is skipped where they are not built."""
    built = sorted(Path(__file__).resolve().parent.parent.glob(".wheels/llama.cpp-*/bin"))
    given = [Path(os.environ["ENGINE_PROGRAMS"])] if "ENGINE_PROGRAMS" in os.environ else built
    folder = next((each for each in given if (each / LLAMA_SERVER).exists()), None)
    if folder is None:
        pytest.skip("llama.cpp's own programs are not built: `make engine-programs` builds them")
    return folder


def program_options() -> tuple[str, ...]:
    """A node's options for llama.cpp's own programs."""
    folder = programs()
    return ("--rpc-server", str(folder / RPC_SERVER), "--llama-server", str(folder / LLAMA_SERVER))


def client_of(node: RunningNode) -> ModelClient:
    """A client of `node`'s interface."""
    return ModelClient(str(node.wait_event("api.listening")["address"]))


def engines_of(node: RunningNode) -> list[psutil.Process]:
    """Its engine processes: a model's, and a stage's two."""
    running = psutil.Process(node.pid).children(recursive=True)
    return [each for each in running if any(_is_engine(word) for word in each.cmdline())]


def programs_of(node: RunningNode, program: str) -> list[psutil.Process]:
    """Its processes that run `program`."""
    return [each for each in engines_of(node) if Path(each.cmdline()[0]).name == program]


def _is_engine(word: str) -> bool:
    return "meshnode.engine" in word or Path(word).name in (RPC_SERVER, LLAMA_SERVER)


def reserved_on(node: RunningNode) -> int:
    """Bytes of its devices that are held."""
    return sum(device["reserved_bytes"] for device in node.json("capacity")["devices"])
