"""The sentences that commands print: what they are about to do, and what they have done."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from protembed.attention.summary import KIND_NAMES
from protembed.cli.layout import Column, Table
from protembed.config.base import flags_in
from protembed.text import (
    choose_decimals,
    format_bytes,
    format_duration,
    format_loss,
    format_number,
    format_percent,
    format_perplexity,
    format_with_interval,
    pluralize,
    printable,
)

if TYPE_CHECKING:
    from protembed.attention.summary import AttentionPlan, AttentionSummary, BestContactHead
    from protembed.embedding.check import CheckSummary
    from protembed.embedding.embed import EmbedSummary
    from protembed.embedding.estimate import EmbedPlan
    from protembed.embedding.join import JoinSummary
    from protembed.embedding.recommendation import Recommendations
    from protembed.errors import FaultyRowsError
    from protembed.evaluation.intervals import MetricWithInterval
    from protembed.evaluation.metrics import ClassMetrics
    from protembed.finetuning.finetune import FinetunePlan, FinetuneSummary
    from protembed.finetuning.predict import PredictSummary
    from protembed.model.catalog import ModelEntry
    from protembed.pretraining.report import PretrainPlan, PretrainSummary

_MAX_CLASSES, _MAX_LETTERS = 6, 30


def fault_lines(error: "FaultyRowsError") -> Iterator[str]:
    """Report the faults of a table in a line each, and then what to do."""
    yield f"{error.path}: {pluralize(error.num_errors, 'fault')}"
    for fault in error.errors:
        yield f"  {'' if fault.line is None else f'line {fault.line}: '}{flags_in(fault.found)}"
    if error.num_errors > len(error.errors):
        yield f"  and {error.num_errors - len(error.errors):,} more"
    yield flags_in(error.advice)


def up_to_date(output: Path | None) -> str:
    """Report that the same command had written its result before."""
    return f"{output} is already up to date (same command, same input)"


def embed_plan_lines(plan: "EmbedPlan") -> Iterator[str]:
    """Report what a run would embed, and its estimated time, memory and disk space."""
    counts = f"{pluralize(plan.num_proteins, 'protein')} ({pluralize(plan.num_residues, 'residue')}"
    yield f"{plan.output or 'stdout'}: {counts}, the longest {plan.longest:,}), {plan.dim:,} dimensions"
    if plan.num_windowed:
        yield f"{pluralize(plan.num_windowed, 'protein')} longer than a window: {plan.num_windows:,} windows in all"
    yield from plan.notes
    yield f"estimated: {format_duration(plan.seconds)}, {_resources(plan.memory_bytes, plan.disk_bytes)}"


def _resources(memory_bytes: int, disk_bytes: int) -> str:
    return f"{format_bytes(memory_bytes)} of memory, {format_bytes(disk_bytes)} on disk"


def describe_region(region: str | None, option: str) -> str:
    """Describe which residues of each protein were used, and why, to follow the number of proteins."""
    if region is None:
        return ""
    return f", residues {region} of each" + (
        " (the region that the model was trained on; --region all uses whole proteins)" if option == "auto" else ""
    )


def embed_summary_lines(summary: "EmbedSummary", region_option: str = "auto") -> Iterator[str]:
    """Report what was embedded by this command, and what its page says."""
    if not summary.was_done:
        yield from _embedded_lines(summary, region_option)
    yield from _report_lines(summary)


def _report_lines(summary: "EmbedSummary | JoinSummary") -> Iterator[str]:
    """Report what the page about a result says, if there is one."""
    if summary.report is not None:
        found = "; ".join(summary.findings)
        yield f"{summary.report}: {f'look at this: {found}' if found else 'nothing speaks against these vectors'}"


def _embedded_lines(summary: "EmbedSummary", region_option: str) -> Iterator[str]:
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


def check_summary_line(summary: "CheckSummary") -> str:
    """Report what was verified, and how closely the vectors could be computed again."""
    results = ", ".join(map(str, summary.results))
    line = f"{results}: complete and consistent with the input, {pluralize(summary.num_proteins, 'protein')}"
    if summary.worst_difference is None:
        return line
    return f"{line}; {summary.num_recomputed} computed again, largest difference {summary.worst_difference:.1g}"


def join_summary_lines(summary: "JoinSummary") -> Iterator[str]:
    """Report what was joined by this command, and what its page says."""
    if not summary.was_done:
        yield _joined_line(summary)
    yield from _report_lines(summary)


def _joined_line(summary: "JoinSummary") -> str:
    parts = pluralize(len(summary.parts), "shard" if summary.is_sharded else "result")
    counts = f"{pluralize(summary.num_proteins, 'protein')} ({pluralize(summary.num_residues, 'residue')})"
    refused = f", {pluralize(summary.num_refused, 'record')} left out" if summary.num_refused else ""
    return f"{summary.output or 'stdout'}: {counts} of {parts}, {summary.dim:,} dimensions{refused}"


def predict_summary_lines(summary: "PredictSummary", region_option: str) -> Iterator[str]:
    """Report what was predicted by this command."""
    if not summary.was_done:
        yield from summary.notes
        proteins = pluralize(summary.num_proteins, "protein") + describe_region(summary.region, region_option)
        columns = ""
        if summary.sequence_column is not None:
            columns = f"; sequences are from the column {summary.sequence_column!r}"
            columns += f", identifiers from {summary.id_column!r}" if summary.id_column else ""
        yield f"{summary.output or 'stdout'}: predictions of {summary.target!r} for {proteins}{columns}"


def attention_plan_line(plan: "AttentionPlan") -> str:
    """Report what is inspected, and the estimated memory and disk space."""
    counts = f"{pluralize(plan.num_proteins, 'protein')} ({pluralize(plan.num_residues, 'residue')})"
    longest = f"the longest, {plan.longest_id!r}, has {plan.longest:,}"
    return f"{counts}; {longest}; estimated: {_resources(plan.memory_bytes, plan.disk_bytes)}"


def attention_summary_lines(summary: "AttentionSummary") -> Iterator[str]:
    """Report what was written, the precision of predicted contacts, and how many heads attend to labelled residues."""
    contacts = ", contacts" if summary.has_contacts else ""
    if not summary.was_done:
        yield (
            f"{summary.output}: statistics of every head over {pluralize(summary.num_proteins, 'protein')}; "
            f"maps{contacts} and figures of {pluralize(summary.num_maps, 'protein')}"
        )
    if summary.num_heads:
        yield _head_line(summary.num_heads)
    yield from _contact_lines(summary)
    yield from _site_lines(summary)


def _head_line(num_heads: Mapping[str, int]) -> str:
    """Report how many heads attend to what."""
    found = [f"{name} {num_heads[kind]:,}" for kind, name in KIND_NAMES.items() if kind in num_heads]
    return f"heads.tsv: what {pluralize(sum(num_heads.values()), 'head')} attend to: {', '.join(found)}"


def _contact_lines(summary: "AttentionSummary") -> Iterator[str]:
    """Report the precision of predicted long-range contacts, beside that of random pairs."""
    if summary.num_structures:
        yield f"{pluralize(summary.num_structures, 'protein')} matched to a structure"
    if summary.best_contact_head is not None:
        yield _best_head_line(summary.best_contact_head)
    for row in summary.precisions:
        if row["range"] == "long" and row["pairs"] in ("L", "L/5") and row["precision"] is not None:
            precision = format_with_interval(row["precision"], row["low"], row["high"], 3)
            yield (
                f"{row['predictor']}, long-range precision at {row['pairs']}: {precision}; "
                f"random pairs {format_number(row['random'])}"
            )


def _best_head_line(best: "BestContactHead") -> str:
    """Report the precision of the head that follows contacts best."""
    precision = f"long-range precision at L {format_number(best.precision)}, random pairs {format_number(best.random)}"
    if best.follows_contacts:
        return f"layer {best.layer} head {best.head} follows contacts best ({precision})"
    return f"no head follows contacts; the most precise is layer {best.layer} head {best.head} ({precision})"


def _site_lines(summary: "AttentionSummary") -> Iterator[str]:
    """Report how many heads attend significantly to the residues of each label."""
    for label, found in summary.sites.items():
        heads, proteins = pluralize(summary.num_following[label], "head"), pluralize(found.num_proteins, "protein")
        residues = f"{found.num_compared:,} of {pluralize(found.num_residues, 'labelled residue')}"
        yield (
            f"sites.tsv: {heads} with significant attention to {label!r}, compared with other residues of the same "
            f"amino acid (q ≤ 0.05); {residues} in {proteins} compared"
        )


MODELS_ADVICE = (
    "memory: for embedding, the weights and a batch of 1,024 tokens; window: residues of a pass, beyond which a longer "
    "protein is cut into windows",
    "perplexity on UniRef50 over 33 tokens (Synthyra); contacts: top L long-range ones that are true, of ESM's large "
    "validation set; variants: mean Spearman correlation in ProteinGym; all as published, and not comparable with the "
    "bundled model's perplexity",
    "for better vectors use an ESM-2 or ESM-C model, which is downloaded once: --model esm2_t12_35M",
)


def model_lines(models: Sequence["ModelEntry"], width: int | None) -> Iterator[str]:
    """List models in two tables: what each one needs, and what it is good for; and those that must be converted."""
    rows = _merge_series(models)
    names = Column(name="model", cells=[name for name, _ in rows], is_text=True)
    shown = [model for _, model in rows]
    sizes = [
        Column(name="parameters", cells=[_format_count(model.num_parameters) for model in shown]),
        Column(name="vector", cells=[f"{model.dim:,}" for model in shown]),
        Column(name="float32", cells=[format_bytes(model.float32_bytes) for model in shown]),
        Column(name="bfloat16", cells=[format_bytes(model.bfloat16_bytes) for model in shown]),
        Column(name="window", cells=[f"{model.window_residues:,}" for model in shown]),
        Column(name="licence", cells=[model.licence for model in shown], is_text=True),
    ]
    uses = [
        Column(name="perplexity", cells=[_format_known(model.perplexity) for model in shown]),
        Column(name="contacts", cells=[_format_known(model.contact_precision, 100, " %") for model in shown]),
        Column(name="variants", cells=[_format_known(model.variant_spearman) for model in shown]),
        Column(name="best at", cells=[model.best_at for model in shown], is_text=True),
    ]
    yield from Table(columns=[names, *sizes]).lines(width)
    yield ""
    yield from Table(columns=[names, *uses]).lines(width)
    yield ""
    for model in shown:
        if model.is_bundled:
            default = ", and used if none is named" if model.is_default else ""
            yield f"{model.name} is bundled{default}: {model.expectation}"
        elif model.how_to_get != f"--model {model.name}":
            yield f"{model.name} was published as pickled weights, which are not read; this converts it:"
            yield f"  `{model.how_to_get}`"


def recommendation_lines(found: "Recommendations", width: int | None) -> Iterator[str]:
    """List a model for each purpose, with what it needs on this computer."""
    columns = [
        Column(name="for", cells=[model.purpose for model in found.models], is_text=True),
        Column(name="--model", cells=[model.model for model in found.models], is_text=True),
        Column(name="memory", cells=[format_bytes(model.memory_bytes) for model in found.models]),
        Column(name="time", cells=[format_duration(model.seconds) for model in found.models]),
        Column(name="because", cells=[model.reason for model in found.models], is_text=True),
    ]
    yield from Table(columns=columns).lines(width)


def recommendation_advice(found: "Recommendations") -> Iterator[str]:
    """Say for which computer the models were chosen, and how."""
    threads = "" if found.device == "cuda" else f" with {pluralize(found.num_threads, 'thread')}"
    yield (
        f"this computer: {found.device}{threads}, {format_bytes(found.memory_bytes)} of memory, {found.precision}; "
        "time: to embed 1,000 proteins of 350 residues, estimated from a second of the bundled model"
    )
    yield (
        "of the models with published results, the best one that fits into memory and takes at most an hour; "
        "`protembed models` lists all"
    )


def _merge_series(models: Sequence["ModelEntry"]) -> list[tuple[str, "ModelEntry"]]:
    """Merge models that differ only in the number at the end of their names, such as the five of ESM-1v."""
    series: dict[tuple[str, int, str], list[ModelEntry]] = {}
    for model in models:
        base = model.name.rstrip("0123456789")
        series.setdefault((base, model.num_parameters, model.best_at), []).append(model)
    rows = []
    for members in series.values():
        last = members[-1].name
        number = last[len(last.rstrip("0123456789")) :]
        rows.append((members[0].name + (f"-{number}" if len(members) > 1 else ""), members[0]))
    return rows


def _format_count(number: int) -> str:
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _format_known(value: float | None, factor: int = 1, unit: str = "") -> str:
    """Format a published metric; empty if none was published."""
    return "" if value is None else f"{factor * value:.{1 if unit else 2}f}{unit}"


def pretrain_plan_lines(plan: "PretrainPlan", *, is_adjusted: bool, is_dry_run: bool = False) -> Iterator[str]:
    """Report the data, the schedule, the baselines and the estimated resources of a run.

    Args:
        plan: What was planned.
        is_adjusted: Whether the number of steps is adjusted during the run.
        is_dry_run: Whether nothing will be trained.
    """
    steps = ("about " if is_adjusted else "") + pluralize(plan.num_steps, "step")
    valid = " and ".join(f"{number:,} ({name})" for name, number in plan.valid_sets.items())
    clusters = "" if plan.num_clusters is None else f" in {plan.num_clusters:,} clusters"
    unit = "proteins" if plan.num_clusters is None else "clusters"
    yield (
        f"training: {pluralize(plan.num_proteins, 'protein')}{clusters}, {pluralize(plan.num_residues, 'residue')}, "
        f"{format_percent(plan.cropped_fraction)} of the proteins longer than a crop; validation: {valid}"
    )
    yield (
        f"{plan.num_parameters:,} parameters; {steps} of {plan.optimizer} in {plan.precision}, "
        f"learning rate up to {plan.learning_rate:g}; one pass over all {unit} takes "
        f"{pluralize(plan.steps_per_pass, 'step')}"
    )
    if plan.num_shards > 1:
        yield f"each of the {plan.num_shards} processes holds a part of the weights"
    for name, references in plan.references.items():
        yield f"baselines on {name} ({plan.window_residues:,}-residue windows): {_perplexities(references)}"
    if plan.seconds is not None and plan.memory_bytes is not None:
        yield f"estimated: {format_duration(plan.seconds)}, {_resources(plan.memory_bytes, plan.disk_bytes)}"
    if is_dry_run:
        yield f"dry run: nothing was trained; without --dry-run this starts a run in {plan.output}"
    elif plan.first_step >= plan.num_steps:
        yield up_to_date(plan.output)
    elif plan.first_step:
        yield f"resuming {plan.output} after step {plan.first_step:,}"
    else:
        yield f"starting a new run in {plan.output}"


def validation_text(metrics: Mapping[str, float]) -> str:
    """Describe the metrics of each validation set, with the perplexities of the baselines in parentheses."""
    return "; ".join(
        f"{name or 'validation'} {', '.join(_set_facts(values))}{_in_parentheses(_baseline_facts(values))}"
        for name, values in _by_set(metrics).items()
    )


def describe_validation(metrics: Mapping[str, float]) -> dict[str, list[str]]:
    """List the metrics of each validation set, by its name, and the perplexities of the baselines on the first set."""
    rows: dict[str, list[str]] = {}
    for name, values in _by_set(metrics).items():
        rows[printable(name) or "validation"] = _set_facts(values)
        if baselines := _baseline_facts(values):
            rows.setdefault("baselines", baselines)
    return rows


def _by_set(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Sort metrics such as `general/valid_loss` by the name of their set, which is empty for the first set."""
    sets: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        name, _, metric = key.rpartition("/")
        sets.setdefault(name, {})[metric] = value
    return sets


