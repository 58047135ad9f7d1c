"""What llama-server says, in this mesh's words."""

from __future__ import annotations

import json

import pytest

from meshnode.engine.runs.llama_server import refusal, says_trouble, tokens_in
from meshnode.engine.runs.watch import UNTIL_SERVING, LoadProgress

CHAT = "/v1/chat/completions"
METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total {read}
llamacpp:prompt_tokens_cached_total 5
llamacpp:tokens_predicted_total {made}
llamacpp:tokens_predicted_seconds_total {seconds}
llamacpp:predicted_tokens_seconds 0
"""


def a_refusal(kind: str, message: str, code: int = 400) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind}}).encode()


def test_refusals_get_the_words_that_all_others_have() -> None:
    over = refusal(CHAT, 400, a_refusal("exceed_context_size_error", "request (9 tokens) exceeds"))["error"]
    assert (over["code"], over["param"], over["type"]) == (
        "context_length_exceeded",
        "messages",
        "invalid_request_error",
    )
    field = refusal(CHAT, 400, a_refusal("invalid_request_error", "Field 'seed': type must be number"))["error"]
    assert (field["code"], field["param"]) == ("invalid_request", "seed")
    broken = refusal(CHAT, 500, b"Internal Server Error")["error"]
    assert (broken["code"], broken["message"], broken["type"]) == (
        "engine_error",
        "Internal Server Error",
        "server_error",
    )


def test_tokens_are_counted_and_the_speed_is_the_newest_requests() -> None:
    first = tokens_in(METRICS.format(read=10, made=40, seconds=4.0), {})
    assert first == {"prompt": 15.0, "completion": 40.0, "per_second": 10.0, "seconds": 4.0}
    second = tokens_in(METRICS.format(read=10, made=60, seconds=5.0), first)
    assert second is not None
    assert second["per_second"] == 20.0
    idle = tokens_in(METRICS.format(read=12, made=60, seconds=5.0), second)
    assert idle is not None
    assert idle["per_second"] == 20.0
    assert tokens_in("nothing of the kind", {}) is None


@pytest.mark.parametrize(
    ("line", "is_trouble"),
    [
        ("0.05.607.093 E srv  load_model: failed to load model", True),
        ("W something odd", True),
        ("/src/ggml/src/ggml-rpc/ggml-rpc.cpp:566: Remote RPC server crashed", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("  what():  std::bad_alloc", True),
        ('0.04.588.707 D srv  http: streamed chunk: data: {"text": "an error of mine"}', False),
        ('data: {"text": "E what I said"}', False),
        ("0.04.541.912 I slot get_availabl: id  0 | selected slot by LRU", False),
    ],
)
def test_of_a_serving_log_only_its_own_trouble_is_kept(line: str, is_trouble: bool) -> None:
    assert says_trouble(line) is is_trouble


def test_progress_never_falls_and_is_whole_only_when_it_serves() -> None:
    progress = LoadProgress(file_bytes=100, sending_bytes=100)
    assert progress.share(100, 0) == 0.5
    assert progress.share(20, 40) == 0.5, "what was sent is unmapped again"
    assert progress.share(100, 500) == UNTIL_SERVING
    assert LoadProgress(0, -5).share(0, 0) == 0.0
