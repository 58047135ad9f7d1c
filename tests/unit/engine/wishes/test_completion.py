"""What a client may ask of a model, and how it is told what is wrong."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from meshnode.engine.wishes.completion import model_of, parse_completion, read_request
from meshnode.engine.wishes.wrong import WrongWish

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


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def test_chat_takes_messages_and_either_name_of_the_limit() -> None:
    wish = asked(chat=True, max_completion_tokens=3)
    assert wish.options == {"messages": CHAT["messages"], "max_tokens": 3}
    assert asked(chat=True, max_completion_tokens=None, max_tokens=4).options["max_tokens"] == 4


def test_parts_of_text_are_one_text_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert asked(chat=True, messages=messages).options["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say\nhello"},
    ]  # fmt: skip


@pytest.mark.parametrize("choice", [NAMED, "required"])
def test_tool_that_must_be_called_is_the_only_one_the_engine_sees(choice: Any) -> None:
    tools = [TOOL] if choice == "required" else [TOOL, {"type": "function", "function": {"name": "other"}}]
    wish = asked(chat=True, tools=tools, tool_choice=choice)
    assert (wish.options["tools"], wish.options["tool_choice"]) == ([TOOL], NAMED)
    assert wish.schemas == {"tools": {"type": "object"}}


def test_tools_that_may_not_be_called_are_left_out() -> None:
    asked_for: list[dict[str, Any]] = [{"tools": [TOOL], "tool_choice": "none"}, {"tools": []}, {"tool_choice": "auto"}]
    for fields in asked_for:
        assert asked(chat=True, **fields).options == {"messages": CHAT["messages"]}


def test_form_of_openai_is_given_to_the_engine_by_the_name_it_knows() -> None:
    schema = {"type": "object"}
    wish = asked(chat=True, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert wish.options["response_format"] == {"type": "json_object", "schema": schema}
    assert wish.schemas == {"response_format": schema}
    assert "response_format" not in asked(chat=True, response_format={"type": "text"}).options


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("messages", {"messages": "Hello"}), ("messages[0]", {"messages": ["Hello"]}),
        ("messages[0].role", {"messages": [{"role": "wizard", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": ["x"]}]}),
        ("messages[0].content[1]", {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
        ("messages[0].tool_calls", {"messages": [{"role": "assistant", "content": None, "tool_calls": "x"}]}),
        ("tools", {"tools": "x"}), ("tools[0]", {"tools": [{"type": "function"}]}), ("tools[0]", {"tools": [5]}),
        ("tool_choice", {"tools": [TOOL]}), ("tool_choice", {"tools": [TOOL, TOOL], "tool_choice": "required"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}),
        ("tool_choice", {"tool_choice": "required"}), ("tool_choice", {"tools": [TOOL], "tool_choice": 5}),
        ("response_format", {"response_format": "json"}), ("response_format", {"response_format": {"type": "xml"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}), ("functions", {"functions": [{}]}),
        ("modalities", {"modalities": ["audio"]}), ("audio", {"audio": {"voice": "x"}}),
    ],
)  # fmt: skip
def test_what_a_chat_would_leave_out_unsaid_is_refused(field: str, fields: Any) -> None:
    with pytest.raises(WrongWish) as caught:
        asked(chat=True, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize("prompt", ["Hello", ["Hello"], [1, 2, 3], [[1, 2, 3]], ""])
def test_prompt_is_a_text_or_tokens(prompt: Any) -> None:
    assert asked(prompt=prompt).options["prompt"] == (prompt[0] if prompt in (["Hello"], [[1, 2, 3]]) else prompt)


def test_one_answer_may_be_asked_for_by_number() -> None:
    assert asked(n=1, best_of=1, logprobs=None, logit_bias={}, echo=False).options == PROMPT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None), ("prompt", ["a", "b"]), ("prompt", 7), ("temperature", "hot"), ("temperature", -1),
        ("temperature", True), ("top_p", 2), ("seed", -1), ("max_tokens", 0), ("max_tokens", 1.5), ("n", 2),
        ("n", True), ("best_of", 3), ("logprobs", 5), ("logprobs", 0), ("echo", True), ("prompt", [True]),
        ("stream_options", "x"), ("stream_options.include_usage", {"include_usage": 1}),
        ("stop", [""]), ("stop", ["x"] * 17), ("stop", 5), ("stream", "yes"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_with_what_was_found(field: str, value: Any) -> None:
    with pytest.raises(WrongWish) as caught:
        asked(**{field.split(".")[0]: value})
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
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(WrongWish, match=found):
        asked(chat=True, tools=[tool], tool_choice="required")


def test_ordinary_schema_goes_to_the_engine_also_with_fields_of_such_names() -> None:
    fields = {"pattern": {"type": "string", "maxLength": 1999}, "maxLength": {"type": "integer", "maximum": 10**9}}
    wanted = {"type": "json_object", "schema": {"type": "object", "properties": fields, "required": ["pattern"]}}
    assert asked(chat=True, response_format=wanted).options["response_format"] == wanted
