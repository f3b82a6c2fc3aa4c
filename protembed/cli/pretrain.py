"""`protembed pretrain`."""

import math
from typing import TYPE_CHECKING

import typer

from protembed.cli.display import Display
from protembed.cli.options import FastaPaths, configured
from protembed.cli.signals import stop_on_signals
from protembed.config import (
    BatchConfig,
    ComputeConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    ReaderConfig,
    ShowConfig,
)

if TYPE_CHECKING:
    from protembed.tasks.pretrain import PretrainPlan, PretrainSummary


@configured
def pretrain(
    fasta: FastaPaths,
    config: PretrainConfig,
    batches: BatchConfig,
    masking: MaskingConfig,
    optimizer: OptimizerConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Train an encoder to predict hidden amino acids; the same command takes up a run that was interrupted."""
    from protembed.tasks.pretrain import PretrainOptions, pretrain_model

    options = PretrainOptions(
        pretrain=config, batches=batches, masking=masking, optimizer=optimizer, reader=reader, compute=compute
    )
    display = Display(show)

    def begin(plan: "PretrainPlan") -> None:
        display.warn(plan.warnings)
        for line in describe_plan(plan):
            display.say(line)
        steps.begin(plan.num_steps, plan.first_step)

    with stop_on_signals() as stop, display.stepping() as steps:
        summary = pretrain_model(fasta, options, on_plan=begin, on_step=steps.advance, stop=stop)
    display.summary(summary, describe_summary(summary))
    if stop.status is not None and not summary.is_finished:
        raise typer.Exit(stop.status)


def describe_plan(plan: "PretrainPlan") -> list[str]:
    """Say what a run is going to do."""
    valid = " and ".join(f"{number:,}" for number in plan.num_valid_proteins)
    begin = (
        f"resuming {plan.output} after step {plan.first_step:,}" if plan.first_step else f"a new run in {plan.output}"
    )
    return [
        f"{plan.num_proteins:,} proteins with {plan.num_residues:,} residues to train on, {valid} to validate on",
        f"{plan.num_parameters:,} parameters, {plan.num_steps:,} steps, {plan.steps_per_pass:,} for each pass; {begin}",
        f"to beat: unigram loss {plan.unigram_loss:.4f} (perplexity {math.exp(plan.unigram_loss):.2f}), bigram loss "
        f"{plan.bigram_loss:.4f} ({math.exp(plan.bigram_loss):.2f}), in windows of {plan.window_residues:,} residues",
    ]


def describe_summary(summary: "PretrainSummary") -> str:
    """Say what has come of a run."""
    if summary.valid_loss is None:
        return f"left after step {summary.num_steps:,}; repeat the command to go on"
    ending = "" if summary.is_finished else f"; left after step {summary.num_steps:,}, repeat the command to go on"
    return (
        f"{summary.model}: validation loss {summary.valid_loss:.4f}, perplexity {summary.valid_perplexity:.2f}; "
        f"unigram loss {summary.unigram_loss:.4f}, {summary.unigram_loss - summary.valid_loss:+.4f} nats better{ending}"
    )
