"""What a client may ask of a model, checked: the fields of OpenAI's completion requests that are honoured here.

What lives here: `parse_completion`, `model_of`. What does not: a chat's own fields (`meshnode.engine.wishes.chat`),
answering (`meshnode.engine.serving.completions`). Pure; the node reads only the model's name, the model's process the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from meshnode.engine.wishes.chat import chat_options
from meshnode.engine.wishes.wrong import WrongWish, shown

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
_NOT_HONOURED: Final = ("logprobs", "top_logprobs", "logit_bias", "echo", "suffix")
_ONE_ANSWER: Final = ("n", "best_of")
MAX_TOKENS: Final = 16_777_216
MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 1000
"""All that was made is searched for each at each token."""


@dataclass(frozen=True)
class CompletionWish:
    """A checked request; `options` go to the engine as they are. `schemas` are those among them that must become
    grammars, by field."""

    chat: bool
    stream: bool
    include_usage: bool
    options: dict[str, Any] = field(default_factory=dict)
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)


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
        raise WrongWish("model", f"found {shown(model)}, expected the name of a model: GET /v1/models lists them")
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
    options, schemas = chat_options(content) if chat else ({"prompt": prompt_of(content)}, {})
    for name in _ONE_ANSWER:
        if content.get(name) is not None:
            whole(name, content[name], 1, 1)
    for name in _NOT_HONOURED:
        found = content.get(name)
        # `logprobs: 0` of a text completion asks for the chosen tokens' own.
        if found or (name == "logprobs" and found is not None and found is not False):
            raise WrongWish(name, f"found {shown(found)}; this server does not do that")
    options |= sampling_options(content)
    return CompletionWish(
        chat=chat,
        stream=switch("stream", content.get("stream")),
        include_usage=include_usage(content.get("stream_options")),
        options=options,
        schemas=schemas,
    )


def sampling_options(content: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens are chosen, and when the answer ends. Raises `WrongWish`."""
    options: dict[str, Any] = {}
    for name, bounds in _NUMBERS.items():
        if (value := content.get(name)) is not None:
            options[name] = _number(name, value, *bounds)
    for name, (least, most) in _WHOLE.items():
        if (value := content.get(name)) is not None:
            options[name] = whole(name, value, least, most)
    for name in ("max_tokens", "max_completion_tokens"):
        if (limit := content.get(name)) is not None:
            options["max_tokens"] = whole(name, limit, 1, MAX_TOKENS)
    if (stop := content.get("stop")) is not None:
        options["stop"] = _stops(stop)
    return options


def prompt_of(content: Mapping[str, Any]) -> str | list[int]:
    """What a text is to go on from. Raises `WrongWish`."""
    prompt = content.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise WrongWish("prompt", f"found {shown(prompt)}, expected one text or one list of token numbers")


def include_usage(found: object) -> bool:
    """Of the field `stream_options`. Raises `WrongWish`."""
    if found is None:
        return False
    if not isinstance(found, dict):
        raise WrongWish("stream_options", f"found {shown(found)}, expected {{'include_usage': true or false}}")
    return switch("stream_options.include_usage", found.get("include_usage"))


def _stops(stop: object) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and len(stops) <= MAX_STOPS and all(map(_is_stop, stops)):
        return stops
    expected = f"a text of 1 to {MAX_STOP_CHARACTERS} characters, or at most {MAX_STOPS} of them"
    raise WrongWish("stop", f"found {shown(stop)}, expected {expected}")


def _is_stop(found: object) -> bool:
    return isinstance(found, str) and 0 < len(found) <= MAX_STOP_CHARACTERS


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongWish(name, f"found {shown(value)}, expected a number from {least:g} to {most:g}")
    if not least <= value <= most:
        raise WrongWish(name, f"found {value}, expected a number from {least:g} to {most:g}")
    return float(value)


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number within bounds. Raises `WrongWish`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        expected = f"a whole number from {least} to {most}" if least < most else str(least)
        raise WrongWish(name, f"found {shown(value)}, expected {expected}")
    return value


def switch(name: str, value: object) -> bool:
    """A field that is true or false, and false where it is not there. Raises `WrongWish`."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise WrongWish(name, f"found {shown(value)}, expected true or false")
    return value
