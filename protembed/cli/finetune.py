"""`protembed finetune`."""

from typing import TYPE_CHECKING

import typer

from protembed.cli.display import Display
from protembed.cli.options import LabelsPath, configured
from protembed.cli.signals import stop_on_signals
from protembed.config.finetune import FinetuneConfig, LabelsConfig
from protembed.config.optimizer import OptimizerConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig
from protembed.config.task import METRIC_NAMES

if TYPE_CHECKING:
    from protembed.analysis.scores import Score
    from protembed.tasks.finetune import FinetunePlan, FinetuneSummary


@configured
def finetune(
    labels: LabelsPath,
    model: ModelConfig,
    table: LabelsConfig,
    learning: FinetuneConfig,
    optimizer: OptimizerConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Train a model to predict a label of proteins or residues, and measure it beside simpler ways to predict it."""
    from protembed.analysis.model_rungs import Watcher
    from protembed.tasks.finetune import FinetuneOptions, finetune_model

    options = FinetuneOptions(
        finetune=learning, labels=table, model=model, optimizer=optimizer, reader=reader, compute=compute
    )
    display = Display(show)
    display.say_fetching(model)

    def begin(plan: "FinetunePlan") -> None:
        display.say_model(model)
        for line in describe_plan(plan):
            display.say(line)

    with stop_on_signals() as stop, display.stepping() as steps, display.counting("embedded") as counter:

        def enter(name: str, num_steps: int | None, first_step: int) -> None:
            display.say(f"{name}: a head on its vectors" if num_steps is None else f"{name}: {num_steps:,} steps")
            stop.is_awaited = num_steps is not None
            if num_steps is not None:
                steps.begin(num_steps, first_step)

        watcher = Watcher(on_stage=enter, on_step=steps.advance, on_protein=counter.advance, stop=stop)
        summary = finetune_model(labels, options, on_plan=begin, watcher=watcher)
    display.summary(summary, *describe_summary(summary))
    if stop.status is not None and not summary.is_finished:
        raise typer.Exit(stop.status)


def describe_plan(plan: "FinetunePlan") -> list[str]:
    """Say what is going to be learned."""
    kinds = {"class": "classes", "labels": "labels"}
    what = f"{len(plan.classes)} {kinds[plan.task.answer]}" if plan.classes else "a value"
    sizes = ", ".join(f"{number:,} {split}" for split, number in plan.num_proteins.items() if number)
    measured = f", measured in {plan.num_folds} folds" if plan.num_folds > 1 else ""
    return [*plan.notes, f"{plan.task.name} of {plan.target!r} ({what}): {sizes} proteins{measured}; {plan.method}"]


def describe_summary(summary: "FinetuneSummary") -> list[str]:
    """Show the figures of each rung of the ladder, and say what they come to."""
    if summary.ladder is None:
        return ["left before the end; repeat the command to go on"]
    rungs = summary.ladder.rungs
    width = max(map(len, rungs))
    names = list(summary.ladder.figures)
    lines = [f"{'':<{width}}" + "".join(f"{METRIC_NAMES[name]:>24}" for name in names)]
    for rung, scores in rungs.items():
        lines.append(f"{rung:<{width}}" + "".join(f"{_spell(scores[name]):>24}" for name in names))
    return [*lines, *summary.ladder.sentences(), f"{summary.output}: the model, its figures and report.html"]


def _spell(score: "Score") -> str:
    if score.value is None:
        return "undefined"
    span = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.3f}{span}"
