"""Writing a result: rows that grow on disk until the result is whole, and can be taken up after a kill.

The rows of `emb.npy` grow in `emb.npy.partial/`, where they are safe after each chunk of proteins; everything appears
under its name at the end, the meta file last.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from protembed.data.fasta import Record, SkippedRecord
from protembed.embedding.formats import (
    ArrayRows,
    RowGroup,
    Rows,
    TextRows,
    column_names,
    dataset_name,
    make_h5,
    make_npz,
)
from protembed.embedding.metadata import (
    FAILED,
    FAILED_HEADER,
    IDS,
    IDS_HEADER,
    META,
    different_settings,
    ids_line,
    publish,
    sidecar,
)
from protembed.errors import DataError, NotFiniteError, OutputError, OutputExistsError
from protembed.io.reading import STANDARD_STREAM, read_json, sha256_of_file
from protembed.io.text import format_row
from protembed.io.writing import (
    copy_to_stdout,
    flush_to_disk,
    is_unfinished,
    open_append,
    output_errors,
    remove,
    remove_unfinished,
    scratch_directory,
    write_json,
    write_table,
)

# In the folder of an unfinished result, beside files that have their final names from the beginning.
_FINGERPRINT, _PROGRESS, _MEMBERS, _ROWS = "fingerprint.json", "progress.json", "members.jsonl", "rows.npy"
_COUNTS = ("num_residues", "num_windowed")


class VectorWriter(Protocol):
    """Receives the vectors of one protein after the other.

    Attributes:
        num_committed: proteins that an earlier process has done.
    """

    num_committed: int

    def add(
        self, record: Record, vectors: NDArray[np.float32], num_windows: int = 1, overlap_cosine: float | None = None
    ) -> None:
        """Append the vectors of a protein, (dim,) or (residues, dim)."""
        ...

    def commit(self) -> None:
        """Make what was added safe."""
        ...

    def finish(self, skipped: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Make the result of what was added; return what is to be said of it."""
        ...


def unfinished(output: Path) -> Path:
    """Name the folder of an unfinished result."""
    return output.with_name(f"{output.name}.partial")


