"""What a client may ask of a model, checked: the fields of OpenAI's completion requests that are honoured here.

What lives here: `parse_completion`, `model_of`, their error. What does not: answering (`meshnode.engine.completions`).
Pure; the node reads only the model's name, the model's process the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repeat_penalty": (0.0, 10.0),
}
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {"top_k": (0, 1_000_000), "seed": (0, 2**32 - 1)}
_NOT_HONOURED: Final = ("logprobs", "top_logprobs", "logit_bias", "echo", "suffix", "best_of")
_CHAT_ONLY: Final = ("tools", "tool_choice", "response_format")
_COUNTS: Final = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
MAX_COUNT: Final = 1999
"""Of what a schema repeats: llama.cpp takes no grammar that repeats something more often (llama-grammar.cpp)."""
MAX_TOKENS: Final = 16_777_216
MAX_STOPS: Final = 16


class WrongWish(ValueError):
    """A request that can't be answered, in OpenAI's shape."""

    def __init__(self, field: str, message: str, code: str = "invalid_request") -> None:
        self.field = field
        self.message = message
        self.code = code
        super().__init__(f"{field}: {message}")

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        error = {"message": str(self), "type": "invalid_request_error", "param": self.field, "code": self.code}
        return {"error": error}


@dataclass(frozen=True)
class CompletionWish:
    """A checked request; `options` go to the engine as they are."""

    chat: bool
    stream: bool
    include_usage: bool
    options: dict[str, Any] = field(default_factory=dict)


class _Named(msgspec.Struct):
    """All that a node reads of a request. The decoder steps over the rest and makes nothing of it: of 32 MiB of empty
    lists it would make 0.7 GB of objects, and the event loop would stand for seconds."""

    model: str | None = None


def read_request(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises `WrongWish`."""
    return _decoded(body, dict[str, Any])


def model_of(body: bytes) -> str:
    """The model that a request names. Raises `WrongWish`."""
    model = _decoded(body, _Named).model
    if model is None or not 0 < len(model) <= 512:
        raise WrongWish("model", f"found {_shown(model)}, expected the name of a model: GET /v1/models lists them")
    return model


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.model`"):
            raise WrongWish("model", f"{error}: GET /v1/models lists them") from error
        raise WrongWish("body", f"found no JSON object: {error}"[:200]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongWish("body", f"no JSON: {error}"[:200]) from error
    except RecursionError as error:
        raise WrongWish("body", "lists or objects lie too deep in each other") from error


def parse_completion(body: bytes, *, chat: bool) -> CompletionWish:
    """The wish in `body`. Fields that only describe the client (`user`, `metadata`) are ignored; one that would change
    the answer and can't be honoured is refused. Raises `WrongWish`."""
    content = read_request(body)
    options: dict[str, Any] = dict([_messages(content) if chat else _prompt(content)])
    if content.get("n") not in (None, 1):
        raise WrongWish("n", f"found {_shown(content['n'])}, expected 1")
    for name in _NOT_HONOURED:
        if content.get(name):
            raise WrongWish(name, f"found {_shown(content[name])}; this server does not do that")
    for name, bounds in _NUMBERS.items():
        if (value := content.get(name)) is not None:
            options[name] = _number(name, value, *bounds)
    for name, (least, most) in _WHOLE.items():
        if (value := content.get(name)) is not None:
            options[name] = _whole(name, value, least, most)
    limit = content.get("max_completion_tokens", content.get("max_tokens"))
    if limit is not None:
        options["max_tokens"] = _whole("max_tokens", limit, 1, MAX_TOKENS)
    if (stop := content.get("stop")) is not None:
        options["stop"] = _stops(stop)
    if chat:
        options |= {name: content[name] for name in _CHAT_ONLY if content.get(name) is not None}
        for name in _CHAT_ONLY:
            _check_schemas(name, options.get(name))
    stream_options = content.get("stream_options") or {}
    return CompletionWish(
        chat=chat,
        stream=_switch("stream", content.get("stream")),
        include_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
        options=options,
    )


def _prompt(content: Mapping[str, Any]) -> tuple[str, Any]:
    prompt = content.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    is_tokens = isinstance(prompt, list) and bool(prompt) and all(isinstance(token, int) for token in prompt)
    if not (isinstance(prompt, str) or is_tokens):
        raise WrongWish("prompt", f"found {_shown(prompt)}, expected a text or a list of token numbers")
    return "prompt", prompt


def _messages(content: Mapping[str, Any]) -> tuple[str, Any]:
    messages = content.get("messages")
    good = isinstance(messages, list) and bool(messages) and all(_is_message(message) for message in messages)
    if not good:
        raise WrongWish("messages", f"found {_shown(messages)}, expected a list of objects with role and content")
    return "messages", messages


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str)


def _check_schemas(name: str, value: object) -> None:
    """Schemas become grammars, and the engine dies of, or never ends with, some: of patterns that fit nothing, of
    characters numbered 0, of counts without bound. Another request's answer must not end by that. Looked for in all of
    `value`, since a `$ref` may lead anywhere. Raises `WrongWish`."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, str) and "\0" in found:
            raise WrongWish(name, "found a character U+0000, which no grammar can have")
        if isinstance(found, list):
            rest += found
        elif isinstance(found, dict):
            rest += [*found, *found.values()]
            if isinstance(found.get("pattern"), str):
                raise WrongWish(
                    name, "found `pattern` in a schema, which is not supported; use enum, format or lengths"
                )
            for count in _COUNTS & found.keys():
                if isinstance(found[count], int | float) and found[count] > MAX_COUNT:
                    raise WrongWish(name, f"found {count} {_shown(found[count])}, expected at most {MAX_COUNT}")


def _stops(stop: object) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and len(stops) <= MAX_STOPS and all(isinstance(each, str) and each for each in stops):
        return stops
    raise WrongWish("stop", f"found {_shown(stop)}, expected a text or at most {MAX_STOPS} of them")


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongWish(name, f"found {_shown(value)}, expected a number from {least:g} to {most:g}")
    if not least <= value <= most:
        raise WrongWish(name, f"found {value}, expected a number from {least:g} to {most:g}")
    return float(value)


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WrongWish(name, f"found {_shown(value)}, expected a whole number from {least} to {most}")
    return value


def _switch(name: str, value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise WrongWish(name, f"found {_shown(value)}, expected true or false")
    return value


def _shown(value: object) -> str:
    return repr(value)[:60]
