"""Loading a finished result of `embed` in Python: its vectors, their identifiers, and how they were computed."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.metadata import COUNTS, read_ids_lines
from protembed.embedding.parts import check_same_settings, find_parts, in_order
from protembed.embedding.stored_result import StoredResult
from protembed.errors import VerificationError
from protembed.io.reading import Paths
from protembed.text import pluralize, reason_of, unescape

# Settings that the vectors of joined files must share.
_SETTINGS = ("model_sha256", "per_residue", "layer", "pooling", "region", "precision", "dtype")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Embeddings(Mapping[str, NDArray[Any]]):
    """A result of `embed`, and a mapping from identifiers to vectors.

    Attributes:
        vectors: Vectors, (proteins, dim), in the order of the input, float32 or float16 as they are stored; for a
            result per residue, a sequence of arrays, (residues, dim). Those of residues, and those of one `.npy` or
            `.npz` file, stay on disk until they are used.
        ids: Identifiers, in the same order.
        meta: Content of the meta file: the model, the settings and the counts; of several shards, their sums.
    """

    vectors: NDArray[Any] | Sequence[NDArray[Any]]
    ids: Sequence[str]
    meta: Mapping[str, Any]

    # Two results are equal only if they are the same object: comparing vectors is for NumPy.
    __eq__, __hash__ = object.__eq__, object.__hash__

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, record_id: str) -> NDArray[Any]:
        """Return the vector of a protein, (dim,), or those of its residues, (residues, dim).

        Raises:
            KeyError: No row has the identifier, or several have; then use `vectors` and the number of the row.
        """
        rows = self._rows[record_id]
        if len(rows) > 1:
            raise KeyError(f"{record_id!r} is the identifier of the rows {', '.join(map(str, rows))} of `vectors`")
        vectors: NDArray[Any] = self.vectors[rows[0]]
        return vectors

    def __repr__(self) -> str:
        per = "residue" if self.meta["per_residue"] else "protein"
        proteins = pluralize(len(self), "protein")
        return f"<Embeddings of {proteins}: dim {self.meta['dim']} per {per}, by {self.meta['model_name']}>"

    @cached_property
    def _rows(self) -> Mapping[str, list[int]]:
        rows = defaultdict[str, list[int]](list)
        for row, record_id in enumerate(self.ids):
            rows[record_id].append(row)
        return dict(rows)


def load_embeddings(files: Paths) -> Embeddings:
    """Load a finished result of `embed`, a shard, or all shards as one.

    Args:
        files: The `.npy`, `.npz`, `.h5` or `.tsv` file; those of all shards as a list in any order, or as a pattern
            such as `emb.*-of-8.npy`. Results of several inputs that were made with the same settings are joined in the
            order given.

    Raises:
        InputNotFoundError: There is no such file.
        VerificationError: A result is unfinished or damaged, a shard is missing, or the results have other settings
            than the first.
    """
    parts = find_parts(files)
    if len(parts) == 1:
        return _open(parts[0])
    parts = in_order(parts)
    check_same_settings(parts, _SETTINGS)
    opened, first = [_open(part) for part in parts], parts[0].meta
    counts = {name: sum(part.meta[name] for part in parts) for name in COUNTS}
    vectors = [of_part.vectors for of_part in opened]
    return Embeddings(
        vectors=_Chain(vectors) if first["per_residue"] else np.concatenate(vectors),
        ids=[record_id for of_part in opened for record_id in of_part.ids],
        meta={**first, **counts, "shard": None},
    )


def _open(part: StoredResult) -> Embeddings:
    """Open the file of a result, or of one shard."""
    meta = part.meta
    vectors: NDArray[Any] | Sequence[NDArray[Any]] = np.empty((0, meta["dim"]), meta["dtype"])
    try:
        ids = [unescape(line.split("\t", 2)[1]) for line in read_ids_lines(part.path)]
        num_stored = part.vectors.count()
        if num_stored == part.num_proteins > 0:
            vectors = part.vectors.open()
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise VerificationError(part.path, f"it cannot be read ({reason_of(error)})") from error
    if not num_stored == len(ids) == part.num_proteins:
        found = f"it has {num_stored:,} proteins and {len(ids):,} identifiers, but its meta file records"
        raise VerificationError(part.path, f"{found} {part.num_proteins:,} proteins")
    return Embeddings(vectors=vectors, ids=ids, meta=meta)


class _Chain(Sequence[NDArray[Any]]):
    """The arrays of several sequences, one after the other."""

    def __init__(self, sequences: Sequence[NDArray[Any] | Sequence[NDArray[Any]]]) -> None:
        self._sequences = sequences
        self._ends = list(accumulate(map(len, sequences)))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, row: int) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[NDArray[Any]]: ...

    def __getitem__(self, row: int | slice) -> NDArray[Any] | list[NDArray[Any]]:
        if isinstance(row, slice):
            return [self[index] for index in range(len(self))[row]]
        index = range(len(self))[row]  # counts a negative row from the end, and raises an IndexError
        number = bisect_right(self._ends, index)
        array: NDArray[Any] = self._sequences[number][index - self._ends[number]]
        return array

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return chain.from_iterable(self._sequences)
