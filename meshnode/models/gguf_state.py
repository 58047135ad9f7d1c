"""Recurrent state of one layer and one sequence, whatever the context: bytes that llama.cpp keeps as f32.

Formulas: llama.cpp's `llama_hparams::n_embd_r` (the convolution's past) and `n_embd_s` (the state itself).
"""

from __future__ import annotations

from meshnode.models.errors import ModelFileError
from meshnode.models.metadata import Metadata

_F32_BYTES = 4
_MAX_STATE_BYTES = 1 << 40


def state_bytes(metadata: Metadata) -> int:
    """State of one recurrent layer in bytes per sequence: RWKV, short convolution, Kimi's delta attention, or Mamba.

    Mamba and its kin: 4 x ((conv - 1)(inner + 2 x groups x state) + state x inner).
    """
    embedding = metadata.whole("embedding_length", minimum=1)
    conv = max(0, metadata.whole("ssm.conv_kernel", 0) - 1)
    if (head := metadata.whole("wkv.head_size", 0)) > 0:
        elements = metadata.whole("token_shift_count", 2) * embedding + embedding * head
    elif (cache := metadata.whole("shortconv.l_cache", 0)) > 0:
        elements = embedding * (cache - 1)
    elif (head := metadata.whole("kda.head_dim", 0)) > 0:
        heads = metadata.largest("attention.head_count")
        elements = 3 * conv * heads * head + heads * head * head
    else:
        inner, state = metadata.whole("ssm.inner_size", 0), metadata.whole("ssm.state_size", 0)
        elements = conv * (inner + 2 * metadata.whole("ssm.group_count", 0) * state) + state * inner
    if elements * _F32_BYTES > _MAX_STATE_BYTES:
        raise ModelFileError(metadata.path, metadata.prefix + "ssm", f"{elements} elements of state", "far fewer")
    return elements * _F32_BYTES
