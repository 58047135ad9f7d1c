"""llama-cpp-python's model class with what a server needs and it lacks: counts, cancelling, windows kept right.

What lives here: `CountingLlama`. Imported in the model's process only: it brings numpy and the engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

import llama_cpp.llama_cpp as low
from llama_cpp import Llama
from llama_cpp.llama_grammar import LlamaGrammar

from meshnode.engine.wishes.texts import Vocabulary
from meshnode.engine.wishes.wrong import WrongWish


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class CountingLlama(Llama):  # type: ignore[misc]  # the package brings no types
    """Counts the tokens of the request that runs, and ends it between two tokens, or two batches of its prompt, once
    `is_cancelled` says so.

    The class keeps the cache of the last request's common beginning. A sliding-window cache no longer holds the cells
    of a beginning that the window has left, although it says so nowhere; such a model begins every request anew.
    """

    vocabulary = Vocabulary()
    """What is known of this model's, read once it is loaded."""
    keeps: Any = None
    """What the engine points to and must outlive it."""
    prompt_tokens = 0
    completion_tokens = 0
    is_cancelled: Callable[[], bool] = staticmethod(lambda: False)

    def generate(self, tokens: Sequence[int], **options: Any) -> Generator[int, Any, None]:  # noqa: ANN401
        """See the base class. Raises `ValueError` for a grammar that llama.cpp does not take."""
        self._check_grammar(options.get("grammar"))
        self.prompt_tokens, self.completion_tokens = len(tokens), 0
        if low.llama_model_n_swa(self._model.model) > 0 and not self.context_params.swa_full:
            self.reset()
            self._ctx.kv_cache_clear()
        for token in super().generate(tokens, **options):
            if self.is_cancelled():
                return
            self.completion_tokens += 1
            yield token

    def eval(self, tokens: Sequence[int]) -> None:
        """See the base class, which would read all of a prompt at once. Raises `Cancelled`, with those tokens
        counted that are read by then."""
        for begin in range(0, len(tokens), self.n_batch):
            if self.is_cancelled():
                self.prompt_tokens = int(self.n_tokens)
                raise Cancelled
            super().eval(tokens[begin : begin + self.n_batch])

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """See the base class. The same tokens, found piece by piece: for some texts that takes a hundredth of the
        time."""
        first, *rest = self.vocabulary.pieces(text.decode("utf-8", "surrogateescape"))
        tokens: list[int] = super().tokenize(first.encode("utf-8", "surrogateescape"), add_bos, special)
        for piece in rest:
            tokens += super().tokenize(piece.encode("utf-8", "surrogateescape"), False, special)
        return tokens

    def check_schema(self, field: str, schema: dict[str, Any]) -> None:
        """Raises `WrongWish` for a schema that makes no grammar: the base class would take any JSON instead, unsaid."""
        try:
            LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
        except Exception as error:  # whatever its converter meets in a schema it does not know
            problem = f"the engine can make no grammar of this schema: {type(error).__name__}: {error}"
            raise WrongWish(field, problem[:300]) from error

    def _check_grammar(self, grammar: Any) -> None:  # noqa: ANN401
        """The base class would hand the null pointer on that stands for one that can't be used, and crash."""
        if grammar is None:
            return
        # Both are the package's own, as it uses them itself (`_internals.LlamaSampler.add_grammar`).
        sampler = low.llama_sampler_init_grammar(self._model.vocab, grammar._grammar.encode(), grammar._root.encode())
        if not sampler:
            raise ValueError("the engine takes no grammar as the schema would need it: make the schema simpler")
        low.llama_sampler_free(sampler)
