"""What a client may ask of a model, and how it is told what is wrong."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from meshnode.engine.wishes import WrongWish, model_of, parse_completion, read_request

PROMPT = {"prompt": "Hello"}
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


def asked(chat: bool = False, **fields: Any) -> Any:
    return parse_completion(json.dumps((CHAT if chat else PROMPT) | fields).encode(), chat=chat)


def test_what_is_honoured_goes_to_the_engine_as_it_is() -> None:
    wish = asked(temperature=0, top_p=0.5, seed=7, max_tokens=12, stop="\n", stream=True, user="somebody")
    assert wish.options == {
        "prompt": "Hello", "temperature": 0.0, "top_p": 0.5, "seed": 7, "max_tokens": 12, "stop": ["\n"],
    }  # fmt: skip
    assert wish.stream
    assert not wish.include_usage


def test_chat_takes_messages_tools_and_the_newer_name_of_the_limit() -> None:
    wish = asked(chat=True, tools=[{"type": "function"}], max_completion_tokens=3)
    assert wish.options["messages"] == CHAT["messages"]
    assert wish.options["tools"] == [{"type": "function"}]
    assert wish.options["max_tokens"] == 3


@pytest.mark.parametrize("prompt", ["Hello", ["Hello"], [1, 2, 3], ""])
def test_prompt_is_a_text_or_tokens(prompt: Any) -> None:
    assert asked(prompt=prompt).options["prompt"] == ("Hello" if prompt == ["Hello"] else prompt)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None), ("prompt", ["a", "b"]), ("prompt", 7), ("temperature", "hot"), ("temperature", -1),
        ("temperature", True), ("top_p", 2), ("seed", -1), ("max_tokens", 0), ("max_tokens", 1.5), ("n", 2),
        ("logprobs", 5), ("echo", True), ("stop", [""]), ("stop", ["x"] * 17), ("stop", 5), ("stream", "yes"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_with_what_was_found(field: str, value: Any) -> None:
    with pytest.raises(WrongWish) as caught:
        asked(**{field: value})
    assert caught.value.field == field
    error = caught.value.to_dict()["error"]
    assert (error["param"], error["type"]) == (field, "invalid_request_error")


@pytest.mark.parametrize("messages", [None, [], "Hello", [{"content": "no role"}], ["Hello"]])
def test_messages_without_roles_are_refused(messages: Any) -> None:
    with pytest.raises(WrongWish, match="messages"):
        asked(chat=True, messages=messages)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_body_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(WrongWish, match="body"):
        read_request(body)


@pytest.mark.parametrize("model", [None, "", 5, "x" * 513])
def test_model_must_be_named(model: Any) -> None:
    with pytest.raises(WrongWish, match="model"):
        model_of(json.dumps({"model": model}).encode())


def test_model_is_read_without_making_anything_of_the_rest() -> None:
    body = b'{"model": "m", "messages": [' + b"[]," * 200_000 + b"[]]}"
    tracemalloc.start()
    try:
        assert model_of(body) == "m"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_nesting_without_end_is_refused_by_name() -> None:
    body = b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for read in (model_of, read_request):
        with pytest.raises(WrongWish, match="too deep"):
            read(body)


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({"type": "string", "pattern": "^[b-a]$"}, "pattern"),
        ({"enum": ["a\0"]}, r"U\+0000"),
        ({"properties": {"a\0": {}}}, r"U\+0000"),
        ({"items": [{"type": "string", "minLength": 10**9}]}, "minLength 1000000000"),
        ({"$ref": "#/enum/0", "enum": [{"maxItems": 2e9}]}, "maxItems"),
    ],
)
def test_schema_that_could_end_the_engine_is_refused(schema: Any, found: str) -> None:
    with pytest.raises(WrongWish, match=found):
        asked(chat=True, response_format={"type": "json_object", "schema": schema})
    with pytest.raises(WrongWish, match=found):
        asked(chat=True, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])


def test_ordinary_schema_goes_to_the_engine_also_with_fields_of_such_names() -> None:
    fields = {"pattern": {"type": "string", "maxLength": 1999}, "maxLength": {"type": "integer", "maximum": 10**9}}
    wanted = {"type": "json_object", "schema": {"type": "object", "properties": fields, "required": ["pattern"]}}
    assert asked(chat=True, response_format=wanted).options["response_format"] == wanted
