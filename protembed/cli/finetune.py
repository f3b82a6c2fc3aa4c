"""`protembed finetune`."""

from typing import TYPE_CHECKING

import typer

from protembed.callbacks import Callbacks
from protembed.cli.display import Display
from protembed.cli.messages import finetune_plan_lines, finetune_summary_lines
from protembed.cli.options import LabelsPath, configured
from protembed.cli.process import stop_on_signals
from protembed.config.common import ConsoleConfig
from protembed.config.finetune import FinetuneOptions
from protembed.text import pluralize

if TYPE_CHECKING:
    from protembed.finetuning.finetune import FinetunePlan


@configured
def finetune(labels: LabelsPath, options: FinetuneOptions, show: ConsoleConfig) -> None:
    """Train a model to predict a label of proteins or residues, and compare it with simpler baselines."""
    from protembed.finetuning.finetune import finetune_model

    display = Display(show)
    display.announce_download(options.model)

    printed: list[str] = []

    def begin(plan: "FinetunePlan") -> None:
        printed.extend([*plan.notes, *plan.warnings])
        display.announce_model(options.model)
        for line in finetune_plan_lines(plan):
            display.say(line)
        display.warn(plan.warnings)

    with stop_on_signals() as stop, display.training_progress() as steps, display.progress("embedded") as counter:

        def enter(name: str, num_steps: int | None, first_step: int) -> None:
            display.say(name if num_steps is None else f"{name}: {pluralize(num_steps, 'step')}")
            stop.is_awaited = num_steps is not None
            if num_steps is not None:
                steps.begin(num_steps, first_step, shows_perplexity=False)

        callbacks = Callbacks(
            on_plan=begin,
            on_stage=enter,
            on_step=steps.advance,
            on_progress=counter.advance,
            on_warning=lambda sentence: display.warn([sentence]),
            stop=stop,
        )
        summary = finetune_model(labels, options, callbacks)
    display.summary(summary, *finetune_summary_lines(summary, printed))
    if stop.status is not None and not summary.is_finished:
        raise typer.Exit(stop.status)
