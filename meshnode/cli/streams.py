"""What a shell does to a verb: closed streams, readers that go away, a full disk, Ctrl-C.

What lives here: `open_closed_streams` and `ending_plainly`, both called by `meshnode.cli.main`'s group of verbs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from meshnode.exit_codes import INTERRUPTED, READER_GONE, REFUSED

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def open_closed_streams() -> None:
    """Open what is closed (`meshnode run >&-`) on nothing: else the next file opened would be written to as stdout."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


@contextmanager
def ending_plainly() -> Iterator[None]:
    """A verb runs inside. Ctrl-C and output that can't be written end it in one line, a reader that went away in
    none."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\ninterrupted", err=True)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        raise SystemExit(READER_GONE) from None
    except OSError as error:
        # A verb turns what files and sockets refuse into a `Failure`; a write to a stream names no file.
        if error.errno not in _FULL or error.filename is not None:
            raise
        click.echo(f"error: the output can't be written: {error.strerror}\n  make room, or write elsewhere", err=True)
        raise SystemExit(REFUSED) from error
    finally:
        if not _can_flush():  # Python would try once more when it ends, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _can_flush() -> bool:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True
