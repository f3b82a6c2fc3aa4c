"""Pretraining: from FASTA files to a run directory with a model."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from protembed.analysis.perplexity import PerplexityMeter, perplexity
from protembed.config import (
    SIZES,
    BatchConfig,
    ComputeConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    ReaderConfig,
    as_plain_values,
)
from protembed.data.batching import PretrainingPlan
from protembed.data.corpus import Corpora, build_corpora, open_corpora
from protembed.device import WorkerPool, choose_device, worker_pool
from protembed.files import STANDARD_STREAM, default_path, sha256_of_inputs
from protembed.model.catalog import find_model, open_model
from protembed.model.checkpoint import Checkpoint, ModelRecord, model_sha256, new_checkpoint, save_checkpoint
from protembed.report.card import pretrained_card
from protembed.report.figures import draw_training
from protembed.training.loop import (
    NUM_DEFAULT_VALIDATIONS,
    StepReport,
    TrainingPlan,
    measure_seconds_per_step,
    plan_training,
    train,
)
from protembed.training.objectives import MaskedLM
from protembed.training.optimizer import make_optimizer
from protembed.training.run_directory import RunDirectory
from protembed.training.state import RunState

_DEFAULT_PASSES = 10
_MIN_DEFAULT_STEPS = 200
# Checkpoints, exports and a busy machine take what a short calibration does not see.
_TIME_SHARE = 0.95
_MAX_VALIDATION_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class PretrainPlan:
    """What a run is going to do, known before its first step.

    Attributes:
        output: the run directory.
        num_parameters: of the encoder and its masked-LM head.
        num_proteins: to train on.
        num_residues: to train on.
        num_valid_proteins: of each validation set.
        window_residues: the longest stretch that validation computes at once, and the model records.
        unigram_loss: mean nats per hidden residue of the first validation set, from the training composition.
        bigram_loss: the same, given the left neighbour.
        num_steps: optimiser steps.
        steps_per_pass: steps in which every protein is seen once.
        first_step: where the run stands; above 0 it is resumed.
        warnings: what the user should know about the input.
    """

    output: Path
    num_parameters: int
    num_proteins: int
    num_residues: int
    num_valid_proteins: Sequence[int]
    window_residues: int
    unigram_loss: float
    bigram_loss: float
    num_steps: int
    steps_per_pass: int
    first_step: int
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PretrainSummary:
    """What a run has come to.

    Attributes:
        model: the directory of the best model; None when the run was left before its first validation.
        num_steps: steps taken.
        num_residues: residues seen.
        num_skipped: steps skipped because their loss or gradient was not finite.
        best_step: after how many steps the best model was measured.
        valid_loss: of the best model, mean nats per hidden residue.
        valid_perplexity: its exponential.
        unigram_loss: of the unigram model on the same hidden residues.
        is_finished: whether all planned steps were taken.
    """

    model: Path | None
    num_steps: int
    num_residues: int
    num_skipped: int
    best_step: int | None
    valid_loss: float | None
    valid_perplexity: float | None
    unigram_loss: float
    is_finished: bool


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """All options of a pretraining."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)


def pretrain_model(
    fasta: Sequence[Path],
    options: PretrainOptions,
    *,
    on_plan: Callable[[PretrainPlan], None] = lambda plan: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    stop: Callable[[], bool] = lambda: False,
) -> PretrainSummary:
    """Train an encoder to predict hidden amino acids; the same call takes up a run that was interrupted.

    Args:
        fasta: the proteins to train on; `-` is stdin.
        options: of the command.
        on_plan: told once, before the first step.
        on_step: told after each step.
        stop: asked after each step; when true the run is saved and left.

    Returns:
        Where the model is and how good it is.

    Raises:
        ProtembedError: the input, the options or the run directory do not allow it; see `protembed.errors`.
    """
    config, began = options.pretrain, time.monotonic()
    output = config.output or default_path(fasta[0], ".run")
    device, run = choose_device(options.compute), RunDirectory(output)
    warnings = _open_run(run, fasta, options)
    corpora = open_corpora(run.path("corpus"))

    with worker_pool(options.compute, device) as pool:
        checkpoint = _starting_model(config, options.batches)
        objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head).to(device)
        batches = PretrainingPlan(corpora.train, options.batches, options.masking, config.seed)
        window = checkpoint.record.window_residues
        meter = PerplexityMeter(corpora, objective, window, options.batches.tokens_per_pack, pool)
        plan = TrainingPlan(
            **run.recall("plan", lambda: asdict(_plan(options, objective, batches, meter, pool, began)))
        )
        optimizer = make_optimizer(objective, options.optimizer)
        state = RunState(output)
        state.restore(objective, optimizer)
        run.cut_log(state.progress.step)
        announced = PretrainPlan(
            output=output,
            num_parameters=checkpoint.num_parameters,
            num_proteins=len(corpora.train),
            num_residues=corpora.train.num_residues,
            num_valid_proteins=[len(corpus) for corpus in corpora.valid],
            window_residues=window,
            unigram_loss=meter.unigram_loss,
            bigram_loss=meter.bigram_loss,
            num_steps=plan.num_steps,
            steps_per_pass=batches.steps_per_epoch,
            first_step=state.progress.step,
            warnings=warnings,
        )
        on_plan(announced)
        for report in train(objective, batches, optimizer, plan, state, pool, validate=meter.measure, stop=stop):
            run.log(_log_line(report))
            if report.is_best:
                _export(checkpoint, corpora, options, report, run.path("model"))
            on_step(report)
    draw_training(run.path("training.png"), run.read_log())
    return _summary(run, state, plan, meter)


