"""A map of proteins: every vector as a point on one page. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed._version import __version__
from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.map import MapOptions
from protembed.embedding.parts import check_same_settings, find_parts, in_order
from protembed.embedding.stored_result import StoredResult
from protembed.errors import ConfigError, DataError, UnusableResultError
from protembed.io.reading import Paths, as_paths, default_path, sha256_of_inputs, unchanged_inputs
from protembed.io.result import Result
from protembed.io.writing import output_errors
from protembed.search.protein_map import PAGE, PICTURE, POINTS
from protembed.text import pluralize

_RECORD = "meta.json"
_MIN_PROTEINS = 3


@dataclass(frozen=True, kw_only=True)
class MapSummary:
    """What was drawn.

    Attributes:
        output: Directory of the map.
        page: Path of the page.
        projections: Projections that the page has, the one that it shows first at the end.
        num_labelled: Proteins that the table of labels has; None without a table.
        colours: Names of what can colour the points.
        warnings: What the user should know about the input, in sentences.
        was_done: Whether the same command had finished before.
    """

    output: Path
    page: Path
    num_proteins: int
    projections: Sequence[str]
    num_labelled: int | None
    colours: Sequence[str]
    warnings: Sequence[str] = ()
    was_done: bool = False


def make_map(embeddings: Paths, options: MapOptions | None = None, callbacks: Callbacks | None = None) -> MapSummary:
    """Draw every protein of a result of `embed` as a point, near those with similar vectors.

    The output directory holds `map.html`, which needs no other file and no network; `points.tsv` with the coordinates
    of each projection; and the picture `map.png`.

    Args:
        embeddings: Paths of a result with a vector for each protein, or of all its shards; patterns are allowed.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the steps to do, and each one that is done.

    Raises:
        ConfigError: The output is no directory, or UMAP is requested and not installed.
        VerificationError: A result is damaged, or has a vector for each residue.
        DataError: There are fewer than three proteins.
        ProtembedError: The table, the FASTA or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks = options or MapOptions(), callbacks or Callbacks()
    parts = in_order(find_parts(embeddings))
    check_same_settings(parts)
    _check_suitable(parts)
    config = options.map
    files = [path for path in (config.labels, config.sequences) if path is not None]
    output = config.output or default_path(as_paths("embeddings", embeddings)[0], ".map")
    if output.suffix == ".html":
        expected = f"a directory is written, with {PAGE}, {POINTS} and {PICTURE}: name it {output.with_suffix('')}"
        raise ConfigError("output", str(output), expected)
    result = Result(
        output,
        [*(part.path for part in parts), *files],
        force=config.force,
        record=_RECORD,
        contents=(PAGE, POINTS, PICTURE, _RECORD),
        is_record=lambda content: "projections" in content,
    )
    with unchanged_inputs():
        with result.claim(_fingerprint(options, parts), callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.path, claim.recorded, was_done=True)
            from protembed.search.map_result import write_map  # which imports torch and scikit-learn

            for part in parts:
                part.verify()
            with output_errors(claim.output):
                facts = write_map(claim.create_directory(), parts, options, callbacks)
                return _summary(result.path, claim.publish({**_fingerprint(options, parts), **facts}))


def _check_suitable(parts: Sequence[StoredResult]) -> None:
    for part in parts:
        if part.meta["per_residue"]:
            found = "it has a vector per residue, and a map shows proteins: embed them without `per_residue`"
            raise UnusableResultError(part.path, found)
    number = sum(part.num_proteins for part in parts)
    if number < _MIN_PROTEINS:
        found = f"it has {pluralize(number, 'protein')}"
        raise DataError(parts[0].path, found, f"a map needs at least {_MIN_PROTEINS}")


def _fingerprint(options: MapOptions, parts: Sequence[StoredResult]) -> dict[str, Any]:
    return {
        **options.as_given(),
        "protembed_version": __version__,
        "input_sha256": [part.meta["sha256"] for part in parts],
        **{
            name: None if path is None else sha256_of_inputs([path])
            for name, path in (("labels_sha256", options.map.labels), ("sequences_sha256", options.map.sequences))
        },
        **as_plain_values(options.map),
    }


def _summary(output: Path, recorded: Mapping[str, Any], *, was_done: bool = False) -> MapSummary:
    names = ("num_proteins", "projections", "num_labelled", "colours", "warnings")
    facts = {name: recorded[name] for name in names}
    return MapSummary(output=output, page=output / PAGE, was_done=was_done, **facts)
