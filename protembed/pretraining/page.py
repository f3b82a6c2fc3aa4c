"""The page of a pretraining run: what the model has learned, how the training went, the plan and what came of it."""

from pathlib import Path

from protembed.config.common import DEFAULT_MODEL
from protembed.evaluation.intervals import MetricWithInterval
from protembed.io.reading import display_name
from protembed.model.catalog import model_name
from protembed.pretraining.amino_acid_section import amino_acid_section
from protembed.pretraining.corpus import HELD_OUT_NAME
from protembed.pretraining.page_sections import (
    baseline_section,
    course_section,
    loss_section,
    outcome_section,
)
from protembed.pretraining.run_record import RunRecord
from protembed.pretraining.validation import perplexity
from protembed.report.page import Card, Page
from protembed.report.table import Prose
from protembed.text import format_decimals, format_loss, format_perplexity, pluralize


def pretraining_page(run: RunRecord) -> Page:
    """Describe a run, finished or not, so that the same log gives the same page."""
    return Page(
        title=_title(run),
        command="pretrain",
        facts=_facts(run),
        summary=_summary(run),
        cards=_cards(run),
        sections=[
            loss_section(run),
            baseline_section(run),
            amino_acid_section(run),
            course_section(run),
            outcome_section(run),
        ],
        notes=_notes(run),
    )


def _names(paths: list[Path]) -> str:
    return ", ".join(Path(display_name(path)).name for path in paths)


def _title(run: RunRecord) -> str:
    first, *others = run.fasta
    inputs = _names([first]) + (f" and {pluralize(len(others), 'more file')}" if others else "")
    base = run.options.pretrain.init_from
    return f"{run.shape.name if base is None else model_name(base)}, trained on {inputs}"


def _facts(run: RunRecord) -> dict[str, str]:
    plan, config = run.plan, run.options.pretrain
    origin = "new" if config.init_from is None else f"from {model_name(config.init_from)}"
    clusters = "" if plan.num_clusters is None else f" in {pluralize(plan.num_clusters, 'cluster')}"
    valid = ", ".join(f"{pluralize(number, 'protein')} ({_set_name(name)})" for name, number in plan.valid_sets.items())
    return {
        "Command": run.options.command_line(run.fasta),
        "Model": f"{run.shape.name}, {plan.num_parameters:,} parameters, {origin}",
        "Input": _names(list(run.fasta)),
        "Training": f"{pluralize(plan.num_proteins, 'protein')}{clusters}, {pluralize(plan.num_residues, 'residue')}",
        "Validation": valid,
        "State": _state(run),
    }


def _set_name(name: str) -> str:
    return "held out of the input" if name == HELD_OUT_NAME else name


def _state(run: RunRecord) -> str:
    step, num_steps = run.progress.step, run.schedule.num_steps
    if run.has_diverged:
        found = f"diverged: the loss was not finite at step {step:,} of {num_steps:,}"
        return f"{found}; start over with a lower `--learning-rate`"
    if step >= num_steps:
        return f"finished, {pluralize(step, 'step')}"
    if run.is_finished:
        rest = pluralize(run.schedule.patience or 0, "validation")
        return f"finished after {step:,} of {num_steps:,} steps, because {rest} brought no lower loss"
    return f"not finished: {step:,} of {num_steps:,} steps; the same command resumes it"


