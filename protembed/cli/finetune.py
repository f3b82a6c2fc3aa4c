"""`protembed finetune`."""

from typing import TYPE_CHECKING

import typer

from protembed.cli.display import Display
from protembed.cli.messages import finetune_plan_lines, finetune_summary_lines
from protembed.cli.options import LabelsPath, configured
from protembed.cli.process import stop_on_signals
from protembed.config.common import ConsoleConfig, DeviceConfig, InputConfig, ModelConfig, OptimizerConfig
from protembed.config.finetune import FinetuneConfig, LabelTableConfig
from protembed.text import pluralize

if TYPE_CHECKING:
    from protembed.finetuning.finetune import FinetunePlan


@configured
def finetune(
    labels: LabelsPath,
    model: ModelConfig,
    table: LabelTableConfig,
    learning: FinetuneConfig,
    optimizer: OptimizerConfig,
    reader: InputConfig,
    compute: DeviceConfig,
    show: ConsoleConfig,
) -> None:
    """Train a model to predict a label of proteins or residues, and compare it with simpler baselines."""
    from protembed.finetuning.experiment import Callbacks
    from protembed.finetuning.finetune import FinetuneOptions, finetune_model

    options = FinetuneOptions(
        finetune=learning, labels=table, model=model, optimizer=optimizer, reader=reader, compute=compute
    )
    display = Display(show)
    display.announce_download(model)

    printed: list[str] = []

    def begin(plan: "FinetunePlan") -> None:
        printed.extend([*plan.notes, *plan.warnings])
        display.announce_model(model)
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
            on_stage=enter,
            on_step=steps.advance,
            on_protein=counter.advance,
            on_warning=lambda sentence: display.warn([sentence]),
            stop=stop,
        )
        summary = finetune_model(labels, options, on_plan=begin, callbacks=callbacks)
    display.summary(summary, *finetune_summary_lines(summary, printed))
    if stop.status is not None and not summary.is_finished:
        raise typer.Exit(stop.status)
