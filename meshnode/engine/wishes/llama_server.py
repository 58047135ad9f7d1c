"""What of a client's request goes to `llama-server`: the fields of OpenAI's requests, checked, and no others.

What lives here: `server_request`. What does not: the same for the package's process
(`meshnode.engine.wishes.completion`), whose checks are used, what llama-server answers
(`meshnode.engine.runs.llama_server`). Pure.

llama-server takes many fields beside OpenAI's. A grammar, or a pattern in a schema, can keep it from ever answering
again: `root ::= (("a"?){44}){44}` took all its time until it was ended, and every other request with it. A slot's
number or an adapter is the coordinator's to choose. What it does on top of the package's process is let through: tools
that the model chooses from, log probabilities, biases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from meshnode.engine.wishes.chat import check_schema, form_of, messages_of, tools_of
from meshnode.engine.wishes.completion import include_usage, prompt_of, read_request, sampling_options, switch, whole
from meshnode.engine.wishes.texts import require_breaks, require_size
from meshnode.engine.wishes.wrong import WrongWish, shown

Json = dict[str, Any]
CHAT: Final = "/v1/chat/completions"
MAX_LOGPROBS: Final = 20
MAX_BIASES: Final = 1024
MOST_BIAS: Final = 100.0
_REFUSED: Final[Mapping[str, str]] = {
    "grammar": "a grammar can keep the engine from ever answering; send a response_format with a schema",
    "json_schema": "send it as response_format",
    "functions": "send tools and tool_choice",
    "function_call": "send tools and tool_choice",
    "echo": "this server does not do that",
    "suffix": "this server does not do that",
    "audio": "this server does not do that",
    "web_search_options": "this server does not do that",
}
"""Left out without a word they would change the answer."""


def server_request(body: bytes, path: str, context: int) -> bytes:
    """The body for llama-server of a request to `path` of a model of `context` tokens. Raises `WrongWish`."""
    require_size(len(body), context)
    content = read_request(body)
    require_breaks(content)
    for name, advice in _REFUSED.items():
        if content.get(name):
            raise WrongWish(name, f"found {shown(content[name])}; {advice}")
    for name in ("n", "best_of"):
        if content.get(name) is not None:
            whole(name, content[name], 1, 1)
    stream = switch("stream", content.get("stream"))
    wanted: Json = {"model": content.get("model"), "stream": stream, **sampling_options(content)}
    if stream and include_usage(content.get("stream_options")):
        wanted["stream_options"] = {"include_usage": True}
    wanted |= _chat(content) if path == CHAT else {"prompt": prompt_of(content), **_text_logprobs(content)}
    if (biases := content.get("logit_bias")) is not None:
        wanted["logit_bias"] = _biases(biases)
    return json.dumps(wanted).encode()


def _chat(content: Mapping[str, Any]) -> Json:
    wanted: Json = {"messages": messages_of(content.get("messages"))}
    if (form := form_of(content.get("response_format"))) is not None:
        check_schema("response_format", form.get("schema"))
        wanted["response_format"] = form
    if switch("logprobs", content.get("logprobs")):
        wanted["logprobs"] = True
        if (most := content.get("top_logprobs")) is not None:
            wanted["top_logprobs"] = whole("top_logprobs", most, 0, MAX_LOGPROBS)
    return wanted | _tools(content)


def _tools(content: Mapping[str, Any]) -> Json:
    """The tools that the model may choose from, or must choose one of. One that is named is the only one there is."""
    tools = tools_of(content.get("tools"))
    choice = content.get("tool_choice")
    for number, tool in enumerate(tools):
        check_schema(f"tools[{number}]", tool["function"]["parameters"])
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise WrongWish("tool_choice", f"found {shown(choice)}, expected the name of one of the tools")
        choice = "required"
    elif choice not in (None, "none", "auto", "required"):
        raise WrongWish("tool_choice", f"found {shown(choice)}, expected none, auto, required or a tool")
    if not tools:
        return {}
    parallel = {"parallel_tool_calls": switch("parallel_tool_calls", content.get("parallel_tool_calls"))}
    return {"tools": tools, "tool_choice": choice or "auto", **parallel}


def _text_logprobs(content: Mapping[str, Any]) -> Json:
    found = content.get("logprobs")
    return {} if found is None else {"logprobs": whole("logprobs", found, 0, MAX_LOGPROBS)}


def _biases(found: object) -> Json:
    if isinstance(found, dict) and len(found) <= MAX_BIASES and all(map(_is_bias, found.items())):
        return found
    expected = f"an object of at most {MAX_BIASES} token numbers with biases from {-MOST_BIAS:g} to {MOST_BIAS:g}"
    raise WrongWish("logit_bias", f"found {shown(found)}, expected {expected}")


def _is_bias(pair: tuple[object, object]) -> bool:
    token, bias = pair
    is_token = isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 9
    return is_token and isinstance(bias, int | float) and not isinstance(bias, bool) and abs(bias) <= MOST_BIAS
