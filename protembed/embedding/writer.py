"""Writing a result: rows that grow on disk until the result is complete, and can be resumed after a kill.

The rows of `emb.npy` grow in `emb.npy.partial/`, where they are safe after each chunk of proteins. At the end all files
are renamed to their final names, the meta file last.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from protembed.data.fasta import Record, SkippedRecord
from protembed.embedding.formats import (
    RowGroup,
    column_names,
    dataset_name,
    make_h5,
    make_npz,
    make_tsv,
    table_lines,
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
from protembed.io.arrays import ArrayStream
from protembed.io.reading import STANDARD_STREAM, read_json, sha256_of_file
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
from protembed.text import format_row

# Files in the directory of an unfinished result; the others have their final names from the beginning.
_FINGERPRINT, _PROGRESS, _GROUPS, _ROWS = "fingerprint.json", "progress.json", "members.jsonl", "rows.npy"
_COUNTS = ("num_residues", "num_windowed")


# The directory of an unfinished result


def partial_path(output: Path) -> Path:
    """Return the path of the directory in which a result grows."""
    return output.with_name(f"{output.name}.partial")


def _read_fingerprint(partial: Path) -> Any:
    try:
        return read_json(partial / _FINGERPRINT)
    except (OSError, ValueError):
        return None  # there is no unfinished result, or its process was killed before it wrote the fingerprint


def _unknown_files(output: Path) -> list[str]:
    """List the files in the directory of an unfinished result that protembed did not write."""
    partial, known = partial_path(output), {_FINGERPRINT, _PROGRESS, _GROUPS, _ROWS, output.name}
    known |= {sidecar(output, suffix).name for suffix in (IDS, FAILED, META)}
    if partial.exists() and not partial.is_dir():
        return [partial.name]
    return sorted(path.name for path in partial.glob("*") if path.name not in known and not is_unfinished(path))


def finish_interrupted(output: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Publish a complete result whose process was killed while it renamed the files.

    Returns:
        Whether there was one, of the same command.
    """
    partial = partial_path(output)
    if not (partial / sidecar(output, META).name).exists() or _read_fingerprint(partial) != fingerprint:
        return False
    publish(partial, output)
    return True


