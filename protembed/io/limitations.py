"""What a file system cannot do: a task warns the user once, and does without.

Network, virtual and user-space file systems (CIFS, NFS, VirtualBox, WSL, FUSE) lack what local ones have. A result that
is written without it is better than none.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path

# Errors that mean: not on this file system.
NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_REPORT: ContextVar[Callable[["Limitation"], None] | None] = ContextVar("_REPORT", default=None)


class Limitation(StrEnum):
    """What a file system cannot do, and what follows from it."""

    FLUSHING = "files cannot be flushed to disk here, so that a power failure may damage this result"
    LOCKS = "there are no locks here: let no two commands write the same result at the same time"
    PERMISSIONS = "permissions cannot be changed here, so that other users may be unable to read this result"
    RENAMING = "files cannot be renamed here and are copied: do not read this result before the command has ended"


@contextmanager
def report_limitations(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Report each limitation that is met within the block once, as a sentence with the path of the result."""
    met = set[Limitation]()

    def report_first(limitation: Limitation) -> None:
        if limitation not in met:
            met.add(limitation)
            report(f"{path}: {limitation}")

    token = _REPORT.set(report_first)
    try:
        yield
    finally:
        _REPORT.reset(token)


def note_limitation(limitation: Limitation) -> None:
    """Note that the file system has a limitation; it is not reported outside `report_limitations`."""
    report = _REPORT.get()
    if report is not None:
        report(limitation)
