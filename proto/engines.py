"""How a record says which engine a machine has: `IdentityPart.engine`, such as `llama-cpp-python 0.3.36 rpc 7.0.0`.

What lives here: writing and reading that word. What does not: finding engines (`meshnode.engine.found`) and what a
mismatch means (`meshnode.readiness.rules`).

The last two words are `rpc` and the version of llama.cpp's RPC protocol. A client takes a server of the same major
version whose minor version is not above its own (ggml-rpc.cpp, `negotiate_hello`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_WORD: Final = 64
"""As long as a word on the wire may be (`proto.shapes.WireWord`)."""


class RpcVersion(NamedTuple):
    """Version of llama.cpp's RPC protocol."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> RpcVersion | None:
        """The version in `7.0.0`; None for anything else."""
        parts = text.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
            return None
        return cls(*(int(part) for part in parts))

    def can_serve(self, client: RpcVersion) -> bool:
        """Whether a server of this version is one that `client` accepts."""
        return self.major == client.major and self.minor <= client.minor


def engine_word(engine: str, rpc: RpcVersion) -> str:
    """What a record says; an engine's name that is too long loses its end."""
    tail = f" rpc {rpc}"
    return engine[: MAX_WORD - len(tail)] + tail


def rpc_version_of(word: str | None) -> RpcVersion | None:
    """The RPC version in a record's word; None where there is no engine, or one of another kind."""
    parts = (word or "").split()
    return RpcVersion.parse(parts[-1]) if len(parts) >= 2 and parts[-2] == "rpc" else None
