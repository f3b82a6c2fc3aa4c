"""The sentences that `search` and `map` print."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protembed.text import format_decimals, format_percent, pluralize

if TYPE_CHECKING:
    from protembed.search.map import MapSummary
    from protembed.search.search import SearchSummary


def search_summary_lines(summary: "SearchSummary") -> Iterator[str]:
    """Report what was found by this command."""
    if summary.was_done:
        return
    if summary.recall is not None:
        yield (
            f"approximate search: {format_percent(summary.recall)} of the exact neighbours of a sample of the queries "
            "were found"
        )
    if summary.median_reliability is not None:
        yield from summary.findings
        labels = f"{summary.output or 'stdout'}: labels of {pluralize(summary.num_queries, 'protein')}"
        yield f"{labels}, with a median reliability of {format_decimals(summary.median_reliability, 2)}"
        return
    database = pluralize(summary.num_database, "protein")
    where = "among themselves" if summary.is_same else f"in a database of {database}"
    nearest = ""
    if summary.median_cosine is not None and summary.median_z_score is not None:
        nearest = (
            f"; the nearest have a median cosine of {summary.median_cosine:.3f}, {summary.median_z_score:.1f} standard "
            "deviations above the query's mean"
        )
    hits, queries = pluralize(summary.num_hits, "hit"), pluralize(summary.num_queries, "protein")
    yield f"{summary.output or 'stdout'}: {hits} of {queries} {where}{nearest}"


def map_summary_lines(summary: "MapSummary") -> Iterator[str]:
    """Report what was drawn by this command."""
    if summary.was_done:
        return
    labelled = "" if summary.num_labelled is None else f", {summary.num_labelled:,} of them in the table of labels"
    yield f"{summary.output}: {pluralize(summary.num_proteins, 'protein')}{labelled}"
