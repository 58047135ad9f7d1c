"""The operator's own engine program with least rights: `python -m` with this module, `BOUNDS PROGRAM ...`.

What lives here: the step between the node and a program that is not ours. What does not: the rights themselves
(`meshnode.engine.confinement.rights`, `meshnode.engine.confinement.reach`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources


def confined_command(words: Sequence[str], reach: Reach, connects: Sequence[int] = ()) -> list[str]:
    """The command line that runs `words` with least rights, under the process id it was started with. The program
    uses what is in `reach`, connects to the TCP ports `connects` and listens at sockets with a path only."""
    bounds = json.dumps({"reach": asdict(reach.also(program=words[0])), "connects": list(connects)})
    return [sys.executable, "-m", "meshnode.engine.confinement.program", bounds, *words]


def main(arguments: Sequence[str]) -> None:
    """Becomes the program. Returns only by an error."""
    bounds, *words = arguments
    fields = json.loads(bounds)
    end_with_parent()
    limit_resources()
    drop_rights()
    give_up_the_rest(Reach.from_fields(fields["reach"]), connects=fields["connects"], unix_streams=True)
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
