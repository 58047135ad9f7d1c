"""Texts that would stall or end an engine's tokenizer, told by looking at them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshnode.engine.wishes.completion import MAX_STOP_CHARACTERS, parse_completion
from meshnode.engine.wishes.llama_server import CHAT, server_request
from meshnode.engine.wishes.texts import MAX_RUN, MAX_WORK, PIECE_CHARACTERS, Vocabulary, require_breaks
from meshnode.engine.wishes.wrong import WrongWish

RUNS = {"letters": "aß中", "digits": "07", "white space": " \n\t", "signs": "=_-,<\U0001f600"}


@pytest.mark.parametrize("kind", RUNS)
def test_run_without_a_break_is_refused_with_its_length_and_place(kind: str) -> None:
    characters = RUNS[kind]
    run = (characters * MAX_RUN)[: MAX_RUN + 7]
    before = "12 " if kind == "letters" else "word"
    with pytest.raises(WrongWish) as refused:
        require_breaks({"prompt": f"{before}{run}"})
    assert refused.value.field == "prompt"
    assert refused.value.message.startswith(f"found {MAX_RUN + 7} {kind} in a row from character {len(before)} on")
    require_breaks({"prompt": run[:MAX_RUN]})


def test_long_texts_with_breaks_pass() -> None:
    require_breaks({"prompt": "Ein Satz, wie er im Buche steht. " * 10_000 + "dGVzdA1+" * 20_000 + "\n \n" * 3_000})


@pytest.mark.parametrize(
    "field",
    [
        {"prompt": ["x", " " * 20_000]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": " " * 20_000}]}]},
        {"tools": [{"function": {"name": "f", "parameters": {" " * 20_000: {}}}}]},
        {"stop": [" " * 20_000]},
        {"logit_bias": [[" " * 20_000, 1]]},
    ],
)
def test_no_field_takes_such_a_text_to_llama_server(field: dict[str, Any]) -> None:
    with pytest.raises(WrongWish) as refused:
        server_request(json.dumps({"model": "m", **field}).encode(), CHAT, 32_768)
    assert refused.value.field in field


def test_a_request_far_over_the_context_goes_to_no_llama_server() -> None:
    with pytest.raises(WrongWish, match="do not fit the context of 512 tokens"):
        server_request(json.dumps({"prompt": "word " * 100_000}).encode(), "/v1/completions", 512)


def test_stop_texts_are_bounded() -> None:
    body = {"prompt": "x", "stop": ["y" * MAX_STOP_CHARACTERS, "y" * (MAX_STOP_CHARACTERS + 1)]}
    with pytest.raises(WrongWish, match=f"1 to {MAX_STOP_CHARACTERS} characters"):
        parse_completion(json.dumps(body).encode(), chat=False)


def test_beginnings_of_special_tokens_are_bounded_by_how_many_begin_so() -> None:
    vocabulary = Vocabulary({"<": 6_321, "[": 1})
    most = MAX_WORK // 6_321
    vocabulary.require_quick("messages", [{"content": "<" * most}, {"content": "[" * 100}])
    with pytest.raises(WrongWish) as refused:
        vocabulary.require_quick("messages", [{"content": "<a> " * most}, {"content": "<"}])
    assert f"found {most + 1} times '<'" in refused.value.message
    assert f"expected at most {most}" in refused.value.message


def test_text_is_cut_only_where_a_token_ends_anyway() -> None:
    vocabulary = Vocabulary({}, alone=frozenset("\n"), in_pairs=frozenset(" "))
    line = "x" * PIECE_CHARACTERS
    assert vocabulary.pieces(f"{line}\n\n {line} y  {line}") == [f"{line}\n\n", f" {line} y", f"  {line}"]
    assert vocabulary.pieces("a\nb\nc") == ["a\nb\nc"]
    assert vocabulary.pieces("") == [""]


def test_text_of_other_vocabularies_is_not_cut() -> None:
    text = "line\n" * 5_000
    assert Vocabulary({"<": 24}).pieces(text) == [text]
