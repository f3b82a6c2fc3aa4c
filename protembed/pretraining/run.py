"""A run of pretraining: the data, the model and the schedule; training, evaluation and what is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks, StepReport
from protembed.config.common import OptimizerName
from protembed.config.model_sizes import BYTES_PER_NUMBER
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.data.batching import MaskedBatch
from protembed.data.clusters import ClusterTable
from protembed.device import WorkerPool, choose_device, worker_pool
from protembed.errors import DivergedError
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import ClassMetrics
from protembed.io.reading import (
    check_inputs,
    is_stream,
)
from protembed.io.result import RUN, Result
from protembed.io.writing import scratch_directory, write_table
from protembed.model.card import pretrained_card
from protembed.model.catalog import model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from protembed.pretraining.amino_acids import AminoAcidPredictions
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.compilation import compile_training
from protembed.pretraining.corpus import Corpora, build_corpora, open_corpora
from protembed.pretraining.initial_model import (
    check_models,
    decide_sharding,
    default_training_tokens,
    initial_model,
    masked_lm,
    training_objective,
)
from protembed.pretraining.report import FINISHED, PretrainPlan, PretrainSummary, finished_record, pretraining_facts
from protembed.pretraining.request import settings_of
from protembed.pretraining.run_record import RunRecord
from protembed.pretraining.run_report import RunReport
from protembed.pretraining.schedule import plan_schedule
from protembed.pretraining.timing import StepTiming, TimeBudget, time_steps
from protembed.pretraining.validation import (
    Evaluator,
    References,
    ValidationSet,
    perplexity,
    validates_in_bfloat16,
)
from protembed.training.checkpoints import Checkpoints
from protembed.training.compilation import compiler_directory
from protembed.training.distributed import SINGLE_PROCESS, Executor, ProcessGroup, joined_processes
from protembed.training.loop import TrainingSetup, train
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers
from protembed.training.precision import precision_name, resolve_precision
from protembed.training.run_directory import RunDirectory
from protembed.training.schedule import TrainingSchedule
from protembed.training.sharding import gathered_weights
from protembed.training.tensorboard import EventWriter, event_writer

# The key of `run.json` that holds how the best model predicts each amino acid.
_AMINO_ACIDS = "amino_acids"
# The key of `run.json` that holds the metrics of the best model in float32, if validations were less precise.
_EXACT_METRICS = "exact_metrics"
# Numbers of a checkpoint for each weight: the weight itself and the state of the optimiser.
_CHECKPOINT_NUMBERS_PER_WEIGHT: dict[OptimizerName, int] = {"sgd": 1, "muon": 2, "adamw": 3}


@contextmanager
def _opened(
    result: Result,
    fasta: Sequence[Path],
    options: PretrainOptions,
    fingerprint: Mapping[str, Any],
    processes: ProcessGroup = SINGLE_PROCESS,
    callbacks: Callbacks | None = None,
) -> Iterator[tuple[RunDirectory, list[str]]]:
    """Begin a run and store its proteins, or open the existing one; yield it, and warnings about the input."""
    config, run, warnings = options.pretrain, RunDirectory(result.path, processes), list[str]()

    def store_corpora(directory: Path) -> None:
        check_models(config, options.batches.crop_residues)
        clusters = None if config.clusters is None else ClusterTable(config.clusters, config.cluster_column)
        corpora = directory / "corpus"
        warnings.extend(build_corpora(corpora, fasta, config.valid, clusters=clusters, reader=options.reader))
        check_inputs()

    with ExitStack() as stack:
        is_resumed = False
        if processes.is_first:
            is_resumed = stack.enter_context(result.claim(fingerprint, callbacks)).is_resumed
        run.open(fingerprint, store_corpora, force=not is_resumed)
        if is_resumed and any(map(is_stream, (*fasta, *config.valid))):
            warnings.append("the pipe is not read again: the resumed run uses the proteins that it stored")
        if is_resumed and config.max_minutes is not None:
            warnings.append(
                "--max-minutes was converted to steps when the run began; the remaining steps are taken now"
            )
        yield run, warnings


# The run


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A run that is ready for its next step."""

    run: RunDirectory
    options: PretrainOptions
    corpora: Corpora
    evaluator: Evaluator
    references: References
    model: Checkpoint
    objective: MaskedLM  # of the model
    batches: PretrainingBatches
    setup: TrainingSetup[MaskedBatch]
    checkpoints: Checkpoints
    timing: StepTiming | None  # None if it was not needed
    budget: TimeBudget | None  # None if the number of steps is fixed
    warnings: Sequence[str]  # about the model and the checkpoints

    @property
    def schedule(self) -> TrainingSchedule:
        """The current schedule; a run that is limited by time changes it."""
        return TrainingSchedule(**self.run.facts["plan"])

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""
        return self.checkpoints.progress.is_finished(self.schedule.num_steps, self.schedule.patience)

    @property
    def _processes(self) -> ProcessGroup:
        return self.setup.executor.processes

    @property
    def _is_first(self) -> bool:
        """Whether this process writes files."""
        return self._processes.is_first

    def plan(self, warnings: Sequence[str]) -> PretrainPlan:
        """Describe the run for the user, with warnings about the input."""
        train, schedule = self.corpora.train, self.schedule
        return PretrainPlan(
            output=self.run.path(""),
            num_parameters=self.model.num_parameters,
            num_proteins=len(train),
            num_residues=train.num_residues,
            num_clusters=None if train.clusters is None else len(train.clusters),
            cropped_fraction=float((train.lengths > self.options.batches.crop_residues).mean()),
            valid_sets={valid_set.name: valid_set.num_proteins for valid_set in self.evaluator.valid_sets},
            window_residues=self.model.metadata.window_residues,
            references=self.references,
            num_steps=schedule.num_steps,
            steps_per_pass=self.batches.steps_per_epoch,
            first_step=self.checkpoints.progress.step,
            optimizer=schedule.optimizer,
            precision=precision_name(self.setup.executor.precision),
            learning_rate=schedule.learning_rate,
            disk_bytes=self._estimate_disk_bytes(),
            seconds=None if self.timing is None else self.timing.seconds(schedule),
            memory_bytes=None if self.timing is None else self.timing.memory_bytes,
            num_shards=self._processes.num_shards,
            warnings=[*warnings, *self.warnings],
        )

    def _estimate_disk_bytes(self) -> int:
        numbers_of_checkpoint = _CHECKPOINT_NUMBERS_PER_WEIGHT[self.schedule.optimizer]
        per_weight = 1 + self.options.pretrain.keep_checkpoints * numbers_of_checkpoint
        corpora = [self.corpora.train, *self.corpora.valid]
        corpus_bytes = sum(corpus.tokens.nbytes + corpus.offsets.nbytes for corpus in corpora)
        return self.model.num_parameters * BYTES_PER_NUMBER * per_weight + corpus_bytes

    def train(self, callbacks: Callbacks, report: RunReport) -> None:
        """Train to the end or until stopped; write the log and the best model, and refresh the report."""
        amino_acids = AminoAcidPredictions.zero()

        def validate() -> Mapping[str, float]:
            nonlocal amino_acids
            validation = self.evaluator.validate(self.objective, self.references)
            amino_acids = validation.amino_acids
            return validation.metrics

        steps = train(
            self.setup,
            self.schedule,
            self.checkpoints,
            validate=validate,
            replan=self._replan,
            stop=callbacks.stop,
        )
        with self._events() as events:
            for step in steps:
                self.run.log(step.log_line())
                if events is not None:
                    events.add(step.log_line())
                if step.is_best:
                    self._keep(step, amino_acids)
                if step.validation is not None and self._is_first:
                    report.refresh()
                callbacks.on_step(step)

    def _events(self) -> AbstractContextManager[EventWriter | None]:
        """Open the events for TensorBoard, if they are requested and a step is left."""
        if not self.options.pretrain.tensorboard or self.is_finished or not self._is_first:
            return nullcontext()
        return event_writer(self.run.path("tensorboard"), self.run.read_log())

    def _replan(self, schedule: TrainingSchedule, step: int) -> TrainingSchedule:
        """Correct the number of steps of a run that is limited by time; all processes follow the first."""
        corrected = schedule if self.budget is None else self.budget.replan(schedule, step)
        if corrected is not schedule:
            self.run.store("plan", asdict(corrected))
        return self.schedule

    def _keep(self, report: StepReport, amino_acids: AminoAcidPredictions) -> None:
        """Write the current model, the best so far, and how it predicts each amino acid."""
        self.run.store(_AMINO_ACIDS, amino_acids.plain())
        self._export(report)
        if self._is_first:
            self._write_amino_acids(amino_acids)

    def _export(self, report: StepReport) -> None:
        """Write the current model as a Hugging Face directory."""
        base, teacher = self.options.pretrain.init_from, self.options.pretrain.teacher
        self.model.metadata = replace(
            self.model.metadata,
            configuration={
                **settings_of(self.options),
                "precision": precision_name(self.setup.executor.precision),
                "from_model": None if base is None else model_name(base),
                **({} if teacher is None else {"teacher": model_name(teacher)}),
            },
            corpus_fingerprint=self.corpora.train.fingerprint,
            metrics={"step": report.step, "residues_seen": report.num_residues, **(report.validation or {})},
        )
        self._save(self.model, self.objective)

    def _save(self, model: Checkpoint, objective: MaskedLM) -> None:
        """Write a model, with its objective's weights, in the first process; all call this, because some hold rows."""
        options = self.options
        facts = pretraining_facts(model.metadata, self.corpora.train, options.batches, options.masking, self.schedule)
        with gathered_weights(objective, self._processes) as gather:
            if self._is_first:
                whole = replace(model, gather=gather)
                save_checkpoint(whole, self.run.path("model"), pretrained_card(model, facts))

    def evaluate(self) -> tuple[dict[str, MetricWithInterval], list[ClassMetrics]]:
        """Return the gains of the best model, and its metrics of each amino acid, which only the first process has.

        The first process computes them alone. If no process holds the whole model, all compute the same.
        """
        device, best, objective = self.setup.objective.device, None, None
        if self._is_first or self._processes.is_sharded:
            best = load_checkpoint(self.run.path("model"))
            objective = masked_lm(best, device, self._processes)
        predictions = None if objective is None else self.evaluator.by_amino_acid(objective)
        self.run.store(_AMINO_ACIDS, None if predictions is None else predictions.plain())
        if validates_in_bfloat16(device, self.setup.executor):
            self.run.load_or_compute(
                _EXACT_METRICS, lambda: {} if objective is None else self._exact_metrics(objective)
            )
        self.run.load_or_compute(
            "gains", lambda: {} if best is None or objective is None else self._compute_gains(best, objective)
        )
        amino_acids = [] if predictions is None or not self._is_first else self._write_amino_acids(predictions)
        return self._gains, amino_acids

    @property
    def _gains(self) -> dict[str, MetricWithInterval]:
        """Gains of the best model of a finished run; empty before."""
        return {name: MetricWithInterval(**gain) for name, gain in self.run.facts.get("gains", {}).items()}

    @property
    def _best_loss(self) -> float | None:
        """The validation loss of the best model, in float32 once the run is finished; None before a validation."""
        exact: float | None = self.run.facts.get(_EXACT_METRICS, {}).get("valid_loss")
        return self.checkpoints.progress.best_loss if exact is None else exact

    def _write_amino_acids(self, predictions: AminoAcidPredictions) -> list[ClassMetrics]:
        """Write the tables of amino acids, and return their metrics."""
        metrics = predictions.metrics()
        columns = ["amino_acid", "masked", "loss", "accuracy", "top_confusion"]
        write_table(self.run.path("amino_acids.tsv"), columns, map(astuple, metrics))
        columns = ["amino_acid", "predicted", "count", "mean_probability"]
        write_table(self.run.path("confusions.tsv"), columns, predictions.rows())
        return metrics

    def _exact_metrics(self, best: MaskedLM) -> dict[str, float]:
        """Validate the best model in float32."""
        return dict(self.evaluator.validate_exactly(best, self.references).metrics)

    def _compute_gains(self, best: Checkpoint, objective: MaskedLM) -> dict[str, Any]:
        """Compare the best model with its references protein by protein, and store the gains in its metadata."""
        gains = {name: asdict(gain) for name, gain in self.evaluator.gains(objective).items()}
        exact = self.run.facts.get(_EXACT_METRICS, {})
        best.metadata = replace(best.metadata, metrics={**best.metadata.metrics, **exact, "gains": gains})
        self._save(best, objective)
        return gains

    def record(self, fasta: Sequence[Path]) -> RunRecord:
        """Collect what the page of the run shows; the files are those of the training proteins."""
        facts = self.run.facts
        predictions = facts.get(_AMINO_ACIDS)
        return RunRecord(
            fasta=fasta,
            options=self.options,
            shape=self.model.encoder.shape,
            plan=self.plan([]),
            schedule=self.schedule,
            first_num_steps=facts.get("first_num_steps"),
            progress=replace(self.checkpoints.progress, best_loss=self._best_loss),
            log=self.run.read_log(),
            gains=self._gains,
            amino_acids=None if predictions is None else AminoAcidPredictions.from_plain(predictions),
            composition=facts["composition"],
        )

    def finish(self, gains: Mapping[str, MetricWithInterval], amino_acids: Sequence[ClassMetrics]) -> PretrainSummary:
        """Summarise the run with the results of `evaluate`, and record the summary of a finished run in `run.json`."""
        summary = self._summary(gains, amino_acids)
        if summary.is_finished and summary.model is not None:
            record = finished_record(summary) if self._is_first else None  # the model is written by the first process
            self.run.store(FINISHED, record)
        return summary

    def _summary(self, gains: Mapping[str, MetricWithInterval], amino_acids: Sequence[ClassMetrics]) -> PretrainSummary:
        model, progress, valid_set = self.run.path("model"), self.checkpoints.progress, self.evaluator.valid_sets[0]
        valid_loss = self._best_loss
        return PretrainSummary(
            output=self.run.path(""),
            model=model if model.exists() else None,
            num_steps=progress.step,
            num_residues=progress.num_residues,
            num_skipped=progress.num_skipped,
            best_step=progress.best_step,
            valid_loss=valid_loss,
            valid_perplexity=None if valid_loss is None else perplexity(valid_loss),
            references=self.references[valid_set.name],
            num_valid_proteins=valid_set.num_proteins,
            gains=gains,
            amino_acids=amino_acids,
            is_finished=self.is_finished,
        )


