"""What may not leave in a bundle, and how it is blotted out.

What lives here: `BundleRedactor`. What does not: the rule that every log line goes through (`meshnode.redaction`), on
which this one builds; which secrets a state directory holds (`secrets_here`).

Three rules, each of which suffices for most secrets:
1. a secret that is known (this node's keys, tokens, credential) is found in any of its encodings;
2. what looks like a secret is one: invite tokens, also when broken over lines, private keys, bearer tokens, passwords
   in URLs, keys of common services;
3. the value of a field that is named like a secret.
On request addresses go too: each becomes `[address N]`, the same everywhere in the bundle, so that one still sees which
is which. The home directory is always written `~`, since it names the user.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Final

from meshnode.redaction import BLOT, SECRET_NAMES, redact

MIN_SECRET_BYTES: Final = 8
"""A shorter text would blot out words that are no secret."""
TELLING_CHARACTERS: Final = 16
"""As much of either end of a known secret is enough to know it by."""

_WORD: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-")
"""What every encoding of bytes is written with."""

_MORE_SECRETS: Final = re.compile(
    r"mesh1_[A-Za-z0-9_=-]+(?:(?:\s|\\n|\\r)+[A-Za-z0-9_=-]{16,})*"  # a token, as a mailer breaks it
    r"|(?<=://)[^\s/@:\"']{1,128}:[^\s/@\"']{1,256}(?=@)"  # a password in a URL
    r"|\b(?:hf|sk|ghp|gho|xox[bp])[_-][A-Za-z0-9_-]{16,}"  # keys of services that people keep near models
    r"|(?i:\b(?:token|secret|password|passwd|api_key|authorization|cookie))(?:%3D|=)[^\s&\"',;]{6,}"
)
_MORE_NAMES: Final = SECRET_NAMES | {"cookie", "set-cookie", "credential", "chain", "seed", "root_key", "access_token"}
_ADDRESS: Final = re.compile(
    r"(?<![\w.:])(?:"
    r"\[(?P<bracketed>[0-9A-Fa-f:.]{2,45})(?:%25?[\w.-]+)?\]"
    r"|(?P<v4>\d{1,3}(?:\.\d{1,3}){3})(?![\w.]*\w)"
    r"|(?P<v6>[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.\d{1,3}){0,3})(?:%[\w.-]+)?(?![\w:])"
    r")"
)


class BundleRedactor:
    """Blots out `secrets` (raw values), whatever looks like one, and, with `hide_addresses`, addresses."""

    def __init__(self, secrets: Iterable[bytes] = (), *, hide_addresses: bool = False, home: str = "") -> None:
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= MIN_SECRET_BYTES}
        self._known = sorted(forms, key=lambda form: (-len(form), form))
        self._hide_addresses = hide_addresses
        self._home = home if len(home) > 1 else ""
        self._addresses: dict[str, str] = {}

    def text(self, text: str) -> str:
        """`text` as it may leave."""
        for form in self._known:
            text = _without(text, form)
        text = str(redact(_MORE_SECRETS.sub(BLOT, text)))
        if self._home:
            text = text.replace(self._home, "~")
        return _ADDRESS.sub(self._address, text) if self._hide_addresses else text

    def plain(self, value: object) -> object:
        """A JSON value as it may leave: texts, and the names and values of fields, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self._field(str(name), entry) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(entry) for entry in value]
        return value

    def json_text(self, value: object) -> str:
        """A JSON value as the text of a file. It goes through the rules once more as text, as what it will be read."""
        return self.text(json.dumps(self.plain(value), indent=1, ensure_ascii=False, default=str)) + "\n"

    def _field(self, name: str, value: object) -> object:
        return BLOT if name.lower() in _MORE_NAMES and value not in (None, "", [], {}) else self.plain(value)

    def _address(self, match: re.Match[str]) -> str:
        text = match["bracketed"] or match["v4"] or match["v6"]
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return match[0]
        if address.is_loopback or address.is_unspecified:
            return match[0]
        return self._addresses.setdefault(str(address), f"[address {len(self._addresses) + 1}]")


def _without(text: str, form: str) -> str:
    """`text` without `form`, also where one of its ends was cut off: the whole word goes that either of its ends is
    found in. (Looked for as plain text: a pattern of hundreds of secrets would take minutes for a long log.)"""
    for end in dict.fromkeys((form[:TELLING_CHARACTERS], form[-TELLING_CHARACTERS:], form)):
        if len(end) < TELLING_CHARACTERS and end != form:
            continue
        at = text.find(end)
        while at >= 0:
            first, last = at, at + len(end)
            while first > 0 and text[first - 1] in _WORD:
                first -= 1
            while last < len(text) and text[last] in _WORD:
                last += 1
            text = text[:first] + BLOT + text[last:]
            at = text.find(end, first + len(BLOT))
    return text


def _forms(secret: bytes) -> Iterable[str]:
    """The texts that a secret of these bytes may stand as."""
    yield secret.hex()
    yield secret.hex().upper()
    for encoded in (base64.b64encode(secret), base64.urlsafe_b64encode(secret), base64.b32encode(secret)):
        text = encoded.decode("ascii")
        yield from (text, text.rstrip("="), text.lower().rstrip("="))
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        return
    if text.isprintable():
        yield text
        yield json.dumps(text)[1:-1]
