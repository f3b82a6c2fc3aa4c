"""The sentences that `score` prints, of each kind of input."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protembed.text import pluralize

if TYPE_CHECKING:
    from protembed.scoring.fill import FillSummary
    from protembed.scoring.per_position import PositionsSummary
    from protembed.scoring.scan import ScanSummary
    from protembed.scoring.score import AnyScoreSummary
    from protembed.scoring.score_sequences import SequencesSummary
    from protembed.scoring.score_variants import ScoreSummary

_MAX_BEST = 5


def score_summary_lines(summary: "AnyScoreSummary") -> Iterator[str]:
    """Report what was scored by this command, or, of a scan, what was found."""
    if summary.kind == "scan":
        yield from _scan_lines(summary)
        return
    if summary.was_done:
        return
    match summary.kind:
        case "variants":
            yield from _variants_lines(summary)
        case "sequences":
            yield _proteins_line(summary, summary.score_column)
        case "positions":
            yield _proteins_line(summary, "log probabilities at each position")
        case "fill":
            yield _fill_line(summary)


def _proteins_line(summary: "SequencesSummary | PositionsSummary", what: str) -> str:
    proteins = f"{pluralize(summary.num_proteins, 'protein')} ({pluralize(summary.num_residues, 'residue')})"
    windowed = f", {summary.num_windowed:,} of them in windows" if summary.num_windowed else ""
    return f"{summary.output or 'stdout'}: {what} of {proteins}{windowed}{_repeated(summary)}"


def _repeated(summary: "SequencesSummary | PositionsSummary | ScanSummary") -> str:
    """Describe how many proteins were not computed, because an earlier one has the same sequence; empty if none."""
    number = summary.num_proteins - summary.num_distinct
    return f", {number:,} of them with the sequence of an earlier one" if number else ""


def _fill_line(summary: "FillSummary") -> str:
    positions = pluralize(summary.num_positions, "masked position")
    proteins = pluralize(summary.num_proteins, "protein")
    if summary.num_samples is None:
        return f"{summary.output or 'stdout'}: the most probable residues at {positions} of {proteins}"
    samples = pluralize(summary.num_samples, "sample")
    return f"{summary.output or 'stdout'}: {samples} of each of {proteins}, drawn at {positions}"


def _variants_lines(summary: "ScoreSummary") -> Iterator[str]:
    yield from summary.notes
    variants, wild_types = pluralize(summary.num_variants, "variant"), pluralize(summary.num_wild_types, "wild type")
    indels = f", {summary.num_with_indels:,} with insertions or deletions" if summary.num_with_indels else ""
    mutated = f"mutated at {pluralize(summary.num_positions, 'position')}{indels}"
    models = f" by {len(summary.models)} models and their mean" if summary.models else ""
    yield f"{summary.output or 'stdout'}: {summary.method} of {variants} of {wild_types}{models}, {mutated}"
    for comparison in summary.comparisons:
        yield from comparison.lines()


def _scan_lines(summary: "ScanSummary") -> Iterator[str]:
    """Report what was scanned, the mutants that score highest, and how scores compare with measurements."""
    if not summary.was_done:
        mutants, proteins = pluralize(summary.num_mutants, "single mutant"), pluralize(summary.num_proteins, "protein")
        shown = f"; heat maps of {pluralize(summary.num_displayed, 'protein')} in report.html"
        yield f"{summary.output}: {summary.method} of {mutants} of {proteins}{_repeated(summary)}{shown}"
    if summary.num_structures:
        yield f"structures/: mean scores as B factors, for {pluralize(summary.num_structures, 'protein')}"
    names = {name for name, _, _ in summary.best} if summary.num_proteins > 1 else set()
    best = [f"{f'{name} ' if names else ''}{mutant} ({score:+.2f})" for name, mutant, score in summary.best[:_MAX_BEST]]
    yield f"highest scores: {', '.join(best)}"
    yield from summary.notes
