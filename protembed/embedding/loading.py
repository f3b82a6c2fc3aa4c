"""Loading a finished result of `embed` in Python: its vectors, their identifiers, and how they were computed."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.formats import StoredVectors
from protembed.embedding.metadata import COUNTS, read_ids_lines, read_meta
from protembed.embedding.selection import Shard
from protembed.errors import InputNotFoundError, VerificationError, reason_of
from protembed.io.fingerprint import differences
from protembed.io.reading import Paths, as_paths, follow_link
from protembed.text import pluralize, unescape

# Settings that the vectors of joined files must share.
_SETTINGS = ("model_sha256", "per_residue", "layer", "pooling", "region", "precision", "dtype")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Embeddings(Mapping[str, NDArray[Any]]):
    """A result of `embed`, and a mapping from identifiers to vectors.

    Attributes:
        vectors: Vectors, (proteins, dim), in the order of the input, float32 or float16 as they are stored; for a
            result per residue, a list of arrays, (residues, dim). Those of one `.npy` or `.npz` file stay on disk until
            they are used.
        ids: Identifiers, in the same order.
        meta: Content of the meta file: the model, the settings and the counts; of several shards, their sums.
    """

    vectors: NDArray[Any] | list[NDArray[Any]]
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
    parts = [(path, _open(follow_link(path))) for given in as_paths("files", files) for path in _matching(given)]
    if len(parts) == 1:
        return parts[0][1]
    if any(part.meta["shard"] is not None for _, part in parts):
        parts = _in_order(parts)
    first_path, first = parts[0]
    for path, part in parts[1:]:
        before, now = ({name: meta.get(name) for name in _SETTINGS} for meta in (first.meta, part.meta))
        if different := differences(before, now):
            raise VerificationError(path, f"it cannot follow {first_path}, because {'; '.join(different)}")
    counts = {name: sum(part.meta[name] for _, part in parts) for name in COUNTS}
    vectors = [part.vectors for _, part in parts]
    return Embeddings(
        vectors=[*chain(*vectors)] if first.meta["per_residue"] else np.concatenate(vectors),
        ids=[record_id for _, part in parts for record_id in part.ids],
        meta={**first.meta, **counts, "shard": None},
    )


def _matching(path: Path) -> list[Path]:
    """List the files that a pattern matches; a path that exists matches itself alone."""
    if os.path.exists(path) or not has_magic(str(path)):
        return [path]
    paths = sorted(map(Path, glob(str(path))))
    if not paths:
        raise InputNotFoundError(str(path), "no file matches this pattern", "check it")
    return paths


def _open(path: Path) -> Embeddings:
    """Open the file of a result, or of one shard."""
    meta = read_meta(path)
    try:
        ids = [unescape(line.split("\t", 2)[1]) for line in read_ids_lines(path)]
        vectors = StoredVectors(path, meta["format"], meta["per_residue"]).open()
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise VerificationError(path, f"it cannot be read ({reason_of(error)})") from error
    if not len(vectors) == len(ids) == meta["num_proteins"]:
        found = f"it has {len(vectors):,} proteins and {len(ids):,} identifiers, but its meta file records"
        raise VerificationError(path, f"{found} {meta['num_proteins']:,} proteins")
    return Embeddings(vectors=vectors, ids=ids, meta=meta)


def _in_order(parts: Sequence[tuple[Path, Embeddings]]) -> list[tuple[Path, Embeddings]]:
    """Order the shards of a result by their numbers, and check that each is there once."""
    ordered = sorted(parts, key=lambda part: _shard(part[1]).number)
    shards = [_shard(part) for _, part in ordered]
    if shards != [Shard(number, shards[0].total) for number in range(1, shards[0].total + 1)]:
        found = f"it is one of {shards[0].total} shards, each of which is needed once, but the shards given are"
        raise VerificationError(ordered[0][0], f"{found} {', '.join(map(str, shards))}")
    return ordered


def _shard(part: Embeddings) -> Shard:
    return Shard.parse(part.meta["shard"] or "1/1")
