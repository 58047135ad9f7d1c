"""A model's process alone: what a request must not do to it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from meshnode.child import child_environment
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.http1 import ask, whole_body
from meshnode.engine.native import library_directory
from meshnode.engine.process import EngineProcess, running
from meshnode.engine.runs.devices import MODEL_MODULE
from meshnode.engine.serving.process import EngineDevice, ModelOrders
from meshnode.engine.stillness import processor_ticks

pytestmark = pytest.mark.engine

ROUTE = "/v1/chat/completions"


@asynccontextmanager
async def a_model(
    gguf: Path, directory: Path, *, context: int = 512, micro_batch: int = 512
) -> AsyncIterator[tuple[EngineProcess, Path]]:
    """A loaded model and its socket."""
    path = directory / "m.sock"
    orders = ModelOrders(
        model="m", path=str(gguf), socket=str(path), libraries=str(library_directory()),
        devices=(EngineDevice(19, name=CPU),), context=context, lanes=1,
        kv_unified=False, micro_batch=micro_batch,
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


async def answer_to(path: Path, route: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with await anyio.connect_unix(path) as stream:
        body = json.dumps({"model": "m", "max_tokens": 1, **fields}).encode()
        answer = await ask(stream, "POST", route, (), body)
        return answer.status, json.loads(await whole_body(answer, 100_000))


async def test_only_what_was_read_is_counted_and_a_prompt_is_not_read_on_for_nobody(gguf: Path, tmp_path: Path) -> None:
    async with a_model(gguf, tmp_path, context=2048, micro_batch=16) as (process, path):

        async def read_in_all() -> int:
            async for word in process.words:
                if isinstance(tokens := word.get("tokens"), dict):
                    return int(tokens["prompt"])
            raise AssertionError("the process ended")

        assert (await answer_to(path, "/v1/completions", prompt="Hello"))[0] == 200
        before = await read_in_all()
        long = [{"role": "user", "content": "word " * 2048}]
        assert (await answer_to(path, ROUTE, messages=long))[0] == 400
        assert await read_in_all() == before
        body = json.dumps({"model": "m", "prompt": "word " * 2000, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n" % len(body)
        async with await anyio.connect_unix(path) as stream:
            began = processor_ticks(process.pid)
            await stream.send(head + body)
            await anyio.to_thread.run_sync(wait_ticks, process.pid, began + 20)
        assert await read_in_all() < before + 2000
        assert (await answer_to(path, "/v1/completions", prompt="Hello"))[0] == 200


def wait_ticks(pid: int, ticks: int) -> None:
    """Return once the process has used so much processor time: it is at work."""
    until = time.monotonic() + 60
    while processor_ticks(pid) < ticks:
        assert time.monotonic() < until
        time.sleep(0.01)


async def test_texts_that_would_stall_the_tokenizer_are_refused_by_what_they_hold(gguf: Path, tmp_path: Path) -> None:
    spaces, signs = " " * 20_000, "<a>" * 16_000
    async with a_model(gguf, tmp_path) as (_process, path):
        for route, fields, code in (
            ("/v1/completions", {"prompt": spaces}, "unbroken_text"),
            ("/v1/completions", {"prompt": [spaces]}, "unbroken_text"),
            (ROUTE, {"messages": [{"role": "user", "content": spaces}]}, "unbroken_text"),
            ("/v1/completions", {"prompt": signs}, "text_too_slow"),
            (ROUTE, {"messages": [{"role": "user", "content": signs}]}, "text_too_slow"),
            # As many splits as 100 KB can have: counted in a second, where it took minutes.
            ("/v1/completions", {"prompt": " \n" * 35_000}, "context_length_exceeded"),
            (ROUTE, {"messages": [{"role": "user", "content": " \n" * 35_000}]}, "context_length_exceeded"),
        ):
            status, answer = await answer_to(path, route, **fields)
            assert (status, answer["error"]["code"]) == (400, code)
        assert (await answer_to(path, "/v1/completions", prompt="Hello"))[0] == 200


def test_text_in_pieces_has_the_tokens_of_the_whole(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_cpp import Llama

    from meshnode.engine.serving.vocabularies import vocabulary_of
    from meshnode.engine.wishes import texts

    monkeypatch.setattr(texts, "PIECE_CHARACTERS", 1)
    llama = Llama(str(gguf), vocab_only=True, verbose=False)
    vocabulary = vocabulary_of(llama._model.model, llama.metadata)
    assert (vocabulary.alone, vocabulary.in_pairs) == (frozenset("\n\t"), frozenset(" "))
    chance = random.Random(1)
    bits = [*" \n\t\r.1<", "  ", " " * 33, "\n" * 33, "word", "<bos>", "é", "中", "\u2581"]
    for _ in range(500):
        text = "".join(chance.choices(bits, k=chance.randrange(40)))
        whole = llama.tokenize(text.encode(), add_bos=False, special=True)
        pieces = (llama.tokenize(piece.encode(), add_bos=False, special=True) for piece in vocabulary.pieces(text))
        assert [token for piece in pieces for token in piece] == whole