def _set_facts(values: Mapping[str, float]) -> list[str]:
    loss = f"loss {format_loss(values['valid_loss'])}"
    if "valid_perplexity" not in values:
        return [loss]
    return [loss, f"perplexity {format_perplexity(values['valid_perplexity'])}"]


def _baseline_facts(values: Mapping[str, float]) -> list[str]:
    """List the perplexities of the baselines."""
    return [
        f"{key.removesuffix('_perplexity')} {format_perplexity(value)}"
        for key, value in values.items()
        if key.endswith("_perplexity") and key != "valid_perplexity"
    ]


def _in_parentheses(facts: Sequence[str]) -> str:
    return f" ({', '.join(facts)})" if facts else ""


def pretrain_summary_lines(summary: "PretrainSummary") -> Iterator[str | Table]:
    """Report the metrics of each amino acid, and the losses of the model and the baselines."""
    if summary.num_skipped:
        yield f"skipped {pluralize(summary.num_skipped, 'step')} with a non-finite loss or gradient"
    if summary.valid_loss is None:
        yield f"stopped after step {summary.num_steps:,}; run the same command to resume"
        return
    if summary.amino_acids:
        yield _amino_acid_table(summary.amino_acids)
    yield _loss_table(summary.references, summary.valid_loss)
    yield from _describe_gains(summary.gains, summary.num_valid_proteins)
    stopped = f"; stopped after step {summary.num_steps:,}, run the same command to resume"
    yield (
        f"{summary.model}: validation loss {format_loss(summary.valid_loss)}, "
        f"perplexity {format_perplexity(summary.valid_perplexity)}{'' if summary.is_finished else stopped}"
    )


