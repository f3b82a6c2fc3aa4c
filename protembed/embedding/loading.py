"""Loading a finished result of `embed` in Python: its vectors, their identifiers, and how they were computed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.formats import LazyArrays, open_vectors
from protembed.embedding.metadata import IDS, read_meta
from protembed.embedding.selection import Shard
from protembed.errors import InputNotFoundError, VerificationError
from protembed.io.reading import Paths, as_paths, follow_link, path_exists
from protembed.io.result import sidecar
from protembed.text import pluralize

_COUNTS = ("num_proteins", "num_residues", "num_windowed", "num_refused")
# Settings that the vectors of joined files must share.
_SETTINGS = ("model_sha256", "per_residue", "layer", "pooling", "region", "precision", "dtype")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Embeddings(Mapping[str, NDArray[Any]]):
    """A result of `embed`, and a mapping from identifiers to vectors.

    Attributes:
        vectors: Vectors, (proteins, dim), in the order of the input, float32 or float16 as they are stored; `.npy` and
            `.npz` stay on disk until they are used. For a result per residue, a sequence of arrays, (residues, dim),
            each of which is read when it is used.
        ids: Identifiers, in the same order.
        meta: Content of the meta file: the model, the settings and the counts; of several shards, their sums.
    """

    vectors: NDArray[Any] | LazyArrays
    ids: Sequence[str]
    meta: Mapping[str, Any]

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
    """Load a finished result of `embed`, or all its shards.

    Args:
        files: The `.npy`, `.npz`, `.h5` or `.tsv` file; or those of all shards, as a list in any order or as a pattern
            such as `emb.*-of-8.npy`. Results of several inputs that were made with the same settings are joined in the
            order given.

    Raises:
        InputNotFoundError: There is no such file.
        VerificationError: A result is unfinished or damaged, a shard is missing, or the results have other settings
            than the first.
    """
    parts = [_open(path) for path in as_paths("files", files) for path in _matching(path)]
    if any(part.meta["shard"] is not None for part in parts):
        parts = _in_order([(Shard.parse(part.meta["shard"] or "1/1"), part) for part in parts])
    for part in parts[1:]:
        _check_comparable(part, parts[0])
    counts = {name: sum(part.meta[name] for part in parts) for name in _COUNTS}
    return Embeddings(
        vectors=_join([part.vectors for part in parts]),
        ids=[record_id for part in parts for record_id in part.ids],
        meta=parts[0].meta if len(parts) == 1 else {**parts[0].meta, **counts, "shard": None},
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One file of a result."""

    path: Path
    vectors: NDArray[Any] | LazyArrays
    ids: Sequence[str]
    meta: Mapping[str, Any]


def _matching(path: Path) -> list[Path]:
    """List the files that a pattern matches; a path that exists matches itself alone."""
    if path_exists(path) or not has_magic(str(path)):
        return [path]
    paths = sorted(map(Path, glob(str(path))))
    if not paths:
        raise InputNotFoundError(str(path), "no file matches this pattern", "check it")
    return paths


def _open(path: Path) -> _Part:
    path = follow_link(path)
    meta = read_meta(path)
    try:
        with sidecar(path, IDS).open(encoding="utf-8", newline="\n") as stream:
            ids = [line.split("\t", 2)[1] for line in islice(stream, 1, None)]
        vectors = open_vectors(path, meta["format"], per_residue=meta["per_residue"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise VerificationError(path, f"it cannot be read ({error})") from error
    if not len(vectors) == len(ids) == meta["num_proteins"]:
        found = f"it has {len(vectors):,} proteins and {len(ids):,} identifiers, but its meta file records"
        raise VerificationError(path, f"{found} {meta['num_proteins']:,} proteins")
    return _Part(path=path, vectors=vectors, ids=ids, meta=meta)


def _in_order(parts: Sequence[tuple[Shard, _Part]]) -> list[_Part]:
    """Order the shards of a result by their numbers, and check that each is there once."""
    ordered = sorted(parts, key=lambda part: part[0].number)
    total, first = ordered[0][0].total, ordered[0][1]
    if [shard for shard, _ in ordered] != [Shard(number, total) for number in range(1, total + 1)]:
        found = f"it is one of {total} shards, each of which is needed once, but the shards given are"
        raise VerificationError(first.path, f"{found} {', '.join(str(shard) for shard, _ in ordered)}")
    return [part for _, part in ordered]


def _check_comparable(part: _Part, first: _Part) -> None:
    different = [name for name in _SETTINGS if part.meta.get(name) != first.meta.get(name)]
    if different:
        raise VerificationError(part.path, f"it cannot follow {first.path}, whose {', '.join(different)} differ")


def _join(vectors: Sequence[NDArray[Any] | LazyArrays]) -> NDArray[Any] | LazyArrays:
    if len(vectors) == 1:
        return vectors[0]
    lazy = [part for part in vectors if isinstance(part, LazyArrays)]
    return LazyArrays([reader for part in lazy for reader in part.readers]) if lazy else np.concatenate(vectors)
