"""A stderr that may fail: what cannot be told does not end a run."""

from typing import Any, TextIO


class LastingStderr:
    """A stream that drops what cannot be written: its reader has left, or its disk is full.

    Args:
        stream: all else is asked of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