def _amino_acid_table(amino_acids: Sequence["ClassMetrics"]) -> Table:
    accuracies = ["" if metrics.accuracy is None else f"{metrics.accuracy:.1%}" for metrics in amino_acids]
    losses = ["" if metrics.loss is None else format_loss(metrics.loss) for metrics in amino_acids]
    return Table(
        columns=[
            Column(name="residue", cells=[metrics.name for metrics in amino_acids], is_text=True),
            Column(name="masked", cells=[f"{metrics.count:,}" for metrics in amino_acids], is_optional=True),
            Column(name="loss", cells=losses),
            Column(name="accuracy", cells=accuracies),
            Column(name="top confusion", cells=[metrics.top_confusion or "" for metrics in amino_acids], is_text=True),
        ]
    )


def _loss_table(references: Mapping[str, float], valid_loss: float) -> Table:
    """Make a table of the model below its baselines."""
    losses = {**{f"{name} model": loss for name, loss in references.items()}, "this model": valid_loss}
    return Table(
        columns=[
            Column(name="validation", cells=list(losses), is_text=True),
            Column(name="loss", cells=[format_loss(loss) for loss in losses.values()]),
            Column(name="perplexity", cells=[format_perplexity(math.exp(loss)) for loss in losses.values()]),
        ]
    )