def clean_up(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Remove the rest of a directory whose result was published; its process was killed while it removed it."""
    if _read_fingerprint(partial_path(output)) in (None, fingerprint) and not _unknown_files(output):
        remove(partial_path(output))


def _claim(output: Path, fingerprint: Mapping[str, Any], *, force: bool) -> None:
    """Check that the directory of an unfinished result may be used; remove one that cannot be resumed."""
    partial = partial_path(output)
    recorded = _read_fingerprint(partial)
    if recorded == fingerprint:
        return
    if unknown := _unknown_files(output):
        found = f"contains {unknown[0]}, which is not protembed's" if partial.is_dir() else "is not a directory"
        raise OutputExistsError(partial, found, is_replaceable=False)
    if isinstance(recorded, dict) and not force:
        different = ", ".join(different_settings(fingerprint, recorded))
        raise OutputExistsError(partial, f"contains an unfinished result with a different {different}")
    with output_errors(partial):
        remove(partial)


# Writers


def _finite_rows(record: Record, vectors: NDArray[np.float32], fingerprint: Mapping[str, Any]) -> NDArray[Any]:
    """Convert vectors to (rows, dim) in the dtype in which they are stored.

    Raises:
        NotFiniteError: They contain infinities or NaN.
    """
    with np.errstate(over="ignore"):  # the error below reports it
        rows = np.atleast_2d(vectors).astype(fingerprint["dtype"])
    if not np.isfinite(rows).all():
        raise NotFiniteError(record.id, str(fingerprint.get("precision")), fingerprint["dtype"])
    return rows


class StdoutWriter:
    """Writes the vectors of proteins to stdout as lines of a TSV; a run cannot be resumed.

    Args:
        fingerprint: Settings that make two results the same, as in `embeddings_writer`.
    """

    num_committed = 0

    def __init__(self, fingerprint: Mapping[str, Any]) -> None:
        self._stream, self._fingerprint = sys.stdout.buffer, fingerprint
        self._counts = {"num_proteins": 0, **dict.fromkeys(_COUNTS, 0)}
        with output_errors(STANDARD_STREAM):
            self._stream.write(format_row(["id", *column_names(fingerprint["slices"])]))

    def add(
        self, record: Record, vectors: NDArray[np.float32], num_windows: int = 1, overlap_cosine: float | None = None
    ) -> None:
        """Append the vector of a protein, (dim,)."""
        rows = _finite_rows(record, vectors, self._fingerprint)
        with output_errors(STANDARD_STREAM):
            self._stream.writelines(table_lines(record.id, rows))
        self._counts["num_proteins"] += 1
        self._counts["num_residues"] += len(record.sequence)
        self._counts["num_windowed"] += num_windows > 1

    def commit(self) -> None:
        """Flush the lines to the reader."""
        with output_errors(STANDARD_STREAM):
            self._stream.flush()

    def finish(self, refused: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Flush the last lines; return the counts of what was written."""
        self.commit()
        return {**self._counts, "num_refused": len(refused)}


class ResumableWriter:
    """Writes a result protein by protein; what is committed survives a kill of the process.

    Args:
        partial: Path of the directory in which the result grows.
        output: Final path of the result.
        fingerprint: Settings that make two results the same, as in `embeddings_writer`.

    Attributes:
        num_committed: Proteins that are safe on disk, including those of an earlier process.
        is_finished: Whether the result is complete, so that at most its renaming is left to do.
    """

    def __init__(self, partial: Path, output: Path, fingerprint: Mapping[str, Any]) -> None:
        self._partial, self._output, self._fingerprint = partial, output, fingerprint
        self.is_finished = False
        # Rows have the final name if they are the result, and another one if they are converted at the end.
        self._paths = {
            "ids": partial / sidecar(output, IDS).name,
            "members": partial / _GROUPS,
            "rows": partial / (output.name if fingerprint["format"] == "npy" else _ROWS),
        }
        progress = self._load_progress()
        self.num_committed = self._num_proteins = progress["num_proteins"]
        self._counts = {name: progress[name] for name in _COUNTS}
        self._streams = dict[str, BinaryIO]()
        try:
            for name, path in self._paths.items():
                self._streams[name] = open_append(path, progress["bytes"][name])
            with output_errors(output):
                if not self.num_committed:
                    self._streams["ids"].write(format_row(IDS_HEADER))
                self._rows = ArrayStream(
                    self._streams["rows"], (fingerprint["dim"],), fingerprint["dtype"], num_rows=progress["num_rows"]
                )
        except OutputError:
            self.close()
            raise

    def _load_progress(self) -> dict[str, Any]:
        """Read how far the result has come; start over if it is new, or if its files are shorter than recorded."""
        if (self._partial / _PROGRESS).exists():
            progress: dict[str, Any] = read_json(self._partial / _PROGRESS)
            is_complete = all(
                path.exists() and path.stat().st_size >= progress["bytes"][name] for name, path in self._paths.items()
            )
            if progress["num_proteins"] and is_complete:
                remove_unfinished(self._partial)
                return progress
        with output_errors(self._partial):
            remove(self._partial)
        write_json(self._partial / _FINGERPRINT, self._fingerprint)
        return {"num_proteins": 0, "num_rows": 0, "bytes": dict.fromkeys(self._paths, 0), **dict.fromkeys(_COUNTS, 0)}

    def add(
        self, record: Record, vectors: NDArray[np.float32], num_windows: int = 1, overlap_cosine: float | None = None
    ) -> None:
        """Append the vectors of a protein, (dim,) or (residues, dim), and its line in the table of identifiers."""
        rows = _finite_rows(record, vectors, self._fingerprint)
        with output_errors(self._output):
            self._rows.append(rows)
            line = ids_line(self._num_proteins + 1, record, num_windows, overlap_cosine)
            self._streams["ids"].write(format_row(line))
            group = RowGroup(record.id, len(rows), dataset_name(record.written or record.sequence))
            self._streams["members"].write(group.line())
        self._num_proteins += 1
        self._counts["num_residues"] += len(record.sequence)
        self._counts["num_windowed"] += num_windows > 1

    def commit(self) -> None:
        """Flush everything added so far to disk, and record it as safe."""
        with output_errors(self._output):
            sizes = {name: flush_to_disk(stream) for name, stream in self._streams.items()}
        progress = {"num_proteins": self._num_proteins, "num_rows": self._rows.num_rows, **self._counts, "bytes": sizes}
        write_json(self._partial / _PROGRESS, progress)
        self.num_committed = self._num_proteins

    def finish(self, refused: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Make the result from the rows and publish it; the meta file comes last.

        Args:
            refused: Records that were left out on request.

        Returns:
            The content of the meta file.
        """
        self.commit()
        with output_errors(self._output):
            self._rows.finish()
        self.close()
        result = self._partial / self._output.name
        self._make(result)
        if refused:
            lines = [(Path(record.path).name, record.line, record.id, record.reason) for record in refused]
            write_table(self._partial / sidecar(self._output, FAILED).name, FAILED_HEADER, lines)
        meta = {
            **self._fingerprint,
            "num_proteins": self._num_proteins,
            **self._counts,
            "num_refused": len(refused),
            "ids_sha256": sha256_of_file(self._paths["ids"]),
            "sha256": sha256_of_file(result),
        }
        write_json(self._partial / sidecar(self._output, META).name, meta)
        self.is_finished = True
        publish(self._partial, self._output)
        return meta

    def _make(self, result: Path) -> None:
        """Convert the rows to the format of the result."""
        rows, groups, per_residue = self._paths["rows"], self._paths["members"], self._fingerprint["per_residue"]
        match self._fingerprint["format"]:
            case "tsv":
                make_tsv(result, rows, groups, column_names(self._fingerprint["slices"]))
            case "npz":
                make_npz(result, rows, groups, per_residue=per_residue)
            case "h5":
                model_name, names = self._fingerprint["model_name"], self._fingerprint["h5_names"]
                make_h5(result, rows, groups, model_name, per_residue=per_residue, names=names)

    def close(self) -> None:
        """Close the files; what is not committed may be lost."""
        for stream in self._streams.values():
            with suppress(OSError):  # a full disk has already been reported
                stream.close()


@contextmanager
def _stdout_writer(fingerprint: Mapping[str, Any]) -> Iterator[ResumableWriter | StdoutWriter]:
    """Write lines to stdout as they come; other formats need the number of rows first, and are copied at the end."""
    if fingerprint["format"] == "tsv":
        yield StdoutWriter(fingerprint)
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


@contextmanager
def embeddings_writer(
    output: Path, fingerprint: Mapping[str, Any], *, force: bool = False
) -> Iterator[ResumableWriter | StdoutWriter]:
    """Begin a result, or resume the unfinished one of the same command.

    Args:
        output: Path of the result, or `-` for stdout, which has no files beside it.
        fingerprint: Settings that make two results the same, in plain JSON values; `format`, `slices`, `dim`, `dtype`,
            `per_residue` and `model_name` are among them.
        force: Whether to replace what a different command left unfinished.

    Raises:
        OutputExistsError: A different command left an unfinished result there.
        OutputError: A file cannot be written.
    """
    if output == STANDARD_STREAM:
        with _stdout_writer(fingerprint) as stream_writer:
            yield stream_writer
        return
    _claim(output, fingerprint, force=force)
    partial = partial_path(output)
    writer: ResumableWriter | None = None
    is_worthless = False
    try:
        writer = ResumableWriter(partial, output, fingerprint)
        yield writer
    except DataError:
        is_worthless = True  # the rows cannot be resumed, because a corrected input is a different input
        raise
    finally:
        is_safe = (partial / _PROGRESS).exists()  # from an earlier process, if the disk was full from the beginning
        if writer is not None:
            writer.close()
            is_safe = writer.num_committed > 0 or writer.is_finished
        if is_worthless or not is_safe:
            remove(partial)
