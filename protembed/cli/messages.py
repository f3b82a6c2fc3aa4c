"""The sentences that commands print: what they are about to do, and what they have done."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from protembed.cli.display import format_duration
from protembed.text import format_bytes, format_number, pluralize

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import AttentionPlan, AttentionSummary
    from protembed.embedding.embed import EmbedSummary
    from protembed.embedding.estimate import EmbedPlan
    from protembed.evaluation.intervals import MetricWithInterval
    from protembed.evaluation.metrics import ClassMetrics
    from protembed.finetuning.finetune import FinetunePlan, FinetuneSummary
    from protembed.model.catalog import ModelEntry
    from protembed.pretraining.report import PretrainPlan, PretrainSummary

_MAX_CLASSES, _MAX_LETTERS = 6, 30


def embed_plan_lines(plan: "EmbedPlan") -> Iterator[str]:
    """Report what a run would embed, and its estimated time, memory and disk space."""
    counts = f"{pluralize(plan.num_proteins, 'protein')} ({pluralize(plan.num_residues, 'residue')}"
    yield f"{plan.output or 'stdout'}: {counts}, the longest {plan.longest:,}), {plan.dim:,} dimensions"
    if plan.num_windowed:
        yield f"{pluralize(plan.num_windowed, 'protein')} longer than a window: {plan.num_windows:,} windows in all"
    yield (
        f"estimated: {format_duration(plan.seconds)}, {format_bytes(plan.memory_bytes)} of memory, "
        f"{format_bytes(plan.disk_bytes)} on disk"
    )


def describe_region(region: str | None, option: str) -> str:
    """Describe which residues of each protein were used, and why, to follow the number of proteins."""
    if region is None:
        return ""
    return f", residues {region} of each" + (
        " (the region that the model was trained on; --region all uses whole proteins)" if option == "auto" else ""
    )


def embed_summary_lines(summary: "EmbedSummary", region_option: str = "auto") -> Iterator[str]:
    """Report what was embedded."""
    if summary.was_done:
        yield f"{summary.output} is already up to date (same command, same input)"
        return
    if summary.num_resumed:
        yield f"resumed: {pluralize(summary.num_resumed, 'protein')} had been saved before an interruption"
    if summary.num_windowed:
        yield (
            f"{pluralize(summary.num_windowed, 'protein')} longer than {summary.window_residues:,} residues: embedded "
            "in overlapping windows (overlap_cosine shows how well they agree)"
        )
    counts = f"{pluralize(summary.num_proteins, 'protein')} ({pluralize(summary.num_residues, 'residue')})"
    region = describe_region(summary.region, region_option)
    yield f"{summary.output or 'stdout'}: {counts}, {summary.dim:,} dimensions{region}"


def attention_plan_line(plan: "AttentionPlan") -> str:
    """Report what is inspected, and the estimated memory and disk space."""
    counts = f"{pluralize(plan.num_proteins, 'protein')} ({pluralize(plan.num_residues, 'residue')})"
    longest = f"the longest, {plan.longest_id!r}, has {plan.longest:,}"
    resources = f"{format_bytes(plan.memory_bytes)} of memory, {format_bytes(plan.disk_bytes)} on disk"
    return f"{counts}; {longest}; estimated: {resources}"


def contact_lines(summary: "AttentionSummary") -> list[str]:
    """Report the precision of predicted long-range contacts, beside that of random pairs."""
    matched = f"{pluralize(summary.num_structures, 'protein')} matched to a structure"
    lines = [matched] if summary.num_structures else []
    for row in summary.precisions:
        if row["range"] == "long" and row["pairs"] in ("L", "L/5") and row["precision"] is not None:
            span = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            lines.append(
                f"{row['predictor']}, long-range precision at {row['pairs']}: {row['precision']:.3f}{span}; "
                f"random pairs {row['random']:.3f}"
            )
    return lines


def site_lines(summary: "AttentionSummary") -> list[str]:
    """Report how many heads attend significantly to the residues of each label."""
    lines = []
    for label, found in summary.sites.items():
        heads, proteins = pluralize(summary.num_following[label], "head"), pluralize(found.num_proteins, "protein")
        residues = f"{found.num_compared:,} of {pluralize(found.num_residues, 'labelled residue')}"
        lines.append(
            f"sites.tsv: {heads} with significant attention to {label!r}, compared with other residues of the same "
            f"amino acid (q ≤ 0.05); {residues} in {proteins} compared"
        )
    return lines


def model_lines(model: "ModelEntry") -> str:
    """Describe a model in three lines: its size, what to expect of it, and how to get it."""
    millions = model.num_parameters / 1e6
    number = f"{millions / 1e3:.1f} B" if millions >= 1e3 else f"{millions:.1f} M"
    size = f"{number} parameters, {format_bytes(model.num_bytes)}, {model.num_layers} layers of width {model.dim:,}"
    source = "bundled, the default" if model.is_default else "bundled" if model.is_bundled else model.how_to_get
    return f"{model.name:<16}  {size}\n    {model.expectation}\n    {source}"


def pretrain_plan_lines(plan: "PretrainPlan", *, is_dry_run: bool = False) -> Iterator[str]:
    """Report the data, the schedule, the baselines and the estimated resources of a run."""
    valid = " and ".join(f"{number:,} ({name})" for name, number in plan.valid_sets.items())
    clusters = "" if plan.num_clusters is None else f" in {plan.num_clusters:,} clusters"
    unit = "proteins" if plan.num_clusters is None else "clusters"
    yield (
        f"training: {pluralize(plan.num_proteins, 'protein')}{clusters}, {pluralize(plan.num_residues, 'residue')}, "
        f"{plan.cropped_fraction:.0%} of the proteins longer than a crop; validation: {valid}"
    )
    yield (
        f"{plan.num_parameters:,} parameters; {pluralize(plan.num_steps, 'step')} of {plan.optimizer}, learning rate "
        f"up to {plan.learning_rate:g}; one pass over all {unit} takes {pluralize(plan.steps_per_pass, 'step')}"
    )
    for name, references in plan.references.items():
        yield f"baselines on {name} ({plan.window_residues:,}-residue windows): {_perplexities(references)}"
    if plan.seconds is not None and plan.memory_bytes is not None:
        yield (
            f"estimated: {format_duration(plan.seconds)}, {format_bytes(plan.memory_bytes)} of memory, "
            f"{format_bytes(plan.disk_bytes)} on disk"
        )
    if is_dry_run:
        yield f"dry run: nothing was trained; without --dry-run this starts a run in {plan.output}"
    elif plan.first_step >= plan.num_steps:
        yield f"{plan.output} is already up to date (same command, same input)"
    elif plan.first_step:
        yield f"resuming {plan.output} after step {plan.first_step:,}"
    else:
        yield f"starting a new run in {plan.output}"


def pretrain_summary_lines(summary: "PretrainSummary") -> Iterator[str]:
    """Report the losses and the gain over the baselines."""
    if summary.num_skipped:
        yield f"skipped {pluralize(summary.num_skipped, 'step')} with a non-finite loss or gradient"
    if summary.valid_loss is None:
        yield f"stopped after step {summary.num_steps:,}; run the same command to resume"
        return
    if summary.amino_acids:
        yield "amino acid   masked    loss  accuracy  top confusion"
        yield from map(_amino_acid_line, summary.amino_acids)
    unigram = summary.references["unigram"]
    gain = unigram - summary.valid_loss
    stopped = f"; stopped after step {summary.num_steps:,}, run the same command to resume"
    ending = "" if summary.is_finished else stopped
    yield (
        f"{summary.model}: validation loss {summary.valid_loss:.4f}, perplexity {summary.valid_perplexity:.2f}; "
        f"unigram loss {unigram:.4f}, {abs(gain):.4f} nats {'better' if gain > 0 else 'worse'}{ending}"
    )
    if summary.gains:
        yield from _describe_gains(summary.gains, summary.num_valid_proteins)


def _describe_gains(gains: Mapping[str, "MetricWithInterval"], num_proteins: int) -> Iterator[str]:
    """Report the gain over each baseline with its interval."""
    spans = {
        name: (gain.low, gain.high) for name, gain in gains.items() if gain.low is not None and gain.high is not None
    }
    if not spans:
        yield f"too few validation proteins ({num_proteins:,}) for an interval of this difference"
        return
    gained = "; ".join(
        f"{gains[name].value:+.4f} [{low:+.4f}, {high:+.4f}] over the {name} model"
        for name, (low, high) in spans.items()
    )
    yield f"gain in nats, with 95 % intervals over {num_proteins:,} validation proteins: {gained}"
    for name, (low, high) in spans.items():
        if low <= 0 <= high:
            yield f"no significant difference from the {name} model (the interval contains 0)"


def _amino_acid_line(metrics: "ClassMetrics") -> str:
    if metrics.loss is None:
        return f"{metrics.name:<10} {metrics.count:8,}"
    return (
        f"{metrics.name:<10} {metrics.count:8,} {metrics.loss:7.3f} {metrics.accuracy:9.1%}  "
        f"{metrics.top_confusion or ''}"
    )


def _perplexities(references: Mapping[str, float]) -> str:
    return ", ".join(f"{name} perplexity {math.exp(loss):.2f} (loss {loss:.4f})" for name, loss in references.items())


def finetune_plan_lines(plan: "FinetunePlan") -> list[str]:
    """Report the task, the split, the method, and how the labels were read."""
    kinds = {"class": "classes", "labels": "labels"}
    what = f"{len(plan.classes)} {kinds[plan.task.label_kind]}: {_split_counts(plan)}" if plan.classes else "a value"
    sizes = ", ".join(f"{number:,} {split}" for split, number in plan.num_proteins.items() if number)
    measured = f", tested in {plan.num_folds} folds" if plan.num_folds > 1 else ""
    first = f"{plan.task.name} of {plan.target!r} ({what}): {sizes} proteins{measured}; {plan.method}"
    return [*plan.notes, first, plan.reading]


def _split_counts(plan: "FinetunePlan") -> str:
    """List the most frequent classes with the number of their proteins."""
    shown = [f"{name[:_MAX_LETTERS]} {number:,}" for name, number in list(plan.class_counts.items())[:_MAX_CLASSES]]
    more = len(plan.class_counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def finetune_summary_lines(summary: "FinetuneSummary", printed: Collection[str] = ()) -> list[str]:
    """Report the metrics of the model and the baselines, and the notes that were not printed before."""
    if summary.comparison is None:
        return ["stopped early; run the same command to resume"]
    done = f"{summary.output} is already up to date (same command, same input)"
    opening = [done] if summary.was_done else []
    comparison = summary.comparison
    names = list(comparison.model_metrics)
    table = [["", *(comparison.metric_names[name] for name in names)]]
    table += [
        [predictor, *(_format_metric(metrics[name]) for name in names)]
        for predictor, metrics in comparison.predictors.items()
    ]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    lines = [
        f"{predictor:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for predictor, *cells in table
    ]
    last = f"{summary.output}: the model, its metrics and report.html"
    return [*opening, *lines, *comparison.sentences(), *(note for note in summary.notes if note not in printed), last]


def _format_metric(score: "MetricWithInterval") -> str:
    if score.value is None:
        return "undefined"
    span = (
        "" if score.low is None or score.high is None else f" [{format_number(score.low)}, {format_number(score.high)}]"
    )
    return f"{format_number(score.value)}{span}"