def _evaluator(
    config: PretrainConfig, corpora: Corpora, model: Checkpoint, tokens: int, executor: Executor
) -> Evaluator:
    """Make the evaluator of the validation sets, in micro-batches of at most so many tokens."""

    def load_compared() -> MaskedLM | None:
        path = config.compare_model
        return None if path is None else masked_lm(load_checkpoint(path), model.device)

    window = model.metadata.window_residues
    return Evaluator(
        train=corpora.train,
        valid_sets=[ValidationSet.from_corpus(corpus, window, tokens) for corpus in corpora.valid],
        load_compared=load_compared,
        executor=executor,
    )


def _checkpoints(run: RunDirectory, config: PretrainConfig, executor: Executor) -> Checkpoints:
    return Checkpoints(
        run.path(""),
        num_checkpoints=config.keep_checkpoints,
        save_seconds=config.save_every_minutes * 60,
        processes=executor.processes,
    )


def _micro_batch_tokens(model: Checkpoint, batches: BatchConfig, processes: ProcessGroup) -> int:
    """Choose the tokens of a micro-batch: all processes divide a step alike, and each has at least one micro-batch."""
    tokens = default_training_tokens(model.encoder.shape, model.device, processes.num_shards)
    per_process = -(-batches.batch_tokens // processes.size)
    return int(processes.broadcast_object(min(tokens, per_process)))


def _prepare(
    run: RunDirectory, options: PretrainOptions, executor: Executor, started: float, *, is_dry_run: bool = False
) -> _Job:
    """Load the model and the data, plan the steps, and restore the newest checkpoint; a dry run always times steps."""
    config, device = options.pretrain, choose_device(options.compute)
    corpora = open_corpora(run.path("corpus"))
    model = initial_model(config, options.batches.crop_residues)
    objective = training_objective(config, model, device, executor.processes)
    tokens = options.batches.micro_batch_tokens or _micro_batch_tokens(model, options.batches, executor.processes)
    batches = PretrainingBatches(
        corpora.train, options.batches, tokens, options.masking, config.seed, executor.processes
    )
    micro_batches, compiler_warnings = compile_training(objective, batches, executor, config.compile)

    evaluator = _evaluator(config, corpora, model, tokens, executor)
    references = run.load_or_compute("references", evaluator.reference_losses)
    run.load_or_compute("composition", lambda: evaluator.ngrams.unigram.tolist())
    timing = budget = None
    if "plan" not in run.facts and (is_dry_run or config.max_minutes is not None):
        provisional = plan_schedule(options, batches)
        timing = time_steps(objective, micro_batches, provisional, executor, evaluator.num_residues)
        budget = None if config.max_minutes is None else TimeBudget(started, config.max_minutes, timing)
    schedule = run.load_or_compute("plan", lambda: asdict(plan_schedule(options, batches, budget)))
    if budget is not None:
        run.store("first_num_steps", schedule["num_steps"])
    setup = TrainingSetup(
        objective=objective,
        micro_batches=micro_batches,
        optimizers=make_optimizers(objective, schedule["optimizer"], schedule["weight_decay"], executor),
        executor=executor,
    )
    checkpoints = _checkpoints(run, config, executor)
    warnings = [*model.warnings, *compiler_warnings, *checkpoints.restore(objective, setup.optimizers)]
    run.truncate_log(checkpoints.progress.step)
    return _Job(
        run=run,
        options=options,
        corpora=corpora,
        evaluator=evaluator,
        references=references,
        model=model,
        objective=objective,
        batches=batches,
        setup=setup,
        checkpoints=checkpoints,
        timing=timing,
        budget=budget,
        warnings=warnings,
    )


def plan_run(
    result: Result, fasta: Sequence[Path], options: PretrainOptions, fingerprint: Mapping[str, Any], started: float
) -> PretrainPlan:
    """Plan a run, with measured time and memory; no file is left.

    Raises:
        ProtembedError: If the input or the options do not allow it.
    """
    device = choose_device(options.compute)
    decide_sharding(options.pretrain, device)
    with scratch_directory() as scratch, compiler_directory(device), worker_pool(options.compute, device) as pool:
        scratch_run = Result(scratch / "run", [], run=RUN)
        with _opened(scratch_run, fasta, options, fingerprint) as (run, warnings):
            executor = Executor(pool=pool, precision=resolve_precision(run, options.pretrain.precision, device))
            job = _prepare(run, options, executor, started, is_dry_run=True)
            return replace(job.plan(warnings), output=result.path)


def run_pretraining(
    result: Result,
    fasta: Sequence[Path],
    options: PretrainOptions,
    fingerprint: Mapping[str, Any],
    started: float,
    callbacks: Callbacks,
) -> PretrainSummary:
    """Begin a run, or resume it, and train to its end or until stopped.

    Raises:
        ProtembedError: If the input, the options or the run directory do not allow it.
    """
    device = choose_device(options.compute)
    is_sharded = decide_sharding(options.pretrain, device)
    with ExitStack() as stack:
        processes = stack.enter_context(joined_processes(device))
        # Memories may differ; the processes must not.
        processes = replace(processes, is_sharded=processes.any(is_sharded))
        stack.enter_context(compiler_directory(device))
        # Sharded layers are computed one after the other, because their weights are gathered in one order.
        workers = WorkerPool(1) if processes.is_sharded else worker_pool(options.compute, device)
        pool = stack.enter_context(workers)
        with _opened(result, fasta, options, fingerprint, processes, callbacks) as (run, warnings):
            precision = resolve_precision(run, options.pretrain.precision, device)
            executor = Executor(pool=pool, processes=processes, precision=precision)
            job = _prepare(run, options, executor, started)
            callbacks.on_plan(job.plan(warnings))
            report = RunReport(run, partial(job.record, fasta))
            try:
                job.train(callbacks, report)
            except DivergedError:
                if processes.is_first:
                    report.try_to_write()  # its curves show when it began
                raise
            gains, amino_acids = job.evaluate() if job.is_finished else ({}, [])
            if processes.is_first:
                report.write()
            processes.barrier()
            return job.finish(gains, amino_acids)
