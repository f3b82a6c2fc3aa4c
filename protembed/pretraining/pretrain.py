"""Pretraining: from FASTA files to a run directory with a model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from protembed.config.base import as_plain_values
from protembed.config.common import DeviceConfig, InputConfig, OptimizerConfig, OptimizerName
from protembed.config.model_sizes import DEFAULT_SIZE, SIZES
from protembed.config.pretrain import BatchConfig, MaskingConfig, PretrainConfig
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
from protembed.model.catalog import find_model, model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint, model_sha256, new_checkpoint, save_checkpoint
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
from protembed.training.loop import StepReport, TrainingSchedule, TrainingSetup, make_schedule, train
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers
from protembed.training.run_directory import RunDirectory

BYTES_PER_NUMBER = 4
# Weights, the sum of the gradients, those of one micro-batch, and at least one number of the optimiser's for each
# weight.
_MIN_NUMBERS_PER_WEIGHT = 4


def check_memory(config: PretrainConfig, device: torch.device) -> None:
    """Refuse a new model that cannot fit, before any work.

    Raises:
        NotEnoughMemoryError: weights, gradients and the optimiser's numbers need more than there is.
    """
    if config.init_from is not None:
        return
    size = config.size or DEFAULT_SIZE
    needed = _MIN_NUMBERS_PER_WEIGHT * SIZES[size].num_parameters * BYTES_PER_NUMBER
    available = total_memory(device)
    if needed > available:
        raise NotEnoughMemoryError(size, needed, available)


def initial_model(config: PretrainConfig, crop_residues: int) -> Checkpoint:
    """Make a new model, or read the one to go on from; it records the window that it will have been trained on.

    The model to go on from keeps its rotary frequencies.

    Args:
        config: size, initialisation and seed, or the model to go on from.
        crop_residues: the longest crop.

    Raises:
        InputNotFoundError: the model to go on from is not there.
        ModelFormatError: it is damaged, no ESM-2, or has no masked-LM head.
    """
    if config.init_from is None:
        checkpoint = new_checkpoint(SIZES[config.size or DEFAULT_SIZE], config.weight_init, config.seed)
        checkpoint.metadata = ModelMetadata(window_residues=crop_residues)
        return checkpoint
    checkpoint = load_checkpoint(find_model(config.init_from))
    checkpoint.require_lm_head()
    window = max(checkpoint.metadata.window_residues, crop_residues)
    checkpoint.metadata = ModelMetadata(window_residues=window, layer=checkpoint.metadata.layer)
    checkpoint.task_head = None
    return checkpoint


_DEFAULT_PASSES, _MIN_DEFAULT_STEPS = 10, 200
# Chosen at equal time (benchmarks/README.md); the first is the default.
_DEFAULT_RATES: dict[OptimizerName, float] = {"muon": 3e-3, "adamw": 1e-3, "sgd": 0.1}
# What decides when something is written down or shown, and changes no number.
_NOT_IN_FINGERPRINT = ("save_every_minutes", "keep_checkpoints", "dry_run")


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """All options of a pretraining."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: DeviceConfig = field(default_factory=DeviceConfig)


def pretrain_model(
    fasta: Sequence[PathLike],
    options: PretrainOptions,
    *,
    on_plan: Callable[[PretrainPlan], None] = lambda plan: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    stop: Callable[[], bool] = lambda: False,
) -> PretrainSummary | None:
    """Train an encoder to predict hidden amino acids; the same call takes up a run that was interrupted.

    Under torchrun all processes call it alike, and share the work.

    Args:
        fasta: the proteins to train on; `-` is stdin.
        options: of the command.
        on_plan: told once, before the first step.
        on_step: told after each step.
        stop: asked after each step; when true the run is saved and left.

    Returns:
        Where the model is and how good it is; None after `--dry-run`, which leaves nothing behind.

    Raises:
        ProtembedError: the input, the options or the run directory do not allow it; see `protembed.errors`.
    """
    config = options.pretrain
    files = as_paths("fasta", fasta)
    output = follow_link(config.output or default_path(files[0], ".run"))
    models = [model for model in (config.init_from, config.compare_model) if model is not None]
    check_utf8_path(output)
    check_not_an_input(output, [*files, *config.valid, *models])
    device = choose_device(options.compute)
    check_memory(config, device)
    with joined_processes(device) as processes:
        if config.dry_run:
            with scratch_directory() as scratch, _begun(RunDirectory(scratch / "run"), files, options) as training:
                on_plan(replace(training.announcement(), output=output))
            return None
        run = RunDirectory(output, processes)
        with run.locked(), _begun(run, files, options, processes) as training:
            on_plan(training.announcement())
            for report in training.reports(stop):
                on_step(report)
            return training.summary()


