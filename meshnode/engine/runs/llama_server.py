"""What `llama-server` says, in this mesh's words: refusals in OpenAI's shape, tokens counted, its log while it serves.

What lives here: reading those texts, pure. What does not: its command line (`meshnode.engine.commands`), what it is
asked (`meshnode.engine.wishes.llama_server`), what it loaded (`meshnode.engine.runs.report`).

Sources: llama.cpp's tools/server/server-common.cpp (`format_error_response`), server-task.cpp (`to_metrics`),
common/log.h (levels in a line's prefix), ggml/src/ggml.c (`ggml_abort`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_CONTEXT: Final = "exceed_context_size_error"
_KINDS: Final[Mapping[str, str]] = {
    _CONTEXT: "context_length_exceeded",
    "invalid_request_error": "invalid_request",
    "not_supported_error": "not_supported",
    "unavailable_error": "loading",
}
_INPUT: Final = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
_FIELD: Final = re.compile(r"^Field '(\w{1,40})':|^\"(\w{1,40})\" ")
"""A message of its own checks begins with the field at fault."""
MAX_SHOWN: Final = 300
_OWN_TROUBLE: Final = re.compile(
    r"^(?:[\d.]+ )?[EW] "  # a line of the levels error and warning
    r"|^\S+\.(?:c|cc|cpp|cu|cuh|h|hpp|m|metal|hip):\d+: "  # an assertion that failed
    r"|^terminate called|^ +what\(\): |^CUDA error|^meshnode: "
)


def says_trouble(line: str) -> bool:
    """Whether a line of its log tells of its own trouble. While it serves, other lines hold what requests and answers
    say: those are nobody's to keep."""
    return _OWN_TROUBLE.search(line) is not None


def refusal(path: str, status: int, body: bytes) -> dict[str, Any]:
    """The body of a refusal of a request to `path`, in OpenAI's shape: `code` is a word, as everywhere else here, where
    llama-server repeats the status."""
    try:
        error = msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        error = {"message": body.decode("utf-8", "replace").strip() or f"llama-server answered {status}"}
    told, message = str(error.get("type")), str(error.get("message"))
    field = _FIELD.search(message)
    code = _KINDS.get(told, "engine_error" if status >= 500 else "invalid_request")
    return {
        "error": {
            "message": message[:MAX_SHOWN],
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": _INPUT.get(path) if told == _CONTEXT else None if field is None else field[1] or field[2],
            "code": code,
        }
    }


def tokens_in(metrics: str, before: Mapping[str, float]) -> dict[str, float] | None:
    """Tokens read and made since its start in its answer to `/metrics`, and made per second since the answer `before`,
    as this gave it. None where it has no such lines. Tokens of a prompt that it still had in its cache count as read,
    as they do in an answer's `usage`."""
    found = dict(line.removeprefix("llamacpp:").rsplit(" ", 1) for line in metrics.splitlines() if _is_sample(line))
    try:
        prompt = float(found["prompt_tokens_total"]) + float(found.get("prompt_tokens_cached_total", 0))
        made, seconds = float(found["tokens_predicted_total"]), float(found["tokens_predicted_seconds_total"])
    except (KeyError, ValueError):
        return None
    newly_made, newly_s = made - before.get("completion", 0.0), seconds - before.get("seconds", 0.0)
    speed = newly_made / newly_s if newly_made > 0 and newly_s > 0 else before.get("per_second", 0.0)
    return {"prompt": prompt, "completion": made, "per_second": round(speed, 3), "seconds": seconds}


def _is_sample(line: str) -> bool:
    return line.startswith("llamacpp:") and " " in line
