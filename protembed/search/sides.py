"""The two sides of a search: results of `embed`, or FASTA files that are embedded first."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.config.search import SearchOptions
from protembed.embedding.embed import embed_fasta
from protembed.embedding.parts import check_same_settings, find_parts, in_order
from protembed.embedding.selection import Selection
from protembed.embedding.stored_result import StoredResult, is_result
from protembed.errors import InputError, OutputExistsError, UnusableResultError
from protembed.io.fingerprint import differences
from protembed.io.reading import Paths, as_paths, default_path, display_name, is_stream

# Settings that the vectors of both sides must share; the name of the model is compared only if its weights differ.
_SETTINGS = ("model_sha256", "per_residue", "layer", "pooling", "region", "dim")
_ADVICE = "a pipe can be read only once: embed it with `protembed embed`, and pass the result"


@dataclass(frozen=True, kw_only=True)
class Side:
    """The queries or the database.

    Attributes:
        parts: The result, its shards, or results of several inputs, in the order of their rows.
        fasta: FASTA files that were embedded for the search; none for a result.
    """

    parts: Sequence[StoredResult]
    fasta: Sequence[Path] = ()

    @property
    def meta(self) -> Mapping[str, Any]:
        """Content of the meta file of the first part."""
        return self.parts[0].meta

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.meta["dim"])

    @property
    def num_proteins(self) -> int:
        """Number of all proteins."""
        return sum(part.num_proteins for part in self.parts)

    @property
    def selection(self) -> Selection:
        """How the input of all parts was read; records that were errors then are left out."""
        selection = self.parts[0].selection
        is_strict = selection.on_illegal == "error", selection.long_proteins == "error"
        return replace(
            selection,
            shard=None,
            on_illegal="skip" if is_strict[0] else selection.on_illegal,
            long_proteins="skip" if is_strict[1] else selection.long_proteins,
        )

    def is_same(self, other: "Side") -> bool:
        """Return whether both sides are the same files."""
        return [part.path.resolve() for part in self.parts] == [part.path.resolve() for part in other.parts]

    def sha256(self) -> str:
        """Return one SHA-256 for the vectors and identifiers of all parts, hexadecimal."""
        hashes = [part.meta[name] for part in self.parts for name in ("sha256", "ids_sha256")]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()


def open_sides(queries: Paths, database: Paths, options: SearchOptions, callbacks: Callbacks) -> tuple[Side, Side]:
    """Read the meta files of both sides, embed FASTA files, and check that the vectors can be compared.

    Raises:
        InputNotFoundError: There is no such file.
        UnusableResultError: A result is unfinished or damaged, a shard is missing, or the settings of the sides differ.
        ProtembedError: A FASTA file cannot be embedded.
    """
    given = (as_paths("queries", queries), as_paths("database", database))
    results = [Side(parts=_read_parts(paths)) if _are_results(paths) else None for paths in given]
    if all(results) and options.model.model is not None:
        callbacks.on_warning("`model` has no effect, because both sides are results of `embed`")
    model = next((side.meta for side in results if side is not None), None)
    opened = list[Side]()
    for side, paths in zip(results, given, strict=True):
        if side is not None:
            opened.append(side)
        elif opened and paths == given[0]:
            opened.append(opened[0])
        else:
            opened.append(_embed(paths, model, options, callbacks))
    for side in opened:
        if not side.num_proteins:
            raise UnusableResultError(side.parts[0].path, "it has no proteins, as a shard of a small input may")
    _check_comparable(*opened)
    return opened[0], opened[1]


def computes_vectors(queries: Paths, database: Paths) -> bool:
    """Return whether a side is FASTA, for which a model is needed."""
    return not all(map(_are_results, (as_paths("queries", queries), as_paths("database", database))))


def _are_results(paths: Sequence[Path]) -> bool:
    return any(is_result(path) or (not os.path.exists(path) and _ends_like_result(path)) for path in paths)


def _ends_like_result(path: Path) -> bool:
    """Return whether a pattern such as `emb.*-of-8.tsv` can only mean results."""
    return path.suffix == ".tsv"


def _read_parts(paths: Sequence[Path]) -> list[StoredResult]:
    parts = in_order(find_parts(paths))
    check_same_settings(parts, _SETTINGS)
    for part in parts:
        if part.meta["per_residue"]:
            found = "it has a vector per residue, and a search compares proteins: embed without `per_residue`"
            raise UnusableResultError(part.path, found)
    return parts


def _embed(
    fasta: Sequence[Path], model: Mapping[str, Any] | None, options: SearchOptions, callbacks: Callbacks
) -> Side:
    """Embed FASTA files as the other side was, or by default; reuse the result if it is there.

    Raises:
        UnusableResultError: Another file is where the vectors would be saved.
    """
    for path in fasta:
        if is_stream(path):
            raise InputError(display_name(path), "a search reads its sides more than once", _ADVICE)
    settings = {} if model is None else _settings_of(model)
    embed_options = EmbedOptions(
        model=options.model,
        embedding=EmbedConfig(output=default_path(fasta[0], ".npy"), **settings),
        reader=options.reader,
        compute=options.compute,
    )
    try:
        summary = embed_fasta(fasta, embed_options, callbacks)
    except OutputExistsError as error:
        found = f"the vectors of {display_name(fasta[0])} would be saved there, but it {error.difference}"
        raise UnusableResultError(error.path, f"{found}; rename it, or pass it in place of the FASTA") from error
    assert summary.output is not None, "the vectors are kept in a file"
    state = "already computed" if summary.was_done else "saved for the next search"
    result = StoredResult.read(summary.output)
    what = f"the vectors of {display_name(fasta[0])} by {result.meta['model_name']}"
    callbacks.on_note(f"{summary.output}: {what}, {state}")
    return Side(parts=[result], fasta=fasta)


def _settings_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `embed` that give vectors like those of a result."""
    return {
        "layer": ",".join(map(str, meta["layer"])),
        "pooling": ",".join(meta["pooling"]),
        "region": meta.get("region") or "all",
        "window_residues": meta["window_residues"],
        "store_dtype": meta["dtype"],
    }


def _check_comparable(queries: Side, database: Side) -> None:
    """Check that the vectors of both sides come from the same model, layer, pooling and region.

    Raises:
        UnusableResultError: They do not.
    """
    settings = [{name: side.meta.get(name) for name in _SETTINGS} for side in (database, queries)]
    if settings[0]["model_sha256"] != settings[1]["model_sha256"]:
        settings = [
            {"model_name": side.meta["model_name"]} | values
            for side, values in zip((database, queries), settings, strict=True)
        ]
    found = differences(*settings)
    if queries.dim != database.dim:  # which otherwise follows from the settings
        found.append(f"the width was {database.dim:,}, not {queries.dim:,}")
    if found:
        first = database.parts[0].path
        raise UnusableResultError(
            queries.parts[0].path, f"it cannot be compared with {first}, because there {'; '.join(found)}"
        )