def finish_interrupted(output: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Bring a result to its place whose command was killed when all but the last renaming was done.

    Returns:
        Whether there was one, of this very command.
    """
    partial = unfinished(output)
    if not (partial / sidecar(output, META).name).exists() or _recorded(partial) != fingerprint:
        return False
    publish(partial, output)
    return True


def clean_up(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Remove what is left of a folder whose result is in its place: its process was killed while it cleaned up."""
    if _recorded(unfinished(output)) in (None, fingerprint) and not _unknown_files(output):
        remove(unfinished(output))


def _recorded(partial: Path) -> Any:
    try:
        return read_json(partial / _FINGERPRINT)
    except (OSError, ValueError):
        return None  # there is none, or it was killed before it said what it is


@contextmanager
def embeddings_writer(output: Path, fingerprint: Mapping[str, Any], *, force: bool = False) -> Iterator[VectorWriter]:
    """Begin a result, or take up the unfinished one of the very same command.

    Args:
        output: the file, or `-` for stdout, which has no files beside it.
        fingerprint: what makes two results the same, in plain values of JSON: `format`, `slices`, `dim`, `dtype`,
            `per_residue` and `model_name` among it.
        force: replace what another command left unfinished.

    Raises:
        OutputExistsError: another command left an unfinished result there.
        OutputError: something could not be written.
    """
    if output == STANDARD_STREAM:
        with _stdout_writer(fingerprint) as stream_writer:
            yield stream_writer
        return
    _claim(output, fingerprint, force=force)
    partial = unfinished(output)
    writer: ResumableWriter | None = None
    is_worthless = False
    try:
        writer = ResumableWriter(partial, output, fingerprint)
        yield writer
    except DataError:
        is_worthless = True  # who mends the input has another input
        raise
    finally:
        is_safe = (partial / _PROGRESS).exists()  # of an earlier process, where the disk is full from the beginning
        if writer is not None:
            writer.close()
            is_safe = writer.num_committed > 0 or writer.is_finished
        if is_worthless or not is_safe:
            remove(partial)


def _claim(output: Path, fingerprint: Mapping[str, Any], *, force: bool) -> None:
    partial = unfinished(output)
    recorded = _recorded(partial)
    if recorded == fingerprint:
        return
    if foreign := _unknown_files(output):
        found = f"holds {foreign[0]}, which is not protembed's" if partial.is_dir() else "is no folder of protembed"
        raise OutputExistsError(partial, found, is_replaceable=False)
    if isinstance(recorded, dict) and not force:
        different = ", ".join(different_settings(fingerprint, recorded))
        raise OutputExistsError(partial, f"holds an unfinished result of another {different}")
    with output_errors(partial):
        remove(partial)


def _unknown_files(output: Path) -> list[str]:
    """List what stands in the folder of an unfinished result that protembed did not put there."""
    partial, ours = unfinished(output), {_FINGERPRINT, _PROGRESS, _MEMBERS, _ROWS, output.name}
    ours |= {sidecar(output, suffix).name for suffix in (IDS, FAILED, META)}
    if partial.exists() and not partial.is_dir():
        return [partial.name]
    return sorted(path.name for path in partial.glob("*") if path.name not in ours and not is_unfinished(path))


class ResumableWriter:
    """Writes a result protein by protein; what is committed survives whatever ends the process.

    Args:
        partial: the folder of the unfinished result.
        output: where the finished one is to stand.
        fingerprint: as for `embeddings_writer`.

    Attributes:
        num_committed: proteins that are safe, and need not be computed again.
        is_finished: whether the result is whole; at most its renaming is left to do.
    """

    def __init__(self, partial: Path, output: Path, fingerprint: Mapping[str, Any]) -> None:
        self._partial, self._output, self._fingerprint = partial, output, fingerprint
        self.is_finished = False
        # Only an array that other formats are made of has another name than the result.
        is_final = fingerprint["format"] in ("npy", "tsv")
        self._paths = {
            "ids": partial / sidecar(output, IDS).name,
            "members": partial / _MEMBERS,
            "rows": partial / (output.name if is_final else _ROWS),
        }
        progress = self._recall()
        self.num_committed = self._num_proteins = progress["num_proteins"]
        self._counts = {name: progress[name] for name in _COUNTS}
        self._streams = dict[str, BinaryIO]()
        try:
            for name, path in self._paths.items():
                self._streams[name] = open_append(path, progress["bytes"][name])
            with output_errors(output):
                if not self.num_committed:
                    self._streams["ids"].write(format_row(IDS_HEADER))
                self._rows = _rows(self._streams["rows"], fingerprint, progress["num_rows"])
        except OutputError:
            self.close()
            raise

    def _recall(self) -> dict[str, Any]:
        """Read how far the result has come; nowhere where it is begun, or less is there than should be."""
        if (self._partial / _PROGRESS).exists():
            progress: dict[str, Any] = read_json(self._partial / _PROGRESS)
            is_whole = all(
                path.exists() and path.stat().st_size >= progress["bytes"][name] for name, path in self._paths.items()
            )
            if progress["num_proteins"] and is_whole:
                remove_unfinished(self._partial)
                return progress
        with output_errors(self._partial):
            remove(self._partial)
        write_json(self._partial / _FINGERPRINT, self._fingerprint)
        return {"num_proteins": 0, "num_rows": 0, "bytes": dict.fromkeys(self._paths, 0), **dict.fromkeys(_COUNTS, 0)}

    def add(
        self, record: Record, vectors: NDArray[np.float32], num_windows: int = 1, overlap_cosine: float | None = None
    ) -> None:
        """Append the vectors of a protein, (dim,) or (residues, dim), and a line about it."""
        rows = _finite_rows(record, vectors, self._fingerprint)
        with output_errors(self._output):
            self._rows.append(record.id, rows)
            line = ids_line(self._num_proteins + 1, record, num_windows, overlap_cosine)
            self._streams["ids"].write(format_row(line))
            member = RowGroup(record.id, len(rows), dataset_name(record.written or record.sequence))
            self._streams["members"].write(member.line())
        self._num_proteins += 1
        self._counts["num_residues"] += len(record.sequence)
        self._counts["num_windowed"] += num_windows > 1

    def commit(self) -> None:
        """Make what was added safe."""
        with output_errors(self._output):
            sizes = {name: flush_to_disk(stream) for name, stream in self._streams.items()}
        progress = {"num_proteins": self._num_proteins, "num_rows": self._rows.num_rows, **self._counts, "bytes": sizes}
        write_json(self._partial / _PROGRESS, progress)
        self.num_committed = self._num_proteins

    def finish(self, skipped: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Make the result of what was added, and bring it to its place; the meta file comes last.

        Args:
            skipped: records left out on request.

        Returns:
            What the meta file says.
        """
        self.commit()
        with output_errors(self._output):
            self._rows.finish()
        self.close()
        result, per_residue = self._partial / self._output.name, self._fingerprint["per_residue"]
        match self._fingerprint["format"]:
            case "h5":
                make_h5(
                    result,
                    self._paths["rows"],
                    self._paths["members"],
                    self._fingerprint["model_name"],
                    per_residue=per_residue,
                    names=self._fingerprint["h5_names"],
                )
            case "npz":
                make_npz(result, self._paths["rows"], self._paths["members"], per_residue=per_residue)
        if skipped:
            lines = [(Path(one.path).name, one.line, one.id, one.reason) for one in skipped]
            write_table(self._partial / sidecar(self._output, FAILED).name, FAILED_HEADER, lines)
        meta = {
            **self._fingerprint,
            "num_proteins": self._num_proteins,
            **self._counts,
            "num_refused": len(skipped),
            "ids_sha256": sha256_of_file(self._paths["ids"]),
            "sha256": sha256_of_file(result),
        }
        write_json(self._partial / sidecar(self._output, META).name, meta)
        self.is_finished = True
        publish(self._partial, self._output)
        return meta

    def close(self) -> None:
        """Close the files; what is not committed may be lost."""
        for stream in self._streams.values():
            with suppress(OSError):  # a full disk has been told already
                stream.close()


# To stdout


class StdoutWriter:
    """Writes vectors to stdout, where nothing can be taken up.

    Args:
        rows: where the vectors go.
        stream: what is flushed after each chunk.
        fingerprint: as for `embeddings_writer`.
    """

    def __init__(self, rows: Rows, stream: BinaryIO, fingerprint: Mapping[str, Any]) -> None:
        self._rows, self._stream, self._fingerprint, self.num_committed = rows, stream, fingerprint, 0
        self._counts = {"num_proteins": 0, **dict.fromkeys(_COUNTS, 0)}

    def add(
        self, record: Record, vectors: NDArray[np.float32], num_windows: int = 1, overlap_cosine: float | None = None
    ) -> None:
        """Append the vectors of a protein, (dim,) or (residues, dim)."""
        rows = _finite_rows(record, vectors, self._fingerprint)
        with output_errors(STANDARD_STREAM):
            self._rows.append(record.id, rows)
        self._counts["num_proteins"] += 1
        self._counts["num_residues"] += len(record.sequence)
        self._counts["num_windowed"] += num_windows > 1

    def commit(self) -> None:
        """Let the reader have what was added."""
        with output_errors(STANDARD_STREAM):
            self._stream.flush()

    def finish(self, skipped: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Let the reader have the rest, and count what was written."""
        self.commit()
        return {**self._counts, "num_refused": len(skipped)}


@contextmanager
def _stdout_writer(fingerprint: Mapping[str, Any]) -> Iterator[VectorWriter]:
    """Stream lines as they come; other formats need the number of rows first, and are written when all are there."""
    if fingerprint["format"] == "tsv":
        stream = sys.stdout.buffer
        with output_errors(STANDARD_STREAM):
            rows = _rows(stream, fingerprint, 0)
        yield StdoutWriter(rows, stream, fingerprint)
        return
    with scratch_directory() as directory:
        result = directory / f"result.{fingerprint['format']}"
        writer = ResumableWriter(directory / "partial", result, fingerprint)
        try:
            yield writer
        finally:
            writer.close()
        with result.open("rb") as stream:
            copy_to_stdout(stream)


def _finite_rows(record: Record, vectors: NDArray[np.float32], fingerprint: Mapping[str, Any]) -> NDArray[Any]:
    """Bring vectors to (rows, dim) in the dtype in which they are stored.

    Raises:
        NotFiniteError: they hold what is no number.
    """
    with np.errstate(over="ignore"):  # told by the error
        rows = np.atleast_2d(vectors).astype(fingerprint["dtype"])
    if not np.isfinite(rows).all():
        raise NotFiniteError(record.id, str(fingerprint.get("precision")), fingerprint["dtype"])
    return rows


def _rows(stream: BinaryIO, fingerprint: Mapping[str, Any], num_rows: int) -> Rows:
    if fingerprint["format"] == "tsv":
        return TextRows(stream, column_names(fingerprint["slices"]), fingerprint["dtype"], num_rows)
    return ArrayRows(stream, fingerprint["dim"], fingerprint["dtype"], num_rows)
