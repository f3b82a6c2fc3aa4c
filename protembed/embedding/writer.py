"""Writing vectors protein by protein: as rows that grow on disk and survive a kill, or as lines on stdout.

The rows grow in the directory of a claim, such as `emb.npy.partial/`, where they are safe after each chunk of proteins.
At the end they are converted to the format of the result, unless they are the result.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.fasta import Record, SkippedRecord
from protembed.data.protein_rows import ProteinRows, RowGroup, dataset_name
from protembed.embedding.formats import column_names, convert, table_lines
from protembed.embedding.metadata import FAILED, FAILED_HEADER, IDS, IDS_HEADER, ids_line
from protembed.errors import NotFiniteError
from protembed.inference.embedding import Embedding
from protembed.io.arrays import ArrayStream
from protembed.io.fingerprint import Fingerprint
from protembed.io.growing import GrowingFiles
from protembed.io.reading import STANDARD_STREAM, sha256_of_file
from protembed.io.result import Claim
from protembed.io.writing import output_errors, write_table
from protembed.text import format_row

# Beside `progress.json` in the directory of an unfinished result; the other files have their final names.
_GROUPS, _ROWS = "members.jsonl", "rows.npy"


@dataclass
class _Counts:
    """Counts that the meta file records."""

    num_proteins: int = 0
    num_residues: int = 0
    num_windowed: int = 0

    def add(self, record: Record, embedding: Embedding) -> None:
        self.num_proteins += 1
        self.num_residues += len(record.sequence)
        self.num_windowed += embedding.num_windows > 1


def _finite_rows(record: Record, embedding: Embedding, fingerprint: Fingerprint) -> NDArray[Any]:
    """Convert vectors to (rows, dim) in the dtype in which they are stored; raise an error if they are not finite."""
    with np.errstate(over="ignore"):  # the error below reports it
        rows = np.atleast_2d(embedding.values).astype(fingerprint["dtype"])
    if not np.isfinite(rows).all():
        raise NotFiniteError(record.id, str(fingerprint.get("precision")), fingerprint["dtype"])
    return rows


class LineWriter:
    """Writes vectors to stdout as lines of a TSV; a run cannot be resumed."""

    num_committed = 0

    def __init__(self, fingerprint: Fingerprint) -> None:
        self._fingerprint, self._counts, self._stream = fingerprint, _Counts(), sys.stdout.buffer
        with output_errors(STANDARD_STREAM):
            self._stream.write(format_row(["id", *column_names(fingerprint["slices"])]))

    def add(self, record: Record, embedding: Embedding) -> None:
        """Write the vector of a protein."""
        rows = _finite_rows(record, embedding, self._fingerprint)
        with output_errors(STANDARD_STREAM):
            self._stream.writelines(table_lines(record.id, rows))
        self._counts.add(record, embedding)

    def commit(self) -> None:
        """Flush the lines to the reader."""
        with output_errors(STANDARD_STREAM):
            self._stream.flush()

    def publish(self, skipped: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Flush the last lines; return the counts of what was written."""
        self.commit()
        return {**asdict(self._counts), "num_refused": len(skipped)}


class ArrayWriter:
    """Writes vectors as rows of an array; what is committed survives a kill of the process.

    Args:
        claim: Claim of the result.
        fingerprint: What makes two results the same; `format`, `slices`, `dim`, `dtype`, `per_residue` and `model_name`
            are among it.
        files: Stack on which the open files are closed.

    Attributes:
        num_committed: Proteins that are safe on disk, including those of an earlier process.
    """

    def __init__(self, claim: Claim, fingerprint: Fingerprint, files: ExitStack) -> None:
        self._claim, self._fingerprint, self._files = claim, fingerprint, files
        rows = claim.path if fingerprint["format"] == "npy" else claim.directory / _ROWS
        self._paths = {"ids": claim.companion(IDS), "members": claim.directory / _GROUPS, "rows": rows}
        self._growing = GrowingFiles(claim, self._paths, files)
        progress = self._growing.progress
        self._counts = _Counts(**{name: progress.get(name, 0) for name in asdict(_Counts())})
        self.num_committed = self._counts.num_proteins
        with output_errors(claim.output):
            if not progress:
                self._growing["ids"].write(format_row(IDS_HEADER))
            self._rows = ArrayStream(
                self._growing["rows"], (fingerprint["dim"],), fingerprint["dtype"], num_rows=progress.get("num_rows", 0)
            )

    def add(self, record: Record, embedding: Embedding) -> None:
        """Append the vectors of a protein, (dim,) or (residues, dim), and its line in the table of identifiers."""
        rows = _finite_rows(record, embedding, self._fingerprint)
        self._counts.add(record, embedding)
        line = ids_line(self._counts.num_proteins, record, embedding.num_windows, embedding.overlap_cosine)
        group = RowGroup(record.id, len(rows), dataset_name(record.written or record.sequence))
        with output_errors(self._claim.output):
            self._rows.append(rows)
            self._growing["ids"].write(format_row(line))
            self._growing["members"].write(group.line())

    def commit(self) -> None:
        """Flush everything added so far to disk, and record it as safe."""
        self._growing.commit({**asdict(self._counts), "num_rows": self._rows.num_rows})
        self.num_committed = self._counts.num_proteins

    def publish(self, skipped: Sequence[SkippedRecord]) -> dict[str, Any]:
        """Make the result from the rows and publish it; return the content of the meta file."""
        self.commit()
        with output_errors(self._claim.output):
            self._rows.finish()
        self._files.close()
        rows = ProteinRows(self._paths["rows"], self._paths["members"], per_residue=self._fingerprint["per_residue"])
        with output_errors(self._claim.output):  # what was written may be gone: some clusters remove old files
            convert(rows, self._claim.path, self._fingerprint)
            if skipped:
                lines = [(Path(record.path).name, record.line, record.id, record.reason) for record in skipped]
                write_table(self._claim.companion(FAILED), FAILED_HEADER, lines)
            ids_sha256 = sha256_of_file(self._paths["ids"])
            facts = {**asdict(self._counts), "num_refused": len(skipped), "ids_sha256": ids_sha256}
            return self._claim.publish({**self._fingerprint, **facts})


@contextmanager
def embedding_writer(claim: Claim, fingerprint: Fingerprint) -> Iterator[ArrayWriter | LineWriter]:
    """Begin a result, or resume the unfinished one; only the lines of a TSV are written to stdout as they come."""
    if claim.output == STANDARD_STREAM and fingerprint["format"] == "tsv":
        yield LineWriter(fingerprint)
        return
    with ExitStack() as files:
        yield ArrayWriter(claim, fingerprint, files)
