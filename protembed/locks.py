"""Who may write a result: one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protembed.errors import RunInUseError
from protembed.files import exclusive_lock, remove_unfinished_beside
from protembed.inputs import STANDARD_STREAM


@contextmanager
def result_lock(output: Path) -> Iterator[None]:
    """Hold a result while it is made, and sweep away what a killed process left beside it; stdout has no rivals.

    Raises:
        RunInUseError: another process is writing this result.
        OutputError: the folder cannot be written.
    """
    if output == STANDARD_STREAM:
        yield
        return
    with exclusive_lock(output.with_name(f".{output.name}.lock"), lambda holder: RunInUseError(output, holder)):
        remove_unfinished_beside(output)
        yield
