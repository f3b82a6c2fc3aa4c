"""The log probabilities at positions of proteins: rows that grow on disk, and the files that are made from them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.score import describe_positions
from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS, encode
from protembed.data.fasta import Record
from protembed.data.protein_rows import ProteinRows, RowGroup, dataset_name, make_h5, make_npz
from protembed.inference.marginals import LogProbabilities, PositionQuery
from protembed.io.arrays import ArrayStream
from protembed.io.delimited import COMMENT
from protembed.io.growing import GrowingFiles
from protembed.io.result import Claim
from protembed.io.writing import atomic_file, output_errors
from protembed.scoring.protein_input import ProteinInput
from protembed.scoring.protein_job import MakeQuery
from protembed.text import format_row

_HEADER = (
    *("id", "position", "residue", "log_probability", "rank", "entropy"),
    *("best_other", "best_other_log_probability"),
)


def all_positions(sequence: str) -> PositionQuery:
    """Query every residue of a protein; also X and other letters, at which one may ask what fits."""
    return PositionQuery(residues=encode(sequence), positions=np.arange(len(sequence)))


class PositionStore:
    """Keeps the log probabilities at the queried positions of each protein, in the order of the input.

    Args:
        first_rows: Row of the first position of each protein, and the number of all rows, (proteins + 1,), int64.

    Attributes:
        rows: Where the rows are, which can be read once the store is closed.
        num_rows: Number of positions of all proteins.
        num_committed: Proteins that are safe on disk, including those of an earlier process.
    """

    def __init__(
        self,
        claim: Claim,
        rows: ProteinRows,
        files: GrowingFiles,
        make_query: MakeQuery,
        first_rows: NDArray[np.int64],
    ) -> None:
        self._claim, self._files, self._first_rows, self.rows = claim, files, first_rows, rows
        self._make_query, self.num_rows = make_query, int(first_rows[-1])
        self.num_committed = self._num_added = files.progress.get("num_proteins", 0)
        num_rows = files.progress.get("num_rows", 0)
        self._array = ArrayStream(files["rows"], (NUM_AMINO_ACIDS,), np.float32, num_rows=num_rows)

    @classmethod
    @contextmanager
    def open(cls, claim: Claim, proteins: ProteinInput, make_query: MakeQuery) -> Iterator["PositionStore"]:
        """Begin a result, or resume the unfinished one; `make_query` is that of the job that fills it."""
        rows = ProteinRows(claim.growing("rows"), claim.growing("groups"), per_residue=True)
        numbers = (len(make_query(record.sequence).positions) for record in proteins.read())
        first_rows = np.fromiter(accumulate(numbers, initial=0), np.int64)
        with ExitStack() as stack:
            files = GrowingFiles(claim, {"rows": rows.array, "groups": rows.members}, stack)
            with output_errors(claim.output):
                store = cls(claim, rows, files, make_query, first_rows)
            yield store
            with output_errors(claim.output):
                store._array.finish()

    def add(self, record: Record, query: PositionQuery, log_probs: LogProbabilities) -> None:
        """Add the next protein, with its log probabilities, (positions, 20)."""
        group = RowGroup(record.id, len(log_probs), dataset_name(record.written or record.sequence))
        with output_errors(self._claim.output):
            self._array.append(log_probs)
            self._files["groups"].write(group.line())
        self._num_added += 1

    def repeat(self, record: Record, row: int) -> None:
        """Add the next protein, whose sequence is that of an earlier row, from 0."""
        with output_errors(self._claim.output):
            self._files["rows"].flush()
        query = self._make_query(record.sequence)
        end_of_header = self.rows.array.stat().st_size - self._array.num_rows * NUM_AMINO_ACIDS * 4
        offset = end_of_header + int(self._first_rows[row]) * NUM_AMINO_ACIDS * 4
        numbers = np.fromfile(self.rows.array, np.float32, len(query.positions) * NUM_AMINO_ACIDS, offset=offset)
        self.add(record, query, numbers.reshape(-1, NUM_AMINO_ACIDS))

    def commit(self) -> None:
        """Make everything added so far safe."""
        self._files.commit({"num_proteins": self._num_added, "num_rows": self._array.num_rows})
        self.num_committed = self._num_added


def write_file(claim: Claim, rows: ProteinRows, proteins: ProteinInput, fingerprint: Mapping[str, Any]) -> None:
    """Make the file of a result from its rows, in the `format` of the fingerprint."""
    match fingerprint["format"]:
        case "npz":
            arrays = {"amino_acids": np.array(list(AMINO_ACIDS))}
            make_npz(claim.path, rows, name="log_probs", arrays=arrays)
        case "h5":
            make_h5(claim.path, rows, fingerprint["model_name"], attributes={"amino_acids": AMINO_ACIDS})
        case _:
            separator = "," if fingerprint["format"] == "csv" else "\t"
            with atomic_file(claim.path) as stream:
                stream.write(f"{COMMENT}log_probability: {describe_positions(fingerprint['method'])}\n".encode())
                stream.write(format_row(_HEADER, separator))
                for record, (_, log_probs) in zip(proteins.read(), rows.vectors(), strict=True):
                    for number, cells in enumerate(position_cells(record.sequence, log_probs), start=1):
                        stream.write(format_row([record.id, number, *cells], separator))


def position_cells(sequence: str, log_probs: LogProbabilities) -> Iterator[list[object]]:
    """Format the log probabilities at each residue, (residues, 20), as cells of a table.

    >>> log_probs = np.full((2, 20), np.log(0.5 / 19), np.float32)
    >>> log_probs[:, AMINO_ACIDS.index("K")] = np.log(0.5)
    >>> list(position_cells("KX", log_probs))[0]
    ['K', '-0.6931472', 1, '2.165367', 'L', '-3.637586']
    >>> list(position_cells("KX", log_probs))[1]
    ['X', '', '', '2.165367', 'K', '-0.6931472']
    """
    entropies = -(np.exp(log_probs, dtype=np.float64) * log_probs).sum(-1)  # (residues,)
    for letter, row, entropy in zip(sequence, log_probs, entropies, strict=True):
        column = AMINO_ACIDS.find(letter)
        own: list[object] = ["", ""]
        if column >= 0:
            own = [f"{row[column]:.7g}", int((row > row[column]).sum()) + 1]
        others = np.where(np.arange(NUM_AMINO_ACIDS) == column, -np.inf, row)
        best = int(others.argmax())
        yield [letter, *own, f"{entropy:.7g}", AMINO_ACIDS[best], f"{row[best]:.7g}"]
