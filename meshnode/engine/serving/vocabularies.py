"""Reading what of a loaded model's vocabulary decides how long its tokenizer takes.

What lives here: `vocabulary_of`. What does not: what follows from it (`meshnode.engine.wishes.texts`). Called in the
model's process: it asks the engine. Sources: llama.h (`enum llama_token_attr`, `enum llama_vocab_type`),
llama-vocab.cpp (`tokenizer_st_partition`, `llm_tokenizer_spm`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import llama_cpp.llama_cpp as low

from meshnode.engine.wishes.texts import Vocabulary

_UNKNOWN, _CONTROL, _USER_DEFINED, _EATS_SPACE = 1 << 0, 1 << 3, 1 << 4, 1 << 7 | 1 << 8
_NONE, _SENTENCE_PIECE = 0, 1
_BLANKS: Final = ("\n", "\t", " ")
_NO_PREFIX: Final = "false"


def vocabulary_of(model: Any, metadata: dict[str, str]) -> Vocabulary:  # noqa: ANN401  # the package brings no types
    """That of a `llama_model`; `metadata` is the file's."""
    vocabulary = low.llama_model_get_vocab(model)
    if low.llama_vocab_type(vocabulary) == _NONE:
        return Vocabulary()
    special: dict[str, int] = {}
    for token in range(low.llama_vocab_n_tokens(vocabulary)):
        attributes = low.llama_vocab_get_attr(vocabulary, token)
        if attributes & (_UNKNOWN | _CONTROL | _USER_DEFINED):
            text = low.llama_vocab_get_text(vocabulary, token).decode("utf-8", "replace")
            special[text] = attributes
    special.pop("", None)
    starts = Counter(text[0] for text in special)
    # Elsewhere a piece may become other tokens than it was in the text: by a space that is put in front of each, by
    # tokens that eat the space beside them, by an end that is put after each.
    is_cut = (
        low.llama_vocab_type(vocabulary) == _SENTENCE_PIECE
        and metadata.get("tokenizer.ggml.add_space_prefix") == _NO_PREFIX
        and not low.llama_vocab_get_add_eos(vocabulary)
        and not any(attributes & _EATS_SPACE for attributes in special.values())
    )
    if not is_cut:
        return Vocabulary(starts)
    lone = {blank for blank in _BLANKS if all(set(text) == {blank} for text in special if blank in text)}
    alone = {blank for blank in lone if special.get(blank, 0) & _USER_DEFINED}
    in_pairs = {blank for blank in lone - alone if special.get(blank * 2, 0) & _USER_DEFINED}
    return Vocabulary(starts, frozenset(alone), frozenset(in_pairs))
