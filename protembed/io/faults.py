"""Errors about the rows of a table, which are reported together."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from protembed.errors import DataError, FaultyRowsError

# Errors that a message lists.
_MAX_LISTED = 10


class Faults:
    """Collects errors about the rows of a table, and raises them as one when its `with` block ends.

    An error that ends the block is the last of them, because it may follow from the others.

    Args:
        remedy: Clause that says how such rows can be left out; empty if there is no such option.

    Attributes:
        num_errors: Number of errors.
    """

    def __init__(self, remedy: str = "") -> None:
        self._remedy, self._errors, self.num_errors = remedy, list[DataError](), 0

    def add(self, error: DataError) -> None:
        """Add an error."""
        self.num_errors += 1
        if len(self._errors) < _MAX_LISTED:
            self._errors.append(error)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add an error that is raised within the block, and continue after it."""
        try:
            yield
        except DataError as error:
            self.add(error)

    def check(self) -> None:
        """Raise the errors: a single one as it is, several as a `FaultyRowsError`."""
        if self.num_errors > 1:
            raise FaultyRowsError(self._errors, self.num_errors, self._remedy)
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> "Faults":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, DataError):
            return
        if isinstance(error, DataError) and self._errors:
            self.add(error)
        if self._errors:
            self.check()


class RaisedFaults(Faults):
    """Raises each error at once."""

    def add(self, error: DataError) -> None:
        """Raise an error."""
        raise error
