"""The last line of defence against a secret in a log: whatever looks like a token or a key is blotted out.

No event has a field for a secret (`meshnode.events`); this catches what slips in through free text, such as the message
of a library's exception that quotes its input. Called by `meshnode.logs` for every record before it is rendered.
"""

from __future__ import annotations

import re

BLOT = "[redacted]"

SECRET_NAMES = frozenset({"token", "secret", "password", "passwd", "private_key", "authorization", "api_key", "nonce"})
"""Fields of these exact names never show their value. (`token_id` is public: it names a token without being one.)"""

_SECRETS = re.compile(
    r"mesh1_[A-Za-z0-9_=-]+"  # an invite token, whole or mangled
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]+"
    r"|(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43}=",  # 32 raw bytes in base64: an Ed25519 key
    re.DOTALL,
)


def redact(value: object) -> object:
    """`value` with every secret-like text in it, at any depth, replaced by `[redacted]`."""
    if isinstance(value, str):
        return _SECRETS.sub(BLOT, value)
    if isinstance(value, dict):
        return redact_fields(value)
    if isinstance(value, list | tuple):
        return [redact(entry) for entry in value]
    return value


def redact_fields(fields: dict[str, object]) -> dict[str, object]:
    """As `redact`, for named values: a secret's name is enough to hide what it holds."""
    return {name: BLOT if name.lower() in SECRET_NAMES else redact(value) for name, value in fields.items()}
