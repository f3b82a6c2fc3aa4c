"""`protembed finetune`."""

from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.messages import finetune_plan_lines, finetune_summary_lines, stage_line
from protembed.cli.next_steps import after_finetune
from protembed.cli.options import LabelsPath, configured
from protembed.cli.process import stop_on_signals
from protembed.config.finetune import FinetuneOptions

if TYPE_CHECKING:
    from protembed.finetuning.finetune import FinetunePlan


@configured
def finetune(labels: LabelsPath, options: FinetuneOptions, display: Display) -> None:
    """Train a model to predict a label of proteins or residues, and compare it with simpler baselines.

    Examples:
        protembed finetune labels.csv --method frozen
        protembed finetune labels.csv --target location --sequence protein
        protembed finetune labels.csv -m esm2_t12_35M --method lora
    """
    from protembed.finetuning.finetune import finetune_model

    display.announce_download()

    def begin(plan: "FinetunePlan") -> None:
        display.announce_model()
        display.plan(plan, finetune_plan_lines(plan))

    with stop_on_signals() as stop, display.progress("embedded") as progress:

        def enter(name: str, num_steps: int | None, first_step: int) -> None:
            display.say_unless_live(stage_line(name, num_steps))
            stop.is_awaited = num_steps is not None
            if num_steps is None:
                progress.begin_stage(name)
            else:
                progress.begin_training(first_step, name=name, shows_perplexity=False)

        callbacks = display.callbacks(
            on_plan=begin, on_stage=enter, on_step=progress.step, on_progress=progress.advance, stop=stop
        )
        summary = finetune_model(labels, options, callbacks)
    display.summary(
        summary, finetune_summary_lines(summary, display.unprinted(summary.notes)), next_step=after_finetune(summary)
    )
    stop.exit_unless(summary.is_finished)
