"""Files of an unfinished result that grow together, and of which a kill of the process loses only the last lines."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from protembed.io.reading import read_json
from protembed.io.result import PROGRESS, Claim
from protembed.io.writing import flush_to_disk, open_append, output_errors, write_json

_BYTES = "bytes"


class GrowingFiles:
    """Binary files to which a process appends; the next one continues after what was committed.

    Args:
        claim: Claim of the result.
        paths: Path of each file by a name.
        files: Stack on which the files are closed.

    Attributes:
        progress: Counts that the last commit recorded; empty if there is none, if they are all zero, or if a file is
            shorter than it was then.

    Raises:
        OutputError: A file cannot be opened.
    """

    def __init__(self, claim: Claim, paths: Mapping[str, Path], files: ExitStack) -> None:
        self._claim, self._paths = claim, paths
        self.progress = self._load_progress()
        sizes = self.progress.get(_BYTES, {})
        self._streams = {name: open_append(path, sizes.get(name, 0)) for name, path in paths.items()}
        for stream in self._streams.values():
            files.callback(_close, stream)

    def _load_progress(self) -> dict[str, Any]:
        if not self._claim.is_resumed:
            return {}
        progress: dict[str, Any] = read_json(self._claim.directory / PROGRESS)
        sizes = {name: path.stat().st_size for name, path in self._paths.items() if path.exists()}
        is_complete = all(sizes.get(name, -1) >= size for name, size in progress[_BYTES].items())
        return progress if is_complete and any(progress[name] for name in progress.keys() - {_BYTES}) else {}

    def __getitem__(self, name: str) -> BinaryIO:
        """Return an open file, positioned at its end."""
        return self._streams[name]

    def commit(self, counts: Mapping[str, int]) -> None:
        """Flush all files to disk, and record these counts of what they hold as safe."""
        with output_errors(self._claim.output):
            sizes = {name: flush_to_disk(stream) for name, stream in self._streams.items()}
        write_json(self._claim.directory / PROGRESS, {**counts, _BYTES: sizes})


def _close(stream: BinaryIO) -> None:
    with suppress(OSError):  # a full disk has already been reported
        stream.close()
