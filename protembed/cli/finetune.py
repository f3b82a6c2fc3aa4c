"""`protembed finetune`."""

from typing import TYPE_CHECKING

import typer

from protembed.cli.display import Display
from protembed.cli.options import LabelsPath, configured
from protembed.cli.signals import stop_on_signals
from protembed.config.finetune import FinetuneConfig
from protembed.config.optimizer import OptimizerConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig

if TYPE_CHECKING:
    from protembed.tasks.finetune import FinetunePlan, FinetuneSummary


@configured
def finetune(
    labels: LabelsPath,
    model: ModelConfig,
    task: FinetuneConfig,
    optimizer: OptimizerConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Train a model to predict a label of proteins, and measure it on a test part beside the trivial answer."""
    from protembed.tasks.finetune import FinetuneOptions, finetune_model

    options = FinetuneOptions(finetune=task, model=model, optimizer=optimizer, reader=reader, compute=compute)
    display = Display(show)
    display.say_fetching(model)

    def begin(plan: "FinetunePlan") -> None:
        display.say_model(model)
        for line in describe_plan(plan):
            display.say(line)
        if plan.num_steps is not None:
            steps.begin(plan.num_steps, plan.first_step)
            stop.is_awaited = True

    with stop_on_signals() as stop, display.stepping() as steps, display.counting("embedded") as counter:
        summary = finetune_model(
            labels, options, on_plan=begin, on_step=steps.advance, on_protein=counter.advance, stop=stop
        )
    display.summary(summary, *describe_summary(summary))
    if stop.status is not None and not summary.is_finished:
        raise typer.Exit(stop.status)


def describe_plan(plan: "FinetunePlan") -> list[str]:
    """Say what is going to be learned."""
    what = f"{len(plan.classes)} classes" if plan.classes else "a value"
    sizes = ", ".join(f"{number:,} {split}" for split, number in plan.num_proteins.items())
    how = "a linear head on the frozen encoder" if plan.num_steps is None else f"{plan.num_steps:,} steps"
    return [*plan.notes, f"{plan.task} of {plan.target!r} ({what}): {sizes} proteins; {how}"]


def describe_summary(summary: "FinetuneSummary") -> list[str]:
    """Say how good the model is on the test part, beside the trivial answer."""
    if summary.output is None:
        return ["left before the end; repeat the command to go on"]
    trivial = "majority" if summary.task == "classification" else "mean"
    lines = [f"{summary.output}: on the test part"]
    for name, value in summary.test.items():
        shown, trivially = (
            f"{number:.4f}" if number is not None else "undefined" for number in (value, summary.baseline[name])
        )
        lines.append(f"  {name:<10} {shown:>10}   {trivial} {trivially:>10}")
    return lines