def _summary(run: RunRecord) -> list[Prose]:
    step, num_steps = run.progress.step, run.schedule.num_steps
    diverged: list[Prose] = []
    if run.has_diverged:
        found = f"The training diverged at step {step:,} of {num_steps:,}: its loss was no longer finite"
        diverged = [f"{found}, most likely because the learning rate is too high."]
    if run.amino_acids is None or run.progress.best_loss is None:
        return diverged or [
            f"The run has taken {step:,} of {num_steps:,} steps.",
            f"What the model has learned is measured every {pluralize(run.schedule.validate_every, 'step')}; the first "
            "measurement is still to come.",
        ]
    sentences = {
        "better": "the model has learned more than how frequent each amino acid is",
        "unclear": "it is not certain that the model has learned more than how frequent each amino acid is",
        "worse": "the model predicts amino acids worse than their frequencies do",
        "seems better": "the model predicts amino acids better than their frequencies do",
        "seems worse": "the model does not predict amino acids better than their frequencies do",
    }
    verdict = sentences[run.verdict("unigram") or "unclear"]
    if not run.is_finished:
        begin = f"After {step:,} of {num_steps:,} steps, {verdict}"
    elif run.gain("unigram").low is None:
        begin = f"On too few validation proteins to be certain, {verdict}"
    else:
        begin = verdict[0].upper() + verdict[1:]
    letter, share = run.amino_acids.most_frequent
    num_proteins = run.plan.valid_sets[run.valid_name]
    proteins = pluralize(num_proteins, "validation protein")
    if run.valid_name == HELD_OUT_NAME:
        proteins = f"{pluralize(num_proteins, 'protein')} that it was not trained on"
    return [
        *diverged,
        f"{begin}.",
        f"A masked amino acid leaves it as uncertain as a choice among {_perplexity(run)} equally likely ones (its "
        f"perplexity); the frequencies alone, among {_unigram_perplexity(run)}.",
        f"It names {100 * run.amino_acids.accuracy:.1f} % of the masked amino acids correctly "
        f"({int(run.amino_acids.counts.sum()):,} in {proteins}); always naming {letter}, "
        f"the most frequent one, would be right for {100 * share:.1f} %.",
    ]


def _perplexity(run: RunRecord) -> str:
    return "" if run.progress.best_loss is None else format_perplexity(perplexity(run.progress.best_loss))


def _unigram_perplexity(run: RunRecord) -> str:
    return format_perplexity(perplexity(run.references["unigram"]))


def _cards(run: RunRecord) -> list[Card]:
    unit = "clusters" if run.plan.num_clusters is not None else "proteins"
    training = Card(
        name="Training",
        value=pluralize(run.progress.step, "step"),
        note=f"{run.progress.num_residues:,} residues; {run.num_passes:.3g} times over the {unit}",
    )
    if run.amino_acids is None:
        return [training]
    gain, (letter, share) = run.gain("unigram"), run.amino_acids.most_frequent
    return [
        Card(
            name="Perplexity",
            value=_perplexity(run),
            note=f"{_unigram_perplexity(run)} by the frequencies of amino acids, 20 by a random guess",
        ),
        Card(name="Gain over the frequencies", value=f"{format_loss(gain.value)} nats", note=_interval_note(run, gain)),
        Card(
            name="Named correctly",
            value=f"{100 * run.amino_acids.accuracy:.1f} %",
            note=f"of the masked amino acids; {100 * share:.1f} % by always naming {letter}",
        ),
        training,
    ]


def _interval_note(run: RunRecord, gain: MetricWithInterval) -> Prose:
    if gain.low is None or gain.high is None:
        reason = "too few proteins for an interval" if run.is_finished else "a finished run has an interval"
        return f"less surprise per masked amino acid; {reason}"
    ends = f"{format_decimals(gain.low, 3)} to {format_decimals(gain.high, 3)}"
    return f"95 % interval {ends}; less surprise per masked amino acid"


def _notes(run: RunRecord) -> list[Prose]:
    notes = []
    if run.is_finished and not run.has_learned and run.options.pretrain.init_from is None:
        notes.append(
            "What helps is more proteins, more steps, or a start that is not random: `--init-from "
            f"{DEFAULT_MODEL}` continues with the bundled model, which has learned from half a million proteins."
        )
    if run.valid_name == HELD_OUT_NAME:
        notes.append(
            "The validation proteins are a random part of the input. Copies of them are not trained on, but relatives "
            "may be; `--valid` accepts proteins of your choice."
        )
    files = "`metrics.jsonl` has a line per step, and `training.png` is the first figure."
    if run.amino_acids is None:
        return [*notes, files]
    return [
        *notes,
        "Every `--model` of protembed accepts the folder of this page. The model in it is that of the lowest "
        "validation loss.",
        f"{files} `amino_acids.tsv` and `confusions.tsv` have the tables of amino acids.",
    ]
