"""The sentences that commands print: what they are about to do, and what they have done."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from protembed.cli.display import format_duration
from protembed.io.text import format_bytes, format_number, pluralize

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import AttentionPlan, AttentionSummary
    from protembed.embedding.embed import EmbedPlan, EmbedSummary
    from protembed.evaluation.intervals import MetricWithInterval
    from protembed.evaluation.metrics import ClassFigures
    from protembed.finetuning.finetune import FinetunePlan, FinetuneSummary
    from protembed.model.catalog import ModelEntry
    from protembed.pretraining.report import PretrainPlan, PretrainSummary

_MAX_CLASSES, _MAX_LETTERS = 6, 30


def embed_plan_lines(plan: "EmbedPlan") -> Iterator[str]:
    """Say what a run would take."""
    counts = f"{pluralize(plan.num_proteins, 'protein')} ({pluralize(plan.num_residues, 'residue')}"
    yield f"{plan.output or 'stdout'}: {counts}, the longest {plan.longest:,}), {plan.dim:,} dimensions"
    if plan.num_windowed:
        yield f"{plan.num_windowed:,} proteins are longer than a window; {plan.num_windows:,} windows in all"
    yield (
        f"about {format_duration(plan.seconds)} of computing, {format_bytes(plan.memory_bytes)} of memory, "
        f"{format_bytes(plan.disk_bytes)} of disk"
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
        yield f"{pluralize(summary.num_resumed, 'protein')} had been done before an interruption"
    if summary.num_windowed:
        yield (
            f"{summary.num_windowed:,} proteins longer than {summary.window_residues:,} residues were computed in "
            "overlapping windows (overlap_cosine: how well they agree)"
        )
    what = f"{pluralize(summary.num_proteins, 'protein')}, {pluralize(summary.num_residues, 'residue')}"
    part = describe_region(summary.region, region_option)
    yield f"{summary.output or 'stdout'}: {what}, {summary.dim:,} numbers each{part}"


def attention_plan_line(plan: "AttentionPlan") -> str:
    """Say what there is to look at, and what it will take."""
    counts = f"{pluralize(plan.num_proteins, 'protein')}, {pluralize(plan.num_residues, 'residue')}"
    room = f"{format_bytes(plan.memory_bytes)} of memory and {format_bytes(plan.disk_bytes)} of disk"
    return f"{counts}, the longest {plan.longest_id!r} of {plan.longest:,}; about {room}"


def contact_lines(summary: "AttentionSummary") -> list[str]:
    """Say how precisely long-range contacts are predicted, beside what is reached without looking."""
    lines = [f"{pluralize(summary.num_structures, 'protein')} shown by a structure"] if summary.num_structures else []
    for row in summary.precisions:
        if row["range"] == "long" and row["pairs"] in ("L", "L/5") and row["precision"] is not None:
            span = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            lines.append(
                f"{row['predictor']}, long-range precision at {row['pairs']}: {row['precision']:.3f}{span}; "
                f"random pairs {row['random']:.3f}"
            )
    return lines


def site_lines(summary: "AttentionSummary") -> list[str]:
    """Say how many heads attend to the residues of each label, and on what that rests."""
    lines = []
    for label, found in summary.sites.items():
        heads, proteins = pluralize(summary.num_following[label], "head"), pluralize(found.num_proteins, "protein")
        residues = f"{found.num_compared:,} of {pluralize(found.num_residues, 'labelled residue')}"
        lines.append(
            f"sites.tsv: {heads} with attention to {label!r} beyond that to its amino acids (q of at most 0.05); "
            f"compared: {residues} in {proteins}"
        )
    return lines


def model_lines(model: "ModelEntry") -> str:
    """Say in three lines what a model is, what to expect of it, and how to get it."""
    millions = model.num_parameters / 1e6
    number = f"{millions / 1e3:.1f} B" if millions >= 1e3 else f"{millions:.1f} M"
    size = f"{number} parameters, {format_bytes(model.num_bytes)}, {model.num_layers} layers of width {model.dim:,}"
    place = "in the box, the default" if model.is_default else "in the box" if model.is_bundled else model.how_to_get
    return f"{model.name:<16}  {size}\n    {model.expectation}\n    {place}"


def pretrain_plan_lines(plan: "PretrainPlan") -> Iterator[str]:
    """Say what a run is going to do."""
    valid = " and ".join(f"{number:,} ({name})" for name, number in plan.valid_sets.items())
    clusters = "" if plan.num_clusters is None else f" of {plan.num_clusters:,} clusters"
    each = "protein" if plan.num_clusters is None else "cluster"
    yield (
        f"{plan.num_proteins:,} proteins{clusters} with {plan.num_residues:,} residues to train on, "
        f"{plan.cropped_fraction:.0%} of them longer than a crop; {valid} to validate on"
    )
    yield (
        f"{plan.num_parameters:,} parameters, {plan.num_steps:,} steps of {plan.optimizer} with learning rates up to "
        f"{plan.learning_rate:g}; {plan.steps_per_pass:,} steps see every {each} once"
    )
    for name, references in plan.references.items():
        yield f"to beat on {name}: {_losses(references)}, in windows of {plan.window_residues:,} residues"
    if plan.seconds is not None and plan.memory_bytes is not None:
        yield (
            f"estimated: {format_duration(plan.seconds)}, {format_bytes(plan.memory_bytes)} of memory, "
            f"{format_bytes(plan.disk_bytes)} on disk"
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


def _describe_gains(gains: Mapping[str, "MetricWithInterval"], num_proteins: int) -> Iterator[str]:
    """Say how certain it is that the model is better than each reference."""
    spans = {
        name: (gain.low, gain.high) for name, gain in gains.items() if gain.low is not None and gain.high is not None
    }
    if not spans:
        yield f"{pluralize(num_proteins, 'validation protein')}: too few for an interval of this difference"
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


def finetune_plan_lines(plan: "FinetunePlan") -> list[str]:
    """Say what is going to be learned, and how the labels were read."""
    kinds = {"class": "classes", "labels": "labels"}
    what = f"{len(plan.classes)} {kinds[plan.task.label_kind]}: {_split_counts(plan)}" if plan.classes else "a value"
    sizes = ", ".join(f"{number:,} {split}" for split, number in plan.num_proteins.items() if number)
    measured = f", measured in {plan.num_folds} folds" if plan.num_folds > 1 else ""
    first = f"{plan.task.name} of {plan.target!r} ({what}): {sizes} proteins{measured}; {plan.method}"
    return [*plan.notes, first, plan.reading]


def _split_counts(plan: "FinetunePlan") -> str:
    """List the most frequent classes with the number of their proteins."""
    shown = [f"{name[:_MAX_LETTERS]} {number:,}" for name, number in list(plan.class_counts.items())[:_MAX_CLASSES]]
    more = len(plan.class_counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def finetune_summary_lines(summary: "FinetuneSummary", said: Collection[str] = ()) -> list[str]:
    """Show the figures of each rung of the ladder, and say what they come to; what was said before is not repeated."""
    if summary.ladder is None:
        return ["left before the end; repeat the command to go on"]
    opening = [f"{summary.output} is there already, made by the same command"] if summary.was_done else []
    rungs = summary.ladder.rungs
    names = list(summary.ladder.figures)
    table = [["", *(summary.ladder.metric_names[name] for name in names)]]
    table += [[rung, *(_spell(scores[name]) for name in names)] for rung, scores in rungs.items()]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    lines = [
        f"{rung:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for rung, *cells in table
    ]
    last = f"{summary.output}: the model, its figures and report.html"
    return [*opening, *lines, *summary.ladder.sentences(), *(note for note in summary.notes if note not in said), last]


def _spell(score: "MetricWithInterval") -> str:
    if score.value is None:
        return "undefined"
    span = (
        "" if score.low is None or score.high is None else f" [{format_number(score.low)}, {format_number(score.high)}]"
    )
    return f"{format_number(score.value)}{span}"