@contextmanager
def _begun(
    run: RunDirectory, fasta: Sequence[Path], options: PretrainOptions, processes: ProcessGroup = SINGLE_PROCESS
) -> Iterator["_Pretraining"]:
    """Begin a run, or take up the one that is there."""
    began, device = time.monotonic(), choose_device(options.compute)
    precision = choose_precision(options.pretrain.precision, device)
    warnings = _open_run(run, fasta, options)
    with worker_pool(options.compute, device) as pool:
        compute = Executor(pool=pool, processes=processes, precision=precision)
        yield _Pretraining(run, options, compute, device, began, warnings)


class _Pretraining:
    """A run that is planned and restored, and can be trained to its end.

    Args:
        run: opened, its corpora stored.
        options: of the command.
        executor: who computes.
        device: where the model is.
        began: when the command began, by `time.monotonic`.
        warnings: about the input, to be announced.
    """

    def __init__(
        self,
        run: RunDirectory,
        options: PretrainOptions,
        compute: Executor,
        device: torch.device,
        began: float,
        warnings: Sequence[str],
    ) -> None:
        config, self._run, self._options = options.pretrain, run, options
        self._corpora = open_corpora(run.path("corpus"))
        micro_batch_tokens = options.batches.micro_batch_tokens or min(
            default_micro_batch_tokens(device),
            -(-options.batches.batch_tokens // compute.processes.size),  # no process without a micro-batch
        )
        self._checkpoint = initial_model(config, options.batches.crop_residues).to(device)
        objective = MaskedLM(self._checkpoint.encoder, self._checkpoint.require_lm_head())
        self._batches = PretrainingBatches(
            self._corpora.train, options.batches, micro_batch_tokens, options.masking, config.seed
        )
        window = self._checkpoint.metadata.window_residues
        self._sets = [ValidationSet.from_corpus(corpus, window, micro_batch_tokens) for corpus in self._corpora.valid]
        self._references: References = run.load_or_compute("references", lambda: self._measure_references(compute))
        self._meter = Validator(objective, self._sets, self._references, compute)
        self._training = TrainingSetup(objective=objective, batches=self._batches, optimizers=[], executor=compute)
        self._pace: StepTiming | None = None
        self._budget: TimeBudget | None = None
        self._plan = TrainingSchedule(**run.load_or_compute("plan", lambda: asdict(self._decide_plan(began))))
        optimizers = make_optimizers(objective, self._plan.optimizer, self._plan.weight_decay, compute.pool)
        self._training = replace(self._training, optimizers=optimizers)
        self._state = Checkpoints(
            run.path(""),
            num_checkpoints=config.keep_checkpoints,
            save_seconds=config.save_every_minutes * 60,
            processes=compute.processes,
        )
        self._warnings = [*warnings, *self._checkpoint.warnings, *self._state.restore(objective, optimizers)]
        run.truncate_log(self._state.progress.step)

    def _measure_references(self, compute: Executor) -> References:
        return reference_losses(self._corpora, self._sets, self._compared_model(), compute)

    def _compared_model(self) -> MaskedLM | None:
        if self._options.pretrain.compare_model is None:
            return None
        checkpoint = load_checkpoint(find_model(self._options.pretrain.compare_model)).to(self._checkpoint.device)
        return MaskedLM(checkpoint.encoder, checkpoint.require_lm_head())

    def _decide_plan(self, began: float) -> TrainingSchedule:
        """Decide the number of steps: as asked for, as many as fit into the minutes, or ten passes over the data."""
        config = self._options.pretrain
        num_steps = config.steps or max(_MIN_DEFAULT_STEPS, _DEFAULT_PASSES * self._batches.steps_per_epoch)

        def plan_of(num_steps: int, validate_every: int | None = config.validate_every) -> TrainingSchedule:
            return make_schedule(
                self._options.optimizer,
                num_steps,
                _DEFAULT_RATES,
                validate_every=validate_every,
                save_every=config.save_every,
                patience=config.patience,
            )

        plan = plan_of(num_steps)
        if config.max_minutes is not None or config.dry_run:
            self._pace = time_steps(self._training, plan, self._meter.num_residues)
        if self._pace is None or config.max_minutes is None:
            return plan
        self._budget = TimeBudget(began, config.max_minutes)
        return self._budget.plan_within(plan_of, self._pace, config.validate_every)

    def announcement(self) -> PretrainPlan:
        """Say what the run is going to do."""
        config, train = self._options.pretrain, self._corpora.train
        return PretrainPlan(
            output=self._run.path(""),
            num_parameters=self._checkpoint.num_parameters,
            num_proteins=len(train),
            num_residues=train.num_residues,
            num_clusters=None if train.clusters is None else len(train.clusters),
            cropped_fraction=float((train.lengths > self._options.batches.crop_residues).mean()),
            valid_sets={part.name: part.num_proteins for part in self._sets},
            window_residues=self._checkpoint.metadata.window_residues,
            references=self._references,
            num_steps=self._plan.num_steps,
            steps_per_pass=self._batches.steps_per_epoch,
            first_step=self._state.progress.step,
            optimizer=self._plan.optimizer,
            learning_rate=self._plan.learning_rate,
            disk_bytes=self._disk_bytes(config.keep_checkpoints),
            seconds=None if self._pace is None else self._pace.seconds(self._plan),
            memory_bytes=None if self._pace is None else self._pace.memory_bytes,
            warnings=self._warnings,
        )

    def _disk_bytes(self, num_checkpoints: int) -> int:
        # A checkpoint holds the weights and, but for sgd, one or two numbers more for each of them.
        per_weight = {"sgd": 1, "muon": 2, "adamw": 3}[self._plan.optimizer]
        weights = self._checkpoint.num_parameters * BYTES_PER_NUMBER
        corpora = [self._corpora.train, *self._corpora.valid]
        return weights * (1 + num_checkpoints * per_weight) + sum(
            corpus.tokens.nbytes + corpus.offsets.nbytes for corpus in corpora
        )

    def reports(self, stop: Callable[[], bool]) -> Iterator[StepReport]:
        """Train, keeping the log and the best model; yield a report after each step."""
        is_first = self._training.executor.processes.is_first
        for report in train(
            self._training, self._plan, self._state, validate=self._meter.measure, replan=self._replan, stop=stop
        ):
            self._run.log(report.log_line())
            if report.is_best and is_first:
                self._export(report)
            yield report
        if is_first:
            draw_training(self._run.path("training.png"), self._run.read_log())

    def _replan(self, plan: TrainingSchedule, step: int) -> TrainingSchedule:
        """Correct a plan for a number of minutes by the pace of the run itself; all processes follow the first."""
        if self._budget is None or not self._budget.should_replan(plan, step):
            return plan
        corrected = self._run.store("plan", asdict(self._budget.replan(plan, step)))
        self._plan = TrainingSchedule(**corrected)
        return self._plan

    def _export(self, report: StepReport) -> None:
        """Write the model as it stands, the best so far, as a Hugging Face directory."""
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
            checkpoint.metadata, self._corpora.train, self._options.batches, self._options.masking, self._plan
        )
        save_checkpoint(checkpoint, self._run.path("model"), pretrained_card(checkpoint, facts))

    def summary(self) -> PretrainSummary:
        """Say what the run has come to, and when it is finished measure its best model on each amino acid."""
        progress = self._state.progress
        is_finished = progress.is_finished(self._plan.num_steps, self._plan.patience)
        is_first = self._training.executor.processes.is_first
        amino_acids = self._amino_acids() if is_finished and is_first else []
        gains = (
            self._run.load_or_compute("gains", lambda: self._measure_gains() if is_first else {}) if is_finished else {}
        )
        if is_first and gains:
            draw_training(self._run.path("training.png"), self._run.read_log(), gains)
        self._training.executor.processes.barrier()
        return PretrainSummary(
            model=self._run.path("model") if self._run.contains("model") else None,
            num_steps=progress.step,
            num_residues=progress.num_residues,
            num_skipped=progress.num_skipped,
            best_step=progress.best_step,
            valid_loss=progress.best_loss,
            valid_perplexity=None if progress.best_loss is None else perplexity(progress.best_loss),
            references=self._references[self._sets[0].name],
            num_valid_proteins=self._sets[0].num_proteins,
            gains={name: MetricWithInterval(**gain) for name, gain in gains.items()},
            amino_acids=amino_acids,
            is_finished=is_finished,
        )

    def _measure_gains(self) -> dict[str, Any]:
        """Measure the best model against its references protein by protein, and record this with the model."""
        best = load_checkpoint(self._run.path("model")).to(self._checkpoint.device)
        scores = gains_over_references(
            MaskedLM(best.encoder, best.require_lm_head()),
            self._sets[0],
            NgramModel(self._corpora.train),
            self._compared_model(),
            self._training.executor,
        )
        gains = {name: asdict(score) for name, score in scores.items()}
        best.metadata = replace(best.metadata, metrics={**best.metadata.metrics, "gains": gains})
        self._save_model(best)
        return gains

    def _amino_acids(self) -> list[ClassMetrics]:
        best = load_checkpoint(self._run.path("model")).to(self._checkpoint.device)
        figures = evaluate_by_amino_acid(
            MaskedLM(best.encoder, best.require_lm_head()), self._sets[0], self._training.executor
        )
        write_table(
            self._run.path("amino_acids.tsv"),
            ["amino_acid", "hidden", "loss", "accuracy", "mistaken_for"],
            (astuple(amino_acid) for amino_acid in figures),
        )
        return figures


