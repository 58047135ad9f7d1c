"""What only a chat request has, checked: messages, tools, the form of the answer.

What lives here: `chat_options`. What does not: fields that completions have too (`meshnode.engine.wishes.completion`).
Pure.

The engine's package takes much that it then leaves out without a word: pictures, tools that nobody chose, forms it does
not know. An answer that looks right and is not is worse than an error, so what it would leave out is refused here, and
what it knows by another name is given to it by that name (OpenAI API reference, "Create chat completion").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshnode.engine.wishes.wrong import WrongWish, shown

Json = dict[str, Any]

_ROLES: Final[Mapping[str, str]] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
"""By OpenAI's names, the ones that models' templates know."""
_NOT_HONOURED: Final = ("functions", "function_call", "audio", "web_search_options")
_COUNTS: Final = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
MAX_COUNT: Final = 1999
"""Of what a schema repeats: llama.cpp takes no grammar that repeats something more often (llama-grammar.cpp)."""


def chat_options(content: Mapping[str, Any]) -> tuple[Json, dict[str, Json]]:
    """What goes to the engine, and the schemas in it that must become grammars, by field. Raises `WrongWish`."""
    for name in _NOT_HONOURED:
        if content.get(name):
            advice = "send tools and tool_choice" if name.startswith("function") else "this server does not do that"
            raise WrongWish(name, f"found {shown(content[name])}; {advice}")
    if content.get("modalities") not in (None, [], ["text"]):
        raise WrongWish("modalities", f"found {shown(content['modalities'])}, expected ['text']")
    options: Json = {"messages": messages_of(content.get("messages"))}
    schemas: dict[str, Json] = {}
    if (tool := _chosen_tool(content)) is not None:
        function = tool["function"]
        options |= {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": function["name"]}}}
        schemas["tools"] = function["parameters"]
    if (form := form_of(content.get("response_format"))) is not None:
        options["response_format"] = form
        if "schema" in form:
            schemas["response_format"] = form["schema"]
    for field, schema in schemas.items():
        check_schema(field, schema)
    return options, schemas


# --- messages ---


def messages_of(found: object) -> list[Json]:
    """Of the field `messages`. Raises `WrongWish`."""
    if not (isinstance(found, list) and found):
        raise WrongWish("messages", f"found {shown(found)}, expected a list of objects with role and content")
    return [_message(f"messages[{number}]", message) for number, message in enumerate(found)]


def _message(field: str, found: object) -> Json:
    if not isinstance(found, dict):
        raise WrongWish(field, f"found {shown(found)}, expected an object with role and content")
    role = found.get("role")
    if not (isinstance(role, str) and role in _ROLES):
        raise WrongWish(f"{field}.role", f"found {shown(role)}, expected one of {', '.join(_ROLES)}")
    calls = found.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise WrongWish(f"{field}.tool_calls", f"found {shown(calls)}, expected a list of objects")
    content = found.get("content")
    # An assistant's message that only calls tools has none; templates of models expect a text.
    text = "" if content is None and role == "assistant" and calls else _text(f"{field}.content", content)
    return {**found, "role": _ROLES[role], "content": text}


def _text(field: str, found: object) -> str:
    """A message's text. Several parts are joined by line ends, as llama-server does it (llama.cpp, common/chat.cpp)."""
    if isinstance(found, str):
        return found
    if not (isinstance(found, list) and found):
        raise WrongWish(field, f"found {shown(found)}, expected a text, or a list of parts of type text")
    return "\n".join(_part(f"{field}[{number}]", part) for number, part in enumerate(found))


def _part(field: str, found: object) -> str:
    kind = found.get("type") if isinstance(found, dict) else None
    text = found.get("text") if isinstance(found, dict) else None
    if kind == "text" and isinstance(text, str):
        return text
    what = shown(found) if kind in (None, "text") else f"a part of type {shown(kind)}"
    raise WrongWish(field, f"found {what}, expected {{'type': 'text', 'text': ...}}: this server reads text only")