def _describe_gains(gains: Mapping[str, "MetricWithInterval"], num_proteins: int) -> Iterator[str]:
    """Report whether the model is better than each baseline; without gains, as before the end of a run, nothing."""
    for name, gain in gains.items():
        size = f"{format_with_interval(gain.value, gain.low, gain.high, 3, signed=True)} nats"
        if gain.low is None or gain.high is None:
            yield f"too few validation proteins ({num_proteins:,}) to compare with the {name} model: {size}"
        elif gain.low <= 0 <= gain.high:
            yield f"no significant difference between the model and the {name} model: {size}"
        else:
            yield f"the model is {'better' if gain.low > 0 else 'worse'} than the {name} model: {size}"
    if any(gain.low is not None for gain in gains.values()):
        yield f"gains are differences in loss, with 95 % intervals over {num_proteins:,} validation proteins"


def _perplexities(references: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} perplexity {format_perplexity(math.exp(loss))} (loss {format_loss(loss)})"
        for name, loss in references.items()
    )


def stage_line(name: str, num_steps: int | None) -> str:
    """Report that a stage of a fine-tuning begins; the number of steps is None if it is not a training."""
    return name if num_steps is None else f"{name}: {pluralize(num_steps, 'step')}"


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


def finetune_summary_lines(summary: "FinetuneSummary", notes: Sequence[str]) -> list[str | Table]:
    """Report the metrics, whether the model was worth it, and those of the notes that were not printed before."""
    if summary.comparison is None:
        return ["stopped early; run the same command to resume"]
    comparison = summary.comparison
    columns = [Column(name="", cells=list(comparison.predictors), is_text=True)]
    columns += [
        _metric_column(comparison.metric_names[name], [metrics[name] for metrics in comparison.predictors.values()])
        for name in comparison.model_metrics
    ]
    last = f"{summary.output}: the model, its metrics and report.html"
    return [Table(columns=columns), *comparison.sentences(), comparison.verdict(), *notes, last]


def _metric_column(name: str, metrics: Sequence["MetricWithInterval"]) -> Column:
    """Make a column of metrics with their intervals, all with the same decimals."""
    decimals = choose_decimals([metric.value for metric in metrics if metric.value is not None])
    texts = [format_with_interval(metric.value, metric.low, metric.high, decimals) for metric in metrics]
    values, _, intervals = zip(*(text.partition(" ") for text in texts), strict=True)
    return Column(name=name, cells=values, ends=intervals)
