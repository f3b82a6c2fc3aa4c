"""Pretraining: from FASTA files to a run directory with a model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.common import OptimizerName
from protembed.config.model_sizes import DEFAULT_SIZE, SIZES
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.data.batching import MaskedBatch
from protembed.device import choose_device, choose_precision, default_micro_batch_tokens, total_memory, worker_pool
from protembed.errors import NotEnoughMemoryError
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import ClassMetrics
from protembed.io.reading import (
    PathLike,
    as_paths,
    check_inputs,
    default_path,
    follow_link,
    is_stream,
    sha256_of_inputs,
    unchanged_inputs,
)
from protembed.io.result import check_not_an_input, check_utf8_path
from protembed.io.writing import scratch_directory, write_table
from protembed.model.card import pretrained_card
from protembed.model.catalog import locate_model, model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.metadata import ModelMetadata
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.clusters import DEFAULT_CLUSTER_COLUMN, ClusterSource
from protembed.pretraining.corpus import build_corpora, open_corpora
from protembed.pretraining.ngrams import NgramModel
from protembed.pretraining.report import PretrainPlan, PretrainSummary, pretraining_facts
from protembed.pretraining.timing import StepTiming, TimeBudget, time_steps
from protembed.pretraining.validation import (
    References,
    ValidationSet,
    Validator,
    evaluate_by_amino_acid,
    gains_over_references,
    perplexity,
    reference_losses,
)
from protembed.report.figures import draw_training
from protembed.training.checkpoints import Checkpoints
from protembed.training.distributed import SINGLE_PROCESS, Executor, ProcessGroup, joined_processes
from protembed.training.loop import StepReport, TrainingSetup, train
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers
from protembed.training.run_directory import RunDirectory
from protembed.training.schedule import TrainingSchedule, make_schedule

BYTES_PER_NUMBER = 4
# Weights, their gradients, the gradients of one micro-batch, and at least one number of the optimiser for each weight.
_MIN_NUMBERS_PER_WEIGHT = 4
# Numbers of a checkpoint for each weight: the weight itself and the state of the optimiser.
_CHECKPOINT_NUMBERS_PER_WEIGHT: dict[OptimizerName, int] = {"sgd": 1, "muon": 2, "adamw": 3}
_DEFAULT_PASSES, _MIN_DEFAULT_STEPS = 10, 200
# Chosen at equal time (benchmarks/README.md); the first is the default.
_DEFAULT_RATES: dict[OptimizerName, float] = {"muon": 3e-3, "adamw": 1e-3, "sgd": 0.1}
# Options that change neither the weights nor any metric.
_NOT_IN_FINGERPRINT = ("save_every_minutes", "keep_checkpoints", "dry_run")


# The model


def check_memory(config: PretrainConfig, device: torch.device) -> None:
    """Check that a new model can be trained on a device, before any other work.

    Raises:
        NotEnoughMemoryError: If the device has less memory than the weights, gradients and optimiser states need.
    """
    if config.init_from is not None:
        return
    size = config.size or DEFAULT_SIZE
    needed = _MIN_NUMBERS_PER_WEIGHT * SIZES[size].num_parameters * BYTES_PER_NUMBER
    available = total_memory(device)
    if needed > available:
        raise NotEnoughMemoryError(size, needed, available)


def initial_model(config: PretrainConfig, crop_residues: int) -> Checkpoint:
    """Make a new model, or load the model to start from, and record the window of the training to come.

    A model to start from keeps its rotary frequencies.

    Args:
        config: Size, initialisation and seed of a new model, or the model to start from.
        crop_residues: Length of the longest crop.

    Raises:
        InputNotFoundError: If the model to start from does not exist.
        ModelFormatError: If it is damaged, not ESM-2, or has no masked-LM head.
    """
    if config.init_from is None:
        checkpoint = new_checkpoint(SIZES[config.size or DEFAULT_SIZE], config.weight_init, config.seed)
        checkpoint.metadata = ModelMetadata(window_residues=crop_residues)
        return checkpoint
    checkpoint = load_checkpoint(config.init_from)
    checkpoint.require_lm_head()
    window = max(checkpoint.metadata.window_residues, crop_residues)
    checkpoint.metadata = ModelMetadata(window_residues=window, layer=checkpoint.metadata.layer)
    checkpoint.task_head = None
    return checkpoint


def _masked_lm(checkpoint: Checkpoint) -> MaskedLM:
    return MaskedLM(checkpoint.encoder, checkpoint.require_lm_head())


def _micro_batch_tokens(config: BatchConfig, device: torch.device, processes: ProcessGroup) -> int:
    """Choose the size of micro-batches, so that every process has at least one per step."""
    per_process = -(-config.batch_tokens // processes.size)
    return config.micro_batch_tokens or min(default_micro_batch_tokens(device), per_process)


# The run directory


def _settings(options: PretrainOptions) -> dict[str, Any]:
    """Collect the options that shape the result, except paths."""
    configs = (options.pretrain, options.batches, options.masking, options.optimizer, options.reader)
    return {
        name: value
        for config in configs
        for name, value in as_plain_values(config).items()
        if name not in _NOT_IN_FINGERPRINT
    }


def _fingerprint(fasta: Sequence[Path], options: PretrainOptions) -> dict[str, Any]:
    """Collect what identifies a run: the options that shape the result, and the hashes of the inputs."""
    config = options.pretrain
    return {
        **_settings(options),
        "fasta": sha256_of_inputs(fasta),
        "valid": sha256_of_inputs(config.valid),
        "clusters": None if config.clusters is None else sha256_of_inputs([config.clusters]),
        "init_from": None if config.init_from is None else locate_model(config.init_from).sha256(),
        "compare_model": None if config.compare_model is None else locate_model(config.compare_model).sha256(),
    }


def _open_or_create_run(run: RunDirectory, fasta: Sequence[Path], options: PretrainOptions) -> list[str]:
    """Create a run and store its proteins, or open the existing one; return warnings about the input."""
    config, warnings = options.pretrain, list[str]()
    clusters = (
        None
        if config.clusters is None
        else ClusterSource(path=config.clusters, column=config.cluster_column or DEFAULT_CLUSTER_COLUMN)
    )

    def store_corpora(directory: Path) -> None:
        corpora = directory / "corpus"
        on_illegal = options.reader.on_illegal
        warnings.extend(build_corpora(corpora, fasta, config.valid, clusters=clusters, on_illegal=on_illegal))
        check_inputs()

    is_resumed = run.contains("run.json") and not config.force
    with unchanged_inputs():
        run.open(_fingerprint(fasta, options), store_corpora, force=config.force)
    if is_resumed and any(map(is_stream, (*fasta, *config.valid))):
        warnings.append("the pipe is not read again: the resumed run uses the proteins that it stored")
    if is_resumed and config.max_minutes is not None:
        warnings.append("--max-minutes was converted to steps when the run began; the remaining steps are taken now")
    return warnings


# The run


class _Pretraining:
    """A pretraining run, scheduled and restored from its newest checkpoint.

    Args:
        run: Run directory, open, with its corpora.
        options: All options.
        executor: Threads, processes and precision.
        device: Device of the model.
        started: Time at which the command started, from `time.monotonic`.
        warnings: Warnings about the input, as sentences.
    """

    def __init__(
        self,
        run: RunDirectory,
        options: PretrainOptions,
        executor: Executor,
        device: torch.device,
        started: float,
        warnings: Sequence[str],
    ) -> None:
        config, self._run, self._options = options.pretrain, run, options
        self._executor, self._is_first = executor, executor.processes.is_first
        self._corpora = open_corpora(run.path("corpus"))
        self._checkpoint = initial_model(config, options.batches.crop_residues).to(device)
        objective, window = _masked_lm(self._checkpoint), self._checkpoint.metadata.window_residues
        tokens = _micro_batch_tokens(options.batches, device, executor.processes)
        self._batches = PretrainingBatches(self._corpora.train, options.batches, tokens, options.masking, config.seed)
        self._valid_sets = [ValidationSet.from_corpus(corpus, window, tokens) for corpus in self._corpora.valid]
        self._references: References = run.load_or_compute("references", self._compute_references)
        self._validator = Validator(objective, self._valid_sets, self._references, executor)
        self._timing: StepTiming | None = None
        self._budget: TimeBudget | None = None
        setup = TrainingSetup(
            objective=objective, micro_batches=self._batches.micro_batches, optimizers=[], executor=executor
        )
        schedule = run.load_or_compute("plan", lambda: asdict(self._make_schedule(setup, started)))
        self._schedule = TrainingSchedule(**schedule)
        optimizers = make_optimizers(objective, self._schedule.optimizer, self._schedule.weight_decay, executor.pool)
        self._setup = replace(setup, optimizers=optimizers)
        self._checkpoints = Checkpoints(
            run.path(""),
            num_checkpoints=config.keep_checkpoints,
            save_seconds=config.save_every_minutes * 60,
            processes=executor.processes,
        )
        skipped_checkpoints = self._checkpoints.restore(objective, optimizers)
        self._warnings = [*warnings, *self._checkpoint.warnings, *skipped_checkpoints]
        run.truncate_log(self._checkpoints.progress.step)

    def _compute_references(self) -> References:
        return reference_losses(self._corpora, self._valid_sets, self._load_compared_model(), self._executor)

    def _load_compared_model(self) -> MaskedLM | None:
        path = self._options.pretrain.compare_model
        return None if path is None else _masked_lm(load_checkpoint(path).to(self._checkpoint.device))

    def _make_schedule(self, setup: TrainingSetup[MaskedBatch], started: float) -> TrainingSchedule:
        """Schedule the steps asked for, as many as fit into the minutes, or about ten passes over the data."""
        config = self._options.pretrain
        num_steps = config.steps or max(_MIN_DEFAULT_STEPS, _DEFAULT_PASSES * self._batches.steps_per_epoch)

        def schedule_steps(num_steps: int, validate_every: int | None = config.validate_every) -> TrainingSchedule:
            return make_schedule(
                self._options.optimizer,
                num_steps,
                _DEFAULT_RATES,
                validate_every=validate_every,
                save_every=config.save_every,
                patience=config.patience,
            )

        schedule = schedule_steps(num_steps)
        if config.max_minutes is not None or config.dry_run:
            self._timing = time_steps(setup, schedule, self._validator.num_residues)
        if self._timing is None or config.max_minutes is None:
            return schedule
        self._budget = TimeBudget(started, config.max_minutes)
        return self._budget.plan_within(schedule_steps, self._timing, config.validate_every)

    def plan(self) -> PretrainPlan:
        """Return the plan of the run, for the user."""
        train = self._corpora.train
        return PretrainPlan(
            output=self._run.path(""),
            num_parameters=self._checkpoint.num_parameters,
            num_proteins=len(train),
            num_residues=train.num_residues,
            num_clusters=None if train.clusters is None else len(train.clusters),
            cropped_fraction=float((train.lengths > self._options.batches.crop_residues).mean()),
            valid_sets={valid_set.name: valid_set.num_proteins for valid_set in self._valid_sets},
            window_residues=self._checkpoint.metadata.window_residues,
            references=self._references,
            num_steps=self._schedule.num_steps,
            steps_per_pass=self._batches.steps_per_epoch,
            first_step=self._checkpoints.progress.step,
            optimizer=self._schedule.optimizer,
            learning_rate=self._schedule.learning_rate,
            disk_bytes=self._estimate_disk_bytes(),
            seconds=None if self._timing is None else self._timing.seconds(self._schedule),
            memory_bytes=None if self._timing is None else self._timing.memory_bytes,
            warnings=self._warnings,
        )

    def _estimate_disk_bytes(self) -> int:
        num_checkpoints = self._options.pretrain.keep_checkpoints
        per_weight = 1 + num_checkpoints * _CHECKPOINT_NUMBERS_PER_WEIGHT[self._schedule.optimizer]
        corpora = [self._corpora.train, *self._corpora.valid]
        corpus_bytes = sum(corpus.tokens.nbytes + corpus.offsets.nbytes for corpus in corpora)
        return self._checkpoint.num_parameters * BYTES_PER_NUMBER * per_weight + corpus_bytes

    def run(self, stop: Callable[[], bool]) -> Iterator[StepReport]:
        """Train to the end, write the log and the best model, and yield a report after each step."""
        for report in train(
            self._setup,
            self._schedule,
            self._checkpoints,
            validate=self._validator.measure,
            replan=self._replan,
            stop=stop,
        ):
            self._run.log(report.log_line())
            if report.is_best and self._is_first:
                self._export(report)
            yield report
        if self._is_first:
            draw_training(self._run.path("training.png"), self._run.read_log())

    def _replan(self, schedule: TrainingSchedule, step: int) -> TrainingSchedule:
        """Correct the number of steps of a run limited by time; all processes follow the first."""
        if self._budget is None or not self._budget.should_replan(schedule, step):
            return schedule
        self._schedule = TrainingSchedule(**self._run.store("plan", asdict(self._budget.replan(schedule, step))))
        return self._schedule

    def _export(self, report: StepReport) -> None:
        """Write the current model, the best so far, as a Hugging Face directory."""
        base = self._options.pretrain.init_from
        self._checkpoint.metadata = replace(
            self._checkpoint.metadata,
            configuration={**_settings(self._options), "from_model": None if base is None else model_name(base)},
            corpus_fingerprint=self._corpora.train.fingerprint,
            metrics={"step": report.step, "residues_seen": report.num_residues, **(report.validation or {})},
        )
        self._save_model(self._checkpoint)

    def _save_model(self, checkpoint: Checkpoint) -> None:
        facts = pretraining_facts(
            checkpoint.metadata, self._corpora.train, self._options.batches, self._options.masking, self._schedule
        )
        save_checkpoint(checkpoint, self._run.path("model"), pretrained_card(checkpoint, facts))

    def _load_best(self) -> Checkpoint:
        return load_checkpoint(self._run.path("model")).to(self._checkpoint.device)

    def summary(self) -> PretrainSummary:
        """Return the summary of the run; if it is finished, evaluate its best model in detail."""
        progress = self._checkpoints.progress
        amino_acids, gains = list[ClassMetrics](), dict[str, Any]()
        is_finished = progress.is_finished(self._schedule.num_steps, self._schedule.patience)
        if is_finished:
            amino_acids = self._evaluate_by_amino_acid() if self._is_first else []
            gains = self._run.load_or_compute("gains", lambda: self._compute_gains() if self._is_first else {})
            if self._is_first and gains:
                draw_training(self._run.path("training.png"), self._run.read_log(), gains)
        self._executor.processes.barrier()
        return PretrainSummary(
            model=self._run.path("model") if self._run.contains("model") else None,
            num_steps=progress.step,
            num_residues=progress.num_residues,
            num_skipped=progress.num_skipped,
            best_step=progress.best_step,
            valid_loss=progress.best_loss,
            valid_perplexity=None if progress.best_loss is None else perplexity(progress.best_loss),
            references=self._references[self._valid_sets[0].name],
            num_valid_proteins=self._valid_sets[0].num_proteins,
            gains={name: MetricWithInterval(**gain) for name, gain in gains.items()},
            amino_acids=amino_acids,
            is_finished=is_finished,
        )

    def _evaluate_by_amino_acid(self) -> list[ClassMetrics]:
        metrics = evaluate_by_amino_acid(_masked_lm(self._load_best()), self._valid_sets[0], self._executor)
        columns = ["amino_acid", "masked", "loss", "accuracy", "top_confusion"]
        write_table(self._run.path("amino_acids.tsv"), columns, map(astuple, metrics))
        return metrics

    def _compute_gains(self) -> dict[str, Any]:
        """Compare the best model with its references protein by protein, and store the gains in its metadata."""
        best, ngrams = self._load_best(), NgramModel(self._corpora.train)
        compared = self._load_compared_model()
        scores = gains_over_references(_masked_lm(best), self._valid_sets[0], ngrams, compared, self._executor)
        gains = {name: asdict(score) for name, score in scores.items()}
        best.metadata = replace(best.metadata, metrics={**best.metadata.metrics, "gains": gains})
        self._save_model(best)
        return gains


@contextmanager
def _open_training(
    run: RunDirectory, fasta: Sequence[Path], options: PretrainOptions, processes: ProcessGroup = SINGLE_PROCESS
) -> Iterator[_Pretraining]:
    """Begin a run, or resume the existing one."""
    started, device = time.monotonic(), choose_device(options.compute)
    precision = choose_precision(options.pretrain.precision, device)
    warnings = _open_or_create_run(run, fasta, options)
    with worker_pool(options.compute, device) as pool:
        executor = Executor(pool=pool, processes=processes, precision=precision)
        yield _Pretraining(run, options, executor, device, started, warnings)


def pretrain_model(
    fasta: Sequence[PathLike], options: PretrainOptions | None = None, callbacks: Callbacks | None = None
) -> PretrainSummary | None:
    """Train an encoder to predict masked amino acids; the same call resumes an interrupted run.

    Under torchrun all processes make the same call and share the work.

    Args:
        fasta: FASTA files of the training proteins; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan and the report of each step, and may stop the run.

    Returns:
        Where the model is and how good it is; None after a dry run, which leaves no files.

    Raises:
        ProtembedError: If the input, the options or the run directory do not allow it; see `protembed.errors`.
    """
    options, callbacks, files = options or PretrainOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    config = options.pretrain
    output = follow_link(config.output or default_path(files[0], ".run"))
    models = [model for model in (config.init_from, config.compare_model) if model is not None]
    check_utf8_path(output)
    check_not_an_input(output, [*files, *config.valid, *models])
    device = choose_device(options.compute)
    check_memory(config, device)
    with joined_processes(device) as processes:
        if config.dry_run:
            with (
                scratch_directory() as scratch,
                _open_training(RunDirectory(scratch / "run"), files, options) as dry_run,
            ):
                callbacks.on_plan(replace(dry_run.plan(), output=output))
            return None
        run = RunDirectory(output, processes)
        with run.locked(), _open_training(run, files, options, processes) as training:
            callbacks.on_plan(training.plan())
            for report in training.run(callbacks.stop):
                callbacks.on_step(report)
            return training.summary()
