"""`protembed pretrain`."""

from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.messages import pretrain_plan_lines, pretrain_summary_lines
from protembed.cli.next_steps import after_pretrain
from protembed.cli.options import FastaPaths, configured
from protembed.cli.process import stop_on_signals
from protembed.config.pretrain import PretrainOptions

if TYPE_CHECKING:
    from protembed.pretraining.report import PretrainPlan


@configured
def pretrain(fasta: FastaPaths, options: PretrainOptions, display: Display) -> None:
    """Train an encoder to predict masked amino acids. The same command resumes an interrupted run.

    Examples:
        protembed pretrain proteins.fasta --dry-run
        protembed pretrain proteins.fasta --max-minutes 30
        protembed pretrain proteins.fasta --size t12_35M --steps 100000
    """
    from protembed.pretraining.pretrain import plan_pretraining, pretrain_model

    is_adjusted = options.pretrain.max_minutes is not None
    if options.pretrain.dry_run:
        plan = plan_pretraining(fasta, options)
        display.summary(plan, pretrain_plan_lines(plan, is_adjusted=is_adjusted, is_dry_run=True), is_dry_run=True)
        return
    with stop_on_signals() as stop, display.progress() as progress:

        def begin(plan: "PretrainPlan") -> None:
            display.plan(plan, pretrain_plan_lines(plan, is_adjusted=is_adjusted))
            progress.begin_training(plan.first_step, is_adjusted=is_adjusted)
            stop.is_awaited = True

        callbacks = display.callbacks(on_plan=begin, on_step=progress.step, stop=stop)
        summary = pretrain_model(fasta, options, callbacks)
    display.summary(summary, pretrain_summary_lines(summary), next_step=after_pretrain(summary, fasta))
    stop.exit_unless(summary.is_finished)
