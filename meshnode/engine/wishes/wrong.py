"""The error of a request that can't be answered as it is.

What lives here: `WrongWish`, `shown`. What does not: the checks (`completion`, `chat`).
"""

from __future__ import annotations

from typing import Any


class WrongWish(ValueError):
    """A request that can't be answered, in OpenAI's shape. `code` `engine_error` says that the engine is at fault."""

    def __init__(self, field: str, message: str, code: str = "invalid_request") -> None:
        self.field = field
        self.message = message
        self.code = code
        super().__init__(f"{field}: {message}")

    @property
    def status(self) -> int:
        """The HTTP status it is answered with."""
        return 500 if self.code == "engine_error" else 400

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.field, "code": self.code}}


def shown(value: object) -> str:
    """What was found, short enough for a message."""
    return repr(value)[:60]
