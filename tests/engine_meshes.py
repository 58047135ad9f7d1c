"""Meshes that serve a real model: what their tests share."""

from __future__ import annotations

import psutil
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


def client_of(node: RunningNode) -> ModelClient:
    """A client of `node`'s interface."""
    return ModelClient(str(node.wait_event("api.listening")["address"]))


def engines_of(node: RunningNode) -> list[psutil.Process]:
    """Its engine processes: a model's, and a stage's two."""
    running = psutil.Process(node.pid).children(recursive=True)
    return [each for each in running if any("meshnode.engine" in word for word in each.cmdline())]