def _open_run(run: RunDirectory, fasta: Sequence[Path], options: PretrainOptions) -> list[str]:
    """Begin a run by storing its proteins, or take up the one that is there; return warnings about the input."""
    config, warnings = options.pretrain, list[str]()

    def store_corpora(directory: Path) -> None:
        corpora = directory / "corpus"
        warnings.extend(build_corpora(corpora, fasta, config.valid, on_illegal=options.reader.on_illegal))

    is_resumed = run.has("run.json") and not config.force
    run.open(_identity(fasta, options), store_corpora, force=config.force)
    if is_resumed and STANDARD_STREAM in (*fasta, *config.valid):
        warnings.append("stdin is not read again: the run goes on with the proteins that it stored at its beginning")
    return warnings


def _identity(fasta: Sequence[Path], options: PretrainOptions) -> dict[str, Any]:
    """Collect what makes two runs the same: settings that shape the result, and the bytes of the inputs."""
    base = options.pretrain.from_model
    return {
        **_settings(options),
        "fasta": sha256_of_inputs(fasta),
        "valid": sha256_of_inputs(options.pretrain.valid),
        "from": None if base is None else model_sha256(find_model(base)),
    }


def _settings(options: PretrainOptions) -> dict[str, Any]:
    parts = (options.pretrain, options.batches, options.masking, options.optimizer, options.reader)
    return {name: value for part in parts for name, value in as_plain_values(part).items()}


def _starting_model(config: PretrainConfig, batches: BatchConfig) -> Checkpoint:
    if config.from_model is None:
        checkpoint = new_checkpoint(SIZES[config.size], config.weight_init, config.seed)
        checkpoint.record = ModelRecord(window_residues=batches.crop_residues)
        return checkpoint
    checkpoint = open_model(config.from_model)
    window = max(checkpoint.record.window_residues, batches.crop_residues)
    checkpoint.record = ModelRecord(window_residues=window, layer=checkpoint.record.layer)
    checkpoint.task_head = None
    return checkpoint


def _plan(
    options: PretrainOptions,
    objective: MaskedLM,
    batches: PretrainingPlan,
    meter: PerplexityMeter,
    pool: WorkerPool,
    began: float,
) -> TrainingPlan:
    """Decide the number of steps: as asked for, as many as fit into the minutes, or ten passes over the data."""
    config = options.pretrain
    num_steps = config.steps or max(_MIN_DEFAULT_STEPS, _DEFAULT_PASSES * batches.steps_per_epoch)
    plan = plan_training(
        options.optimizer, num_steps, validate_every=config.validate_every, save_every=config.save_every
    )
    if config.max_minutes is None:
        return plan
    meter_began = time.monotonic()
    meter.measure()
    meter_seconds = time.monotonic() - meter_began
    step_seconds = measure_seconds_per_step(objective, batches, options.optimizer, plan.clip_norm, pool)
    seconds_left = began + config.max_minutes * 60 * _TIME_SHARE - time.monotonic()
    if config.validate_every is not None:
        num_steps = int(seconds_left / (step_seconds + meter_seconds / config.validate_every))
        return plan_training(
            options.optimizer, max(1, num_steps), validate_every=config.validate_every, save_every=config.save_every
        )
    num_affordable = int(_MAX_VALIDATION_SHARE * seconds_left / meter_seconds)
    num_validations = max(1, min(NUM_DEFAULT_VALIDATIONS, num_affordable))
    num_steps = max(1, int((seconds_left - num_validations * meter_seconds) / step_seconds))
    validate_every = math.ceil(num_steps / num_validations)
    return plan_training(options.optimizer, num_steps, validate_every=validate_every, save_every=config.save_every)


def _log_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "residues": report.num_residues,
        "train_loss": report.train_loss,
        "learning_rate": report.learning_rate,
        "residues_per_second": round(report.residues_per_second, 1),
        **(report.validation or {}),
    }


def _export(
    checkpoint: Checkpoint, corpora: Corpora, options: PretrainOptions, report: StepReport, directory: Path
) -> None:
    """Write the model as it stands, the best so far, as a Hugging Face directory."""
    measured = dict(report.validation or {})
    checkpoint.record = replace(
        checkpoint.record,
        configuration=_settings(options),
        corpus_fingerprint=corpora.train.fingerprint,
        metrics={"step": report.step, "residues_seen": report.num_residues, **measured},
    )
    facts = {
        "trained on": f"{len(corpora.train):,} proteins, {corpora.train.num_residues:,} residues",
        "residues seen": f"{report.num_residues:,} in {report.step:,} steps",
        "crops": f"{options.batches.crop_residues} residues, {options.masking.mask_rate:.0%} masked",
        "optimiser": options.optimizer.optimizer,
        "validation": f"perplexity {measured['valid_perplexity']:.2f} over 20 amino acids, 15 % of the residues "
        f"hidden, windows of {checkpoint.record.window_residues} residues",
        "to compare": f"unigram {measured['unigram_perplexity']:.2f}, bigram {measured['bigram_perplexity']:.2f}, "
        "knowing nothing 20",
    }
    save_checkpoint(checkpoint, directory, pretrained_card(checkpoint, facts))


def _summary(run: RunDirectory, state: RunState, plan: TrainingPlan, meter: PerplexityMeter) -> PretrainSummary:
    progress = state.progress
    return PretrainSummary(
        model=run.path("model") if run.has("model") else None,
        num_steps=progress.step,
        num_residues=progress.num_residues,
        num_skipped=progress.num_skipped,
        best_step=progress.best_step,
        valid_loss=progress.best_loss,
        valid_perplexity=None if progress.best_loss is None else perplexity(progress.best_loss),
        unigram_loss=meter.unigram_loss,
        is_finished=progress.step == plan.num_steps,
    )
