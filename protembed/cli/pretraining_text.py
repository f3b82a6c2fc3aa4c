"""What `protembed pretrain` says before and after."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from protembed.cli.training_display import duration
from protembed.io.text import count, file_size

if TYPE_CHECKING:
    from protembed.evaluation.intervals import Score
    from protembed.evaluation.metrics import ClassFigures
    from protembed.pretraining.report import PretrainPlan, PretrainSummary


def pretrain_plan_lines(plan: "PretrainPlan") -> Iterator[str]:
    """Say what a run is going to do."""
    valid = " and ".join(f"{number:,} ({name})" for name, number in plan.valid_sets.items())
    clusters = "" if plan.num_clusters is None else f" of {plan.num_clusters:,} clusters"
    each = "protein" if plan.num_clusters is None else "cluster"
    yield (
        f"{plan.num_proteins:,} proteins{clusters} with {plan.num_residues:,} residues to train on, "
        f"{plan.cropped_share:.0%} of them longer than a crop; {valid} to validate on"
    )
    yield (
        f"{plan.num_parameters:,} parameters, {plan.num_steps:,} steps of {plan.optimizer} with learning rates up to "
        f"{plan.learning_rate:g}; {plan.steps_per_pass:,} steps see every {each} once"
    )
    for name, references in plan.references.items():
        yield f"to beat on {name}: {_losses(references)}, in windows of {plan.window_residues:,} residues"
    if plan.seconds is not None and plan.memory_bytes is not None:
        yield (
            f"estimated: {duration(plan.seconds)}, {file_size(plan.memory_bytes)} of memory, "
            f"{file_size(plan.disk_bytes)} on disk"
        )
    if plan.first_step >= plan.num_steps:
        yield f"{plan.output} is there already, made by the same command"
    elif plan.first_step:
        yield f"resuming {plan.output} after step {plan.first_step:,}"
    else:
        yield f"a new run in {plan.output}"


def pretrain_summary_lines(summary: "PretrainSummary") -> Iterator[str]:
    """Say what has come of a run."""
    if summary.num_skipped:
        yield f"{summary.num_skipped:,} steps were skipped, for their loss or gradient was not finite"
    if summary.valid_loss is None:
        yield f"left after step {summary.num_steps:,}; repeat the command to go on"
        return
    if summary.amino_acids:
        yield "amino acid   hidden    loss  accuracy  mistaken for"
        yield from map(_amino_acid_line, summary.amino_acids)
    unigram = summary.references["unigram"]
    gain = unigram - summary.valid_loss
    ending = "" if summary.is_finished else f"; left after step {summary.num_steps:,}, repeat the command to go on"
    yield (
        f"{summary.model}: validation loss {summary.valid_loss:.4f}, perplexity {summary.valid_perplexity:.2f}; "
        f"unigram loss {unigram:.4f}, {abs(gain):.4f} nats {'better' if gain > 0 else 'worse'}{ending}"
    )
    if summary.gains:
        yield from _describe_gains(summary.gains, summary.num_valid_proteins)


def _describe_gains(gains: Mapping[str, "Score"], num_proteins: int) -> Iterator[str]:
    """Say how certain it is that the model is better than each reference."""
    spans = {
        name: (gain.low, gain.high) for name, gain in gains.items() if gain.low is not None and gain.high is not None
    }
    if not spans:
        yield f"{count(num_proteins, 'validation protein')}: too few for an interval of this difference"
        return
    spelled = "; ".join(
        f"{gains[name].value:+.4f} [{low:+.4f}, {high:+.4f}] over the {name} model"
        for name, (low, high) in spans.items()
    )
    yield f"gain in nats, with 95 % intervals over {num_proteins:,} validation proteins: {spelled}"
    for name, (low, high) in spans.items():
        if low <= 0 <= high:
            yield f"no significant difference from the {name} model: the interval contains 0"


def _amino_acid_line(figures: "ClassFigures") -> str:
    if figures.loss is None:
        return f"{figures.name:<10} {figures.count:8,}"
    return (
        f"{figures.name:<10} {figures.count:8,} {figures.loss:7.3f} {figures.accuracy:9.1%}  "
        f"{figures.mistaken_for or ''}"
    )


def _losses(references: Mapping[str, float]) -> str:
    return ", ".join(f"{name} loss {loss:.4f} (perplexity {math.exp(loss):.2f})" for name, loss in references.items())
