"""Errors about the rows of a table, which are reported together."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from protembed.errors import DataError, FaultyRowsError, SkippableError, TableError

# Errors that a message lists.
_MAX_LISTED = 10


class Faults:
    """Collects errors about the rows of a table, and raises them as one when its `with` block ends.

    An error about the table that ends the block is the last of them, because it may follow from the others.

    Attributes:
        num_errors: Number of errors.
    """

    def __init__(self) -> None:
        self._errors, self.num_errors = list[DataError](), 0

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
            raise FaultyRowsError(self._errors, self.num_errors)
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> "Faults":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.check()
        elif isinstance(error, TableError | SkippableError) and self._errors and not self._is_raised(error):
            self.add(error)
            self.check()

    def _is_raised(self, error: DataError) -> bool:
        """Return whether `check` raised an error."""
        return isinstance(error, FaultyRowsError) or error in self._errors


class RaisedFaults(Faults):
    """Raises each error at once."""

    def add(self, error: DataError) -> None:
        """Raise an error."""
        raise error
