"""One thing that was checked: what it was, what was found, what to do about it.

What lives here: `Finding`, `Grade`, `worst`. What does not: the checks (`machine`, `mesh` and the rooms beside them),
printing (`meshnode.cli.doctor`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Grade(StrEnum):
    """How bad a finding is. `WARNING`: works, but costs something or soon will; `ERROR`: something does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"

    @property
    def exit_code(self) -> int:
        """What `meshnode doctor` ends with where this is the worst."""
        return list(Grade).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is a stable word for scripts, `subject` what it was about (a peer, a device, a file), `checked` says how
    it was looked at, `found` what is there, `advice` what to do (empty where nothing is)."""

    check: str
    grade: Grade
    subject: str
    checked: str
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "check": self.check,
            "grade": self.grade.value,
            "subject": self.subject,
            "checked": self.checked,
            "found": self.found,
            "advice": self.advice,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Finding:
        """The finding that `to_dict` made."""
        return cls(**{**fields, "grade": Grade(fields["grade"])})


def worst(findings: Iterable[Finding]) -> Grade:
    """The gravest grade among `findings`."""
    return max((finding.grade for finding in findings), key=lambda grade: grade.exit_code, default=Grade.OK)
