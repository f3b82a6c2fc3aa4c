"""The sentences of `protembed embed`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protembed.cli.training_display import duration
from protembed.io.text import count, file_size

if TYPE_CHECKING:
    from protembed.embedding.embed import EmbedPlan, EmbedSummary


def embed_plan_lines(plan: "EmbedPlan") -> Iterator[str]:
    """Say what a run would take."""
    what = f"{count(plan.num_proteins, 'protein')}, {count(plan.num_residues, 'residue')}, the longest {plan.longest:,}"
    yield f"{plan.output or 'stdout'}: {what}; {plan.dim:,} numbers each"
    if plan.num_windowed:
        yield f"{plan.num_windowed:,} proteins are longer than a window; {plan.num_windows:,} windows in all"
    yield (
        f"about {duration(plan.seconds)} of computing, {file_size(plan.memory_bytes)} of memory, "
        f"{file_size(plan.disk_bytes)} of disk"
    )


def describe_region(region: str | None, option: str) -> str:
    """Describe which residues of each protein were used, and why, to be put behind the number of proteins."""
    if region is None:
        return ""
    return f", residues {region} of each" + (
        " as in the model's training (--region all: whole)" if option == "auto" else ""
    )


def embed_summary_lines(summary: "EmbedSummary", region_option: str = "auto") -> Iterator[str]:
    """Say what has come of a run."""
    if summary.was_done:
        yield f"{summary.output} is there already, made by the same command from the same input"
        return
    if summary.num_resumed:
        yield f"{count(summary.num_resumed, 'protein')} had been done before an interruption"
    if summary.num_windowed:
        yield (
            f"{summary.num_windowed:,} proteins longer than {summary.window_residues:,} residues were computed in "
            "overlapping windows (overlap_cosine: how well they agree)"
        )
    what = f"{count(summary.num_proteins, 'protein')}, {count(summary.num_residues, 'residue')}"
    part = describe_region(summary.region, region_option)
    yield f"{summary.output or 'stdout'}: {what}, {summary.dim:,} numbers each{part}"
