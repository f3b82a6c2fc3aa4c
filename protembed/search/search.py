"""Search: the nearest proteins of a database for each query. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed._version import __version__
from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.search import MetricName, SearchOptions
from protembed.io.reading import Paths, as_paths, check_inputs, default_path, sha256_of_inputs, unchanged_inputs
from protembed.io.result import Result, recorded_values
from protembed.io.writing import seekable_inputs
from protembed.search.sides import Side, open_sides


@dataclass(frozen=True, kw_only=True)
class SearchSummary:
    """What was found.

    Attributes:
        output: Table of hits; None for stdout.
        num_queries: Proteins that were searched for.
        num_database: Proteins that were searched in.
        num_hits: Rows of the table.
        metric: What orders the hits.
        is_same: Whether both sides are the same, and no protein is its own hit.
        median_cosine: Median of the cosines of the nearest hits; None without hits, or if labels are transferred.
        median_z_score: Median of their z-scores; None likewise.
        median_reliability: Median of the reliabilities of transferred labels; None if none are.
        measured: How good transferred labels are, with similar proteins left out; None if none are transferred.
        findings: The same in sentences.
        recall: Share of the exact neighbours of a sample of the queries that an approximate search found; None for an
            exact search.
        warnings: What the user should know about the sides, in sentences.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    num_queries: int
    num_database: int
    num_hits: int
    metric: MetricName
    is_same: bool
    median_cosine: float | None = None
    median_z_score: float | None = None
    median_reliability: float | None = None
    measured: Mapping[str, Any] | None = None
    findings: Sequence[str] = ()
    recall: float | None = None
    warnings: Sequence[str] = ()
    was_done: bool = False


def search_embeddings(
    queries: Paths, database: Paths, options: SearchOptions | None = None, callbacks: Callbacks | None = None
) -> SearchSummary:
    """Find the nearest proteins of a database for each query, and write a table with a row for each hit.

    With `transfer` the table has a row for each query instead, with the label of its neighbours and how reliable it is.

    Each side is a result of `embed`, all its shards, or a FASTA file. FASTA is embedded first, into the file that
    `embed` would write, which is reused. If both sides are the same, no protein is its own hit.

    Args:
        queries: Paths of the proteins that are searched for. Patterns such as `emb.*-of-8.npy` are allowed.
        database: Paths of the proteins that are searched in.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the number of queries, and 1 for each query whose hits were written.

    Raises:
        VerificationError: A result is unfinished or damaged, or the vectors of the sides cannot be compared.
        OutputExistsError: The output exists, and another command made it.
        ProtembedError: A side, a table or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks = options or SearchOptions(), callbacks or Callbacks()
    given = [*as_paths("queries", queries), *as_paths("database", database)]
    tables = [*filter(None, [options.labels.labels])]
    others = [*tables, *options.search.sequences]
    is_transfer = options.labels.transfer
    output = options.search.output or default_path(given[0], ".labels.tsv" if is_transfer else ".hits.tsv")
    result = Result.table(output, [*given, *others], force=options.search.force)
    with unchanged_inputs(), seekable_inputs(others) as paths:
        sides = open_sides(queries, database, options, callbacks)
        fingerprint = _fingerprint(options, sides, paths[: len(tables)], paths[len(tables) :])
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            # Only now, because they import torch.
            if is_transfer:
                from protembed.search.transfer_job import write_labels as write_rows
            else:
                from protembed.search.job import write_hits as write_rows
            facts = write_rows(claim, sides, options, paths, callbacks)
            check_inputs()
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _fingerprint(
    options: SearchOptions, sides: tuple[Side, Side], tables: Sequence[Path], sequences: Sequence[Path]
) -> dict[str, Any]:
    """Collect what makes two tables of hits the same."""
    queries, database = sides
    return {
        **options.as_given(),
        "protembed_version": __version__,
        "model_name": database.meta["model_name"],
        "model_sha256": database.meta["model_sha256"],
        "queries_sha256": queries.sha256(),
        "database_sha256": database.sha256(),
        "labels_sha256": sha256_of_inputs(tables) if tables else None,
        "sequences_sha256": sha256_of_inputs([*queries.fasta, *database.fasta, *sequences]),
        **as_plain_values(options.search, options.labels),
    }


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> SearchSummary:
    facts = recorded_values(SearchSummary, recorded)
    return SearchSummary(output=output, was_done=was_done, **facts)
