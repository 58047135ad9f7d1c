"""The operator's own engine program, started with least rights: `python -m meshnode.engine.confined PROGRAM ...`.

What lives here: the step between the node and a program that is not ours. What does not: the rights themselves
(`meshnode.engine.confining`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from meshnode.engine.confining import drop_rights, end_with_parent, limit_resources


def confined_command(words: Sequence[str]) -> list[str]:
    """The command line that runs `words` with least rights, under the process id it was started with."""
    return [sys.executable, "-m", "meshnode.engine.confined", *words]


def main(words: Sequence[str]) -> None:
    """Becomes the program. Returns only by an error."""
    end_with_parent()
    limit_resources()
    drop_rights()
    os.execv(words[0], list(words))


if __name__ == "__main__":
    main(sys.argv[1:])
