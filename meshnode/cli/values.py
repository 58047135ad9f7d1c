"""Parameter types of the command line: sizes, durations, uses. A wrong one says what would be right."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Duration(click.ParamType[int]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,6})([smhdw])", str(value).strip())
        if match is None or match[1].strip("0") == "":
            self.fail(f"found {value!r}, expected a time such as 30m, 1h or 7d", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


class _Uses(click.ParamType["int | None"]):
    name = "uses"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "unlimited":
            return None
        text = str(value)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
            self.fail(f"found {value!r}, expected a number from 1 to 1000, or `unlimited`", param, ctx)
        return int(text)


DURATION = _Duration()
USES = _Uses()
