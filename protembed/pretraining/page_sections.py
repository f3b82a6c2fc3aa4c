"""The sections of a pretraining page about losses, baselines, the course of the training, and its plan."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protembed.config.pretrain import PretrainConfig
from protembed.data.alphabet import NUM_AMINO_ACIDS
from protembed.evaluation.intervals import MetricWithInterval
from protembed.model.catalog import model_name
from protembed.pretraining.run_record import RunRecord, Verdict
from protembed.pretraining.validation import perplexity
from protembed.report.comparison_figures import IntervalRow, draw_intervals
from protembed.report.page import Details, Element, Figure, Section
from protembed.report.table import Cell, Column, Prose, Table
from protembed.report.training_figures import has_mask_token_loss, losses_svg, rates_svg, speed_svg
from protembed.text import format_decimals, format_loss, format_percent, format_with_interval, pluralize

_MAX_VALIDATIONS = 40
_VERDICTS: Mapping[Verdict | None, str] = {
    "better": "the model is better",
    "unclear": "no significant difference",
    "worse": "the model is worse",
    "seems better": "better, without an interval",
    "seems worse": "worse, without an interval",
    None: "",
}


def loss_section(run: RunRecord) -> Section:
    """Show the losses against the residues seen, and a table of the validations."""
    figure = Figure(
        title="Loss during the training",
        picture=losses_svg(run.log, run.gains, run.progress.best_step),
        caption=_loss_caption(run),
        description=_loss_description(run),
    )
    return Section(title="Losses", body=[figure, *([_validation_table(run)] if run.validated else [])])


def _loss_caption(run: RunRecord) -> Prose:
    sentences = [
        "The curves show how surprised the model is by a masked amino acid, after it has seen so many residues.",
        "Surprise is measured in nats: 0 is certainty, 3.00 a random guess among 20. The right axis has the same as "
        "perplexity, the number of equally likely amino acids among which a guess would be as uncertain.",
        "Blue is training (pale: single steps).",
    ]
    if not run.validated:
        return " ".join(sentences)
    sentences.append("Orange is validation, on proteins that are never trained on.")
    if len(run.plan.valid_sets) > 1:
        sentences.append("The other colours are further validation sets.")
    if has_mask_token_loss(run.log):
        sentences.append(
            "Both are over residues behind `<mask>`, so they can be compared: blue well below orange is overfitting."
        )
    else:
        sentences.append("Training counts residues that the model sees, so it is lower even without overfitting.")
    sentences.append(
        "A model that has learned something falls below the dashed line, which is how frequent each amino acid is."
    )
    return " ".join(sentences)


def _loss_description(run: RunRecord) -> str:
    losses = [line["valid_loss"] for line in run.validated]
    if not losses:
        return f"The training loss of {pluralize(run.progress.step, 'step')}; there is no validation yet."
    return (
        f"The validation loss was {format_loss(losses[0])} nats at first and {format_loss(losses[-1])} at last, the "
        f"lowest {format_loss(min(losses))}; that of the unigram model is {format_loss(run.references['unigram'])}."
    )


def _validation_table(run: RunRecord) -> Table:
    lines = _evenly(run.validated, run.progress.best_step)
    others = list(run.plan.valid_sets)[1:]
    accuracies = [line.get("valid_accuracy") for line in lines]  # earlier versions logged less
    percents = [None if accuracy is None else 100 * accuracy for accuracy in accuracies]
    note = "The tinted row is the model that was kept. "
    if len(lines) < len(run.validated):
        note += f"{len(lines)} of {len(run.validated):,} validations; `metrics.jsonl` has all of them. "
    return Table(
        title="Validations",
        note=note + "Loss in nats per masked amino acid.",
        columns=[
            Column(name="step", cells=[line["step"] for line in lines]),
            Column(name="residues seen", cells=[line["residues"] for line in lines]),
            Column(name="loss", cells=[line["valid_loss"] for line in lines], decimals=3, best="low"),
            Column(name="perplexity", cells=[perplexity(line["valid_loss"]) for line in lines], decimals=2),
            Column(name="named correctly, %", cells=percents, decimals=1),
            *(
                Column(name=f"loss on {name}", cells=[line.get(f"{name}/valid_loss") for line in lines], decimals=3)
                for name in others
            ),
        ],
        row_kinds=["model" if line["step"] == run.progress.best_step else "" for line in lines],
    )


def _evenly(lines: Sequence[Mapping[str, Any]], best_step: int | None) -> list[Mapping[str, Any]]:
    """Choose the first, the last, the best and evenly spaced validations."""
    chosen = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), _MAX_VALIDATIONS)).round().astype(int))
    return [line for number, line in enumerate(lines) if number in chosen or line["step"] == best_step]


def baseline_section(run: RunRecord) -> Section:
    """Compare the best model with the baselines on each validation set."""
    gained = {name: gain for name, gain in run.gains.items() if gain.low is not None}
    body: list[Element] = [*([_gain_figure(gained)] if gained else []), _baseline_table(run)]
    others = list(run.plan.valid_sets)[1:]
    if others:
        body.append(_other_sets_table(run, others))
    return Section(title="Baselines", body=body)


def _gain_figure(gains: Mapping[str, MetricWithInterval]) -> Figure:
    rows = [IntervalRow(name=f"over the {name} model", metric=gain) for name, gain in gains.items()]
    found = (f"{format_with_interval(gain.value, gain.low, gain.high, 3)} over {name}" for name, gain in gains.items())
    return Figure(
        title="Gain over each baseline",
        picture=draw_intervals(rows, "gain (nats per masked amino acid)", overall=0.0),
        caption="Each point shows by how many nats the loss of the model is lower than that of a baseline, the line "
        "its 95 % interval. The model is better where the whole line is right of the dashed one, which is no gain.",
        description=f"Gains in nats with 95 % intervals: {'; '.join(found)}.",
    )


def _baseline_table(run: RunRecord) -> Table:
    best = run.progress.best_loss
    gains: list[Cell] = [run.gain(name) for name in run.references]
    verdicts: list[Cell] = [_VERDICTS[run.verdict(name)] for name in run.references]
    uniform = math.log(NUM_AMINO_ACIDS)
    rows: list[tuple[str, float, Cell, Cell]] = [
        *([] if best is None else [("this model", best, None, None)]),
        *zip(run.references, run.references.values(), gains, verdicts, strict=True),
        ("uniform", uniform, None if best is None else uniform - best, None),
    ]
    names, values, gained, found = zip(*rows, strict=True)
    columns = [
        Column(name="predictor", cells=names),
        Column(name="perplexity", cells=[perplexity(loss) for loss in values], decimals=2, best="low" if best else ""),
        Column(name="loss, nats", cells=values, decimals=3),
    ]
    if best is not None:
        meaning = "How much lower the loss of this model is, with its 95 % interval."
        columns += [
            Column(name="gain of this model, nats", cells=gained, decimals=3, note=meaning),
            Column(name="verdict", cells=found),
        ]
    return Table(
        title="The baselines" if best is None else "This model and its baselines",
        note=_baseline_note(run),
        columns=columns,
        row_kinds=["model" if name == "this model" else "" for name in names],
    )


def _baseline_note(run: RunRecord) -> Prose:
    count = pluralize(run.plan.valid_sets[run.valid_name], "protein")
    compared = "`compared` is the model of `--compare-model`, " if "compared" in run.references else ""
    note = (
        f"All predict the same masked residues of {count}, in windows of {run.plan.window_residues:,} residues. "
        "`unigram` knows the frequency of each amino acid in training, `bigram` also that of each pair of neighbours; "
        f"{compared}`uniform` guesses."
    )
    if run.progress.best_loss is None:
        return note
    return (
        f"{note} The interval is where the gain on other proteins of this kind is expected: if it contains 0, the "
        "difference may be chance."
    )


def _other_sets_table(run: RunRecord, names: Sequence[str]) -> Table:
    best = next((line for line in run.validated if line["step"] == run.progress.best_step), {})
    references = {name: run.plan.references[name] for name in names}
    return Table(
        title="The other validation sets",
        note="Perplexity of the model that was kept, and of its baselines. The first set decides which one is kept.",
        columns=[
            Column(name="set", cells=names),
            Column(name="proteins", cells=[run.plan.valid_sets[name] for name in names]),
            Column(name="this model", cells=[best.get(f"{name}/valid_perplexity") for name in names], decimals=2),
            *(
                Column(name=key, cells=[perplexity(references[name][key]) for name in names], decimals=2)
                for key in run.references
            ),
        ],
    )


def course_section(run: RunRecord) -> Section:
    """Show the learning rate, the norm of the gradient, and the speed."""
    clip_norm = run.schedule.clip_norm
    clipped = "" if clip_norm is None else f" Gradients above the dashed line are shortened to a norm of {clip_norm:g}."
    rates = Figure(
        title="Learning rate and gradient",
        picture=rates_svg(run.log, clip_norm),
        caption="The learning rate is the length of a step of the optimiser: it rises, stays, and falls at the end. "
        "The norm of the gradient is how steep the loss is. It should be even; peaks are batches that do not fit, and "
        f"a steady rise is a training that becomes unstable.{clipped}",
        description=_rates_description(run),
    )
    speed = Figure(
        title="Speed",
        picture=speed_svg(run.log),
        caption="Residues per second of each step (pale), and their running mean, on the machine of this run. "
        "Dips are steps during which the machine had other work.",
        description=f"The median speed was {_median_speed(run)} residues per second.",
    )
    return Section(title="Learning rate, gradient and speed", body=[rates, speed])


def _rates_description(run: RunRecord) -> str:
    norms = [line["grad_norm"] for line in run.log if line.get("grad_norm") is not None]
    norm = f"; the median norm of the gradient is {format_decimals(float(np.median(norms)), 2)}" if norms else ""
    return f"The learning rate rises to {run.schedule.learning_rate:g}{norm}."


def _median_speed(run: RunRecord) -> str:
    speeds = [line["residues_per_second"] for line in run.log if "residues_per_second" in line]
    return f"{float(np.median(speeds)):,.0f}" if speeds else "0"


def outcome_section(run: RunRecord) -> Section:
    """Compare what was planned with what was done, and list the settings."""
    rows = _outcome_rows(run)
    names, planned, done = zip(*rows, strict=True)
    outcome = Table(
        title="What was planned and what was done",
        columns=[
            Column(name="quantity", cells=names),
            Column(name="planned", cells=planned),
            Column(name="done", cells=done),
        ],
    )
    settings = _settings(run)
    table = Table(
        title="Settings of the training",
        columns=[Column(name="setting", cells=list(settings)), Column(name="value", cells=list(settings.values()))],
    )
    return Section(title="Plan and outcome", body=[outcome, Details(title="Settings", body=[table])])


def _outcome_rows(run: RunRecord) -> list[tuple[str, str, str]]:
    schedule, progress = run.schedule, run.progress
    adjusted = ""
    if run.first_num_steps is not None and run.first_num_steps != schedule.num_steps:
        adjusted = f" (at first {run.first_num_steps:,}, adjusted to the time)"
    passes = schedule.num_steps / run.plan.steps_per_pass
    kept = "none yet"
    if progress.best_step is not None:
        kept = f"step {progress.best_step:,}, loss {format_loss(progress.best_loss)}"
    rows = [
        ("steps", f"{schedule.num_steps:,}{adjusted}", f"{progress.step:,}"),
        ("times each protein is seen", f"{passes:.3g}", f"{run.num_passes:.3g}"),
        ("residues seen", "", f"{progress.num_residues:,}"),
        ("validations", f"{run.num_planned_validations:,}", f"{len(run.validated):,}"),
        ("model that is kept", "the lowest validation loss", kept),
        ("steps skipped, loss or gradient not finite", "0", f"{progress.num_skipped:,}"),
    ]
    norms = [line["grad_norm"] for line in run.log if line.get("grad_norm") is not None]
    if schedule.clip_norm is not None and norms:
        fraction = float(np.mean(np.array(norms) > schedule.clip_norm))
        rows.append((f"steps with a gradient clipped to {schedule.clip_norm:g}", "", format_percent(fraction)))
    return rows


def _teacher(config: PretrainConfig) -> dict[str, str]:
    if config.teacher is None:
        return {}
    weight = f"weight {config.teacher_weight:g}, the true amino acids {1 - config.teacher_weight:g}"
    return {"teacher": f"{model_name(config.teacher)}, {weight}"}


def _settings(run: RunRecord) -> dict[str, str]:
    config, batches, masking, schedule = run.options.pretrain, run.options.batches, run.options.masking, run.schedule
    shape = run.shape
    rates = {
        "shown as <mask>": 1 - masking.random_rate - masking.keep_rate,
        "as a random amino acid": masking.random_rate,
        "unchanged": masking.keep_rate,
    }
    shown = ", ".join(f"{format_percent(rate)} {how}" for how, rate in rates.items())
    decay = f", falling to 0 over the last {schedule.decay_steps:,}" if schedule.schedule == "stable" else ", cosine"
    return {
        "encoder": f"{shape.num_layers} layers of width {shape.dim}, {shape.num_heads} heads",
        "weights at first": "another model" if config.init_from else config.weight_init,
        **_teacher(config),
        "batch": f"at most {batches.batch_tokens:,} tokens, crops of {batches.crop_residues:,} residues",
        "targets": f"{format_percent(masking.mask_rate)} of the residues; {shown}",
        "optimiser": f"{schedule.optimizer}, weight decay {schedule.weight_decay:g}",
        "precision": run.plan.precision,
        "learning rate": f"up to {schedule.learning_rate:g}, {schedule.warmup_steps:,} steps of warm-up{decay}",
        "proteins longer than a crop": format_percent(run.plan.cropped_fraction),
        "seed": str(config.seed),
    }
