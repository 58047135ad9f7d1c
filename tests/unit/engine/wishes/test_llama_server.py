"""What of a request goes to llama-server: OpenAI's fields, and nothing that can keep it from answering others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshnode.engine.wishes.llama_server import CHAT, server_request
from meshnode.engine.wishes.wrong import WrongWish

TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def asked(path: str, **fields: Any) -> dict[str, Any]:
    """The body that goes to llama-server."""
    found: dict[str, Any] = json.loads(server_request(json.dumps({"model": "m", **fields}).encode(), path, 2048))
    return found


def refused(path: str, **fields: Any) -> WrongWish:
    with pytest.raises(WrongWish) as wrong:
        asked(path, **fields)
    return wrong.value


def a_tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def test_known_fields_go_on_and_others_stay_here() -> None:
    found = asked(
        TEXT, prompt="Once", max_tokens=8, temperature=0, stop="x", seed=7, stream=True,
        stream_options={"include_usage": True}, logprobs=2, logit_bias={"5": -100},
        id_slot=0, n_probs=10**9, lora=[{"id": 0}], t_max_predict_ms=1, user="me",
    )  # fmt: skip
    assert found == {
        "model": "m", "prompt": "Once", "max_tokens": 8, "temperature": 0.0, "stop": ["x"], "seed": 7, "stream": True,
        "stream_options": {"include_usage": True}, "logprobs": 2, "logit_bias": {"5": -100},
    }  # fmt: skip
    found = asked(CHAT, messages=HELLO, logprobs=True, top_logprobs=3)
    assert found == {"model": "m", "messages": HELLO, "stream": False, "logprobs": True, "top_logprobs": 3}


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (TEXT, "grammar", 'root ::= (("a"?){44}){44}'),
        (TEXT, "json_schema", {"type": "string"}),
        (TEXT, "logprobs", 10**9),
        (TEXT, "n", 3),
        (TEXT, "logit_bias", [[5, 1]]),
        (TEXT, "logit_bias", {"5": 1e9}),
        (CHAT, "top_logprobs", 21),
        (CHAT, "response_format", {"type": "json_schema", "json_schema": {"schema": {"pattern": "^((a?){50}){40}$"}}}),
        (CHAT, "tool_choice", {"type": "function", "function": {"name": "unknown"}}),
    ],
)
def test_what_can_stall_it_or_is_not_done_is_refused_by_its_field(path: str, field: str, value: Any) -> None:
    basis: dict[str, Any] = {"prompt": "x"} if path == TEXT else {"messages": HELLO, "logprobs": True}
    assert refused(path, **{**basis, field: value}).field == field


def test_patterns_in_the_schemas_of_tools_are_refused_too() -> None:
    tools = [a_tool("good", city={"type": "string"}), a_tool("bad", city={"type": "string", "pattern": "(a?){50}"})]
    assert refused(CHAT, messages=HELLO, tools=tools).field == "tools[1]"


def test_model_chooses_its_tool_unless_one_is_named() -> None:
    tools = [a_tool("one"), a_tool("two")]
    assert asked(CHAT, messages=HELLO, tools=tools)["tool_choice"] == "auto"
    named = asked(CHAT, messages=HELLO, tools=tools, tool_choice={"type": "function", "function": {"name": "two"}})
    assert (named["tools"], named["tool_choice"]) == ([tools[1]], "required")
