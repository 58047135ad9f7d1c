"""Texts that a tokenizer must not be given: each found by looking at the text alone, before an engine is asked.

What lives here: the bounds and where their figures come from; `Vocabulary`, which cuts a text where its tokens end
anyway. What does not: the fields of a request (`meshnode.engine.wishes.completion`), answering. Pure.

llama.cpp's tokenizers, as measured with version 0.3.36 of the package and its models/ggml-vocab-*.gguf:

- Where a vocabulary's pattern is left to std::regex (deepseek-llm, deepseek-coder, falcon, gpt-neox), a run of 25,000
  letters, digits, marks or the like without a break overflows the stack: the process ends, for everybody. A run is
  what one part of such a pattern matches: letters, digits, white space, or all the rest.
- Special tokens are looked for one after the other (`tokenizer_st_partition`, llama-vocab.cpp): a text costs 28 ns for
  each of its characters with which one of them begins, times how many begin so. Gemma 3 has 6,321 that begin with `<`.
- Each special token that is found splits the text, and finding a split's place in the list costs as many steps as there
  are splits before: 18 ns times the square of all splits. For Gemma's vocabularies each line break and each indent is
  one, so that 100 KB of ` \\n` took 165 s. Cut where such tokens stand, the pieces take 2 s together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meshnode.engine.wishes.wrong import WrongWish

MAX_RUN: Final = 10_000
"""Characters. No language writes words this long; 25,000 of them end an engine."""
BYTES_PER_TOKEN: Final = 32
BYTES_BESIDE: Final = 64 * 1024
"""A request of more bytes than its context's tokens take in any text (about 4 each), and some for what stands beside
the text, is refused uncounted."""
MAX_WORK: Final = 100_000_000
"""Comparisons with special tokens: about 3 s."""
PIECE_CHARACTERS: Final = 1024
"""At least so long are pieces, where there is a choice: each costs a call."""

_LONG_RUNS: Final = {
    "letters": re.compile(rf"(?<![^\W\d_])[^\W\d_]{{{MAX_RUN + 1},}}"),
    "digits": re.compile(rf"(?<!\d)\d{{{MAX_RUN + 1},}}"),
    "white space": re.compile(rf"(?<!\s)\s{{{MAX_RUN + 1},}}"),
    "signs": re.compile(rf"(?<![^\w\s])(?<!_)(?:[^\w\s]|_){{{MAX_RUN + 1},}}"),
}
"""Each tried at the beginning of a run only, so that looking takes time by the text's length."""


def require_size(size_bytes: int, context: int) -> None:
    """For a whole request to a model of `context` tokens. Raises `WrongWish`."""
    most_bytes = context * BYTES_PER_TOKEN + BYTES_BESIDE
    if size_bytes > most_bytes:
        message = f"{size_bytes} bytes do not fit the context of {context} tokens"
        raise WrongWish("body", message, code="context_length_exceeded")


def require_breaks(content: Mapping[str, Any]) -> None:
    """For all texts in the fields of a request, as deep as they lie. Raises `WrongWish`."""
    for name, value in content.items():
        for text in texts_of(value):
            _require_breaks(name, text)


def texts_of(value: object) -> Iterator[str]:
    """All texts in a JSON value, keys of objects among them."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, list):
            rest += found
        elif isinstance(found, dict):
            rest += [*found, *found.values()]


def _require_breaks(name: str, text: str) -> None:
    if len(text) <= MAX_RUN:
        return
    for kind, pattern in _LONG_RUNS.items():
        if (run := pattern.search(text)) is not None:
            raise WrongWish(
                name,
                f"found {len(run[0])} {kind} in a row from character {run.start()} on, expected at most {MAX_RUN}:"
                " a longer run can take the engine minutes, or end it",
                code="unbroken_text",
            )


@dataclass(frozen=True)
class Vocabulary:
    """What of a model's vocabulary decides how long a text takes. `starts` counts special tokens by their first
    character. `alone` are characters that are special tokens by themselves, `in_pairs` those of which two are one; no
    special token has them beside others, and nothing else depends on what stands before it."""

    starts: Mapping[str, int] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    in_pairs: frozenset[str] = frozenset()

    def require_quick(self, name: str, value: object) -> None:
        """For all texts in a field's value together. Raises `WrongWish`."""
        work: dict[str, int] = {}
        counts: dict[str, int] = {}
        for text in texts_of(value):
            for start, tokens in self.starts.items():
                counts[start] = counts.get(start, 0) + text.count(start)
                work[start] = counts[start] * tokens
        if sum(work.values()) > MAX_WORK:
            worst = max(work, key=lambda start: work[start])
            most = MAX_WORK // self.starts[worst]
            raise WrongWish(
                name,
                f"found {counts[worst]} times {worst!r}, with which {self.starts[worst]} of this model's special tokens"
                f" begin, expected at most {most}: more takes its tokenizer too long",
                code="text_too_slow",
            )

    def pieces(self, text: str) -> list[str]:
        """`text` cut where a token ends whatever stands around: the tokens of the pieces are the tokens of the text."""
        ends = [each.start() for each in self._cuts.finditer(text)] if self._cuts is not None else []
        begin, found = 0, []
        for end in ends:
            if end - begin >= PIECE_CHARACTERS:
                found.append(text[begin:end])
                begin = end
        return [*found, text[begin:]]

    @property
    def _cuts(self) -> re.Pattern[str] | None:
        """Matches nothing, at each place where a text may be cut: after a run of characters that stand alone, before a
        run of two or more that stand in pairs."""
        after = [rf"(?<={re.escape(each)})(?!{re.escape(each)})" for each in sorted(self.alone)]
        before = [rf"(?<!{re.escape(each)})(?={re.escape(each)}{{2}})" for each in sorted(self.in_pairs)]
        return re.compile("|".join([*after, *before])) if after or before else None