# --- tools ---


def _chosen_tool(content: Mapping[str, Any]) -> Json | None:
    """The one tool that the answer must call; None where it is to be text. The package can make a model call a given
    tool, and can't let it choose. Raises `WrongWish`."""
    tools = tools_of(content.get("tools"))
    choice = content.get("tool_choice")
    if choice == "none" or (not tools and choice in (None, "auto")):
        return None
    if choice == "required" and len(tools) == 1:
        return tools[0]
    if choice in (None, "auto", "required") and tools:
        advice = "{'type': 'function', 'function': {'name': NAME}}, or 'none' for an answer in words"
        raise WrongWish(
            "tool_choice", f"found {shown(choice or 'auto')}; this engine calls only a tool that is named: {advice}"
        )
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    named = next((tool for tool in tools if tool["function"]["name"] == name), None)
    if named is None:
        known = ", ".join(tool["function"]["name"] for tool in tools)[:200] or "there are none"
        raise WrongWish("tool_choice", f"found {shown(choice)}, expected none, auto or the name of a tool: {known}")
    return named


def tools_of(found: object) -> list[Json]:
    """Of the field `tools`, each with parameters. Raises `WrongWish`."""
    if found is None:
        return []
    if not isinstance(found, list):
        raise WrongWish("tools", f"found {shown(found)}, expected a list of objects")
    return [_tool(f"tools[{number}]", tool) for number, tool in enumerate(found)]


def _tool(field: str, found: object) -> Json:
    function = found.get("function") if isinstance(found, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    parameters = function.get("parameters") if isinstance(function, dict) else None
    good = isinstance(found, dict) and found.get("type") == "function" and isinstance(name, str) and name
    if not (good and isinstance(parameters, dict | None)):
        expected = "{'type': 'function', 'function': {'name': ..., 'parameters': SCHEMA}}"
        raise WrongWish(field, f"found {shown(found)}, expected {expected}")
    assert isinstance(function, dict), "it has a name"
    schema = {"type": "object", "properties": {}} if parameters is None else parameters
    return {"type": "function", "function": {**function, "parameters": schema}}


# --- the answer's form ---


def form_of(found: object) -> Json | None:
    """Of the field `response_format`: llama.cpp's `json_object`, with a schema or not. Raises `WrongWish`."""
    if found is None or found == {"type": "text"}:
        return None
    kind = found.get("type") if isinstance(found, dict) else None
    holder: object = found
    if isinstance(found, dict) and kind == "json_schema":
        holder = found.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if kind == "json_object" and schema is None:
        return {"type": "json_object"}
    if kind in ("json_object", "json_schema") and isinstance(schema, dict):
        return {"type": "json_object", "schema": schema}
    expected = "{'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', 'json_schema': {'schema': ...}}"
    raise WrongWish("response_format", f"found {shown(found)}, expected {expected}")


def check_schema(field: str, schema: object) -> None:
    """Schemas become grammars, and the engine dies of, or never ends with, some: of patterns that fit nothing, of
    characters numbered 0, of counts without bound. Another request's answer must not end by that. Looked for in all of
    `schema`, since a `$ref` may lead anywhere. Raises `WrongWish`."""
    rest = [schema]
    while rest:
        found = rest.pop()
        if isinstance(found, str) and "\0" in found:
            raise WrongWish(field, "found a character U+0000, which no grammar can have")
        if isinstance(found, list):
            rest += found
        elif isinstance(found, dict):
            rest += [*found, *found.values()]
            if isinstance(found.get("pattern"), str):
                raise WrongWish(
                    field, "found `pattern` in a schema, which is not supported; use enum, format or lengths"
                )
            for count in _COUNTS & found.keys():
                if isinstance(found[count], int | float) and found[count] > MAX_COUNT:
                    raise WrongWish(field, f"found {count} {shown(found[count])}, expected at most {MAX_COUNT}")