def _open_run(run: RunDirectory, fasta: Sequence[Path], options: PretrainOptions) -> list[str]:
    """Begin a run by storing its proteins, or take up the one that is there; return warnings about the input."""
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
        run.open(_identity(fasta, options), store_corpora, force=config.force)
    if is_resumed and any(map(is_stream, (*fasta, *config.valid))):
        warnings.append("a pipe is not read again: the run goes on with the proteins that it stored at its beginning")
    if is_resumed and config.max_minutes is not None:
        warnings.append("--max-minutes was turned into steps when the run began; those that are left are taken now")
    return warnings


def _identity(fasta: Sequence[Path], options: PretrainOptions) -> dict[str, Any]:
    """Collect what makes two runs the same: settings that shape the result, and the bytes of the inputs."""
    config = options.pretrain
    return {
        **_settings(options),
        "fasta": sha256_of_inputs(fasta),
        "valid": sha256_of_inputs(config.valid),
        "clusters": None if config.clusters is None else sha256_of_inputs([config.clusters]),
        "init_from": None if config.init_from is None else model_sha256(find_model(config.init_from)),
        "compare_model": None if config.compare_model is None else model_sha256(find_model(config.compare_model)),
    }


def _settings(options: PretrainOptions) -> dict[str, Any]:
    parts = (options.pretrain, options.batches, options.masking, options.optimizer, options.reader)
    return {
        name: value
        for part in parts
        for name, value in as_plain_values(part).items()
        if name not in _NOT_IN_FINGERPRINT
    }
