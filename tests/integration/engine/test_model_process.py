"""A model's process alone: what a request must not do to it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshnode.child import child_environment
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.http1 import ask, whole_body
from meshnode.engine.model_process import EngineDevice, ModelOrders
from meshnode.engine.native import library_directory
from meshnode.engine.process import EngineProcess, running
from meshnode.engine.run_devices import MODEL_MODULE

pytestmark = pytest.mark.engine

ROUTE = "/v1/chat/completions"


@asynccontextmanager
async def a_model(gguf: Path, directory: Path) -> AsyncIterator[tuple[EngineProcess, Path]]:
    """A loaded model and its socket."""
    path = directory / "m.sock"
    orders = ModelOrders(
        model="m", path=str(gguf), socket=str(path), libraries=str(library_directory()),
        devices=(EngineDevice(19, name=CPU),), context=512, lanes=1, kv_unified=False, micro_batch=512,
        flash_attention=True, swa_full=False, k_type="f16", v_type="f16", threads=1,
    )  # fmt: skip
    command = [sys.executable, "-m", MODEL_MODULE, orders.to_argument()]
    async with running(command, child_environment(engine_environment(()))) as process:
        async for word in process.words:
            if "ready" in word:
                break
        yield process, path


async def status_of(path: Path, schema: Any) -> tuple[int, str]:
    body = {
        "model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}],
        "response_format": {"type": "json_object", "schema": schema},
    }  # fmt: skip
    async with await anyio.connect_unix(path) as stream:
        answer = await ask(stream, "POST", ROUTE, (), json.dumps(body).encode())
        return answer.status, (await whole_body(answer, 100_000)).decode()


async def test_schemas_that_no_grammar_can_be_made_of_are_refused_and_end_nothing(gguf: Path, tmp_path: Path) -> None:
    async with a_model(gguf, tmp_path) as (process, path):
        unusable: tuple[dict[str, list[str]], ...] = ({"enum": []}, {"anyOf": []})
        for schema in unusable:
            status, text = await status_of(path, schema)
            assert status == 400
            assert "grammar" in text
        assert (await status_of(path, {"type": "string", "maxLength": 20}))[0] == 200
        assert process.is_running
