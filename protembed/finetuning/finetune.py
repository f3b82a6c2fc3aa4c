"""Fine-tune on a table of labelled proteins: from labels and a model to a model with a task head and its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values, with_current_names
from protembed.config.common import (
    TASKS,
    Task,
    choose_region,
)
from protembed.config.finetune import MAX_FULL_FINETUNE_PARAMETERS, FinetuneConfig, FinetuneMethod, FinetuneOptions
from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device, choose_precision
from protembed.errors import ConfigError, DamagedRunError, OutputExistsError
from protembed.finetuning.comparison import Comparison, compare
from protembed.finetuning.experiment import Experiment, ExperimentResult, ModelTrainer
from protembed.finetuning.label_cells import class_sort_key
from protembed.finetuning.label_inference import InferredLabels, infer_labels
from protembed.finetuning.label_warnings import class_counts, few_tested_warnings, label_warnings
from protembed.finetuning.labels import Columns, LabelledProtein, Split, read_labels
from protembed.finetuning.report import METRICS_FILE, FinetuneResult, write_result
from protembed.finetuning.splits import DataSplit, nearest, split_table
from protembed.finetuning.targets import Targets, cut_table
from protembed.finetuning.training_data import describe_training
from protembed.inference.embedding import parse_poolings
from protembed.inference.engine import inference_engine
from protembed.io.reading import (
    PathLike,
    as_path,
    check_inputs,
    default_path,
    follow_link,
    path_exists,
    read_json,
    sha256_of_inputs,
    unchanged_inputs,
)
from protembed.io.result import check_is_path, check_not_an_input, check_utf8_path
from protembed.io.writing import (
    atomic_directory,
    check_is_ours_or_absent,
    remove,
    remove_unfinished_beside,
    seekable_inputs,
)
from protembed.model.catalog import locate_model, model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.model.metadata import ModelMetadata
from protembed.model.untrusted import model_sha256
from protembed.training.distributed import Executor
from protembed.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """What is going to be trained, known before anything is computed.

    Attributes:
        output: The model directory that will be written.
        target: The name of the label's column.
        classes: The names of the classes or labels; None for values.
        class_counts: Proteins of each class or label, the most frequent first; empty for values.
        reading: A sentence that shows how three cells were read.
        num_proteins: Proteins of each split; for a cross-validation those of the final training.
        num_folds: The folds of a cross-validation; 1 where there is a test split.
        notes: Sentences about decisions that the options left open.
        warnings: Sentences about doubtful properties of the table or the model.
    """

    output: Path
    task: Task
    target: str
    classes: Sequence[str] | None
    class_counts: Mapping[str, int]
    reading: str
    method: FinetuneMethod
    num_proteins: dict[Split, int]
    num_folds: int
    notes: Sequence[str]
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FinetuneSummary:
    """The result of fine-tuning.

    Attributes:
        output: The model directory; None when the run was stopped before its end.
        comparison: The metrics of the model and its baselines on the test proteins; None when the run was stopped.
        notes: Sentences about the model and its metrics.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    task: Task
    comparison: Comparison | None
    notes: Sequence[str] = ()
    was_done: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether there is a model."""
        return self.output is not None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be done, with every decision made.

    Attributes:
        inferred: The labels, and the task inferred from them.
        data_split: The folds and the splits of the final model.
        targets: The targets of each fold.
        final_targets: The targets of the splits of the final model.
        metadata: The metadata of the model that will be written.
        shape: The shape of the encoder.
        training_kmers: Hashes of the training proteins' k-mers, (k-mers,), int64, ascending.
        statistics: What was read, skipped and replaced.
        model_warnings: Sentences about doubtful properties of the model.
        is_drawn: Whether the test split was drawn, and not given by a column.
    """

    inferred: InferredLabels
    data_split: DataSplit
    targets: Sequence[Targets]
    final_targets: Targets
    method: FinetuneMethod
    metadata: ModelMetadata
    shape: EncoderShape
    training_kmers: Tensor
    statistics: ReadStatistics
    model_warnings: Sequence[str]
    is_drawn: bool

    def plan(self, output: Path) -> FinetunePlan:
        """Describe the job for the user."""
        return FinetunePlan(
            output=output,
            task=self.final_targets.task,
            target=self.data_split.final.target,
            classes=self.final_targets.classes,
            class_counts=self.class_counts,
            reading=self.inferred.reading,
            method=self.method,
            num_proteins=self.split_sizes,
            num_folds=len(self.data_split.folds),
            notes=self.notes,
            warnings=self.warnings,
        )

    @property
    def class_counts(self) -> dict[str, int]:
        """Proteins of each class, the most frequent first."""
        counts = class_counts(self.data_split.final.proteins, self.final_targets.task)
        return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], class_sort_key(name)))}

    @property
    def notes(self) -> list[str]:
        """Sentences about decisions that the options left open."""
        return [*self.inferred.labels.notes, *self.data_split.notes]

    @property
    def warnings(self) -> list[str]:
        """Sentences about doubtful properties of the table or the model."""
        folds, task = self.data_split.folds, self.final_targets.task
        return [
            *self.model_warnings,
            *self.data_split.warnings,
            *self.statistics.warnings(),
            *self.inferred.labels.warnings,
            *self.inferred.warnings,
            *label_warnings(self.data_split.final, folds, self.final_targets),
            *few_tested_warnings(folds, task, is_drawn=self.is_drawn),
        ]

    @property
    def split_sizes(self) -> dict[Split, int]:
        """Proteins of each split of the final model."""
        return {split: len(proteins) for split, proteins in self.data_split.final.splits.items()}


def _prepare(labels: Path, options: FinetuneOptions, base: Path) -> _Job:
    """Read the table and the model, and make the decisions that the options left open."""
    config, statistics = options.labels, ReadStatistics()
    columns = Columns(target=config.target, sequence=config.sequence, split=config.split_column, id=config.id)
    table = read_labels(labels, columns, on_illegal=options.reader.on_illegal, statistics=statistics)
    inferred = infer_labels(table, config.task, config.label_separator)
    task, is_chosen, region = inferred.task, config.task != "auto", choose_region(config.region)
    table = cut_table(inferred.labels, region, task, options.reader.on_illegal, statistics)
    data_split = split_table(table, task, config, options.finetune.seed)
    targets = [Targets.from_table(fold, task, allows_rare=is_chosen) for fold in data_split.folds]
    final_targets = (
        Targets.from_table(data_split.final, task, allows_rare=is_chosen) if data_split.has_folds else targets[0]
    )
    checkpoint = load_checkpoint(base)
    method = _choose_method(options.finetune, checkpoint, task)
    training_data, training_kmers = describe_training(data_split.final, final_targets, data_split.folds)
    metadata = replace(
        _metadata(checkpoint.metadata, method, final_targets, table.target, options),
        region=None if region is None else str(region),
        training_data=training_data,
    )
    return _Job(
        inferred=inferred,
        data_split=data_split,
        targets=targets,
        final_targets=final_targets,
        method=method,
        metadata=metadata,
        shape=checkpoint.encoder.shape,
        training_kmers=training_kmers,
        statistics=statistics,
        model_warnings=checkpoint.warnings,
        is_drawn=config.split is not None or not table.has_splits,
    )


def _choose_method(config: FinetuneConfig, checkpoint: Checkpoint, task: Task) -> FinetuneMethod:
    """Choose the training method and validate the options against it."""
    method: FinetuneMethod = "full" if checkpoint.num_parameters <= MAX_FULL_FINETUNE_PARAMETERS else "lora"
    method = config.method or method
    poolings = () if config.pooling == "auto" else parse_poolings(config.pooling)
    if poolings and task.per_residue:
        raise ConfigError("pooling", config.pooling, f"the head of {task.name} sees each residue without pooling")
    if "attention" in poolings and method == "frozen":
        raise ConfigError("pooling", config.pooling, "attention needs `method` full or lora, which train it")
    if config.repeats > 1 and method == "frozen":
        raise ConfigError("repeats", config.repeats, "a frozen encoder is not trained")
    if config.balance_classes and task.label_kind == "value":
        raise ConfigError("balance_classes", config.balance_classes, f"{task.name} has no classes")
    if config.balance_classes and method == "frozen" and config.head == "mlp":
        raise ConfigError(
            "balance_classes", config.balance_classes, "the mlp head of a frozen encoder has no class weights"
        )
    return method


def _metadata(
    base: ModelMetadata, method: FinetuneMethod, targets: Targets, target: str, options: FinetuneOptions
) -> ModelMetadata:
    """Make the metadata of the fine-tuned model from those of the pretrained one."""
    pooling = (base.pooling or "mean") if options.finetune.pooling == "auto" else options.finetune.pooling
    if options.finetune.pooling == "auto" and (method == "frozen" or targets.task.per_residue):
        pooling = pooling.replace("attention", "mean")  # attention pooling would not be trained
    return replace(
        base,
        pooling=None if targets.task.per_residue else ",".join(parse_poolings(pooling)),
        configuration={**_settings(options), "from_model": model_name(options.model.model)},
        classes=targets.classes,
        task=targets.task.name,
        target=target,
    )


def _fingerprint(labels: Path, options: FinetuneOptions, base: Path) -> dict[str, Any]:
    """Collect the settings and inputs that make two fine-tunings the same."""
    return {**_settings(options), "labels": sha256_of_inputs([labels]), "model": model_sha256(base)}


def _settings(options: FinetuneOptions) -> dict[str, Any]:
    configs = (options.finetune, options.labels, options.optimizer, options.reader)
    return {name: value for config in configs for name, value in as_plain_values(config).items()}


def _load_summary(output: Path, fingerprint: Mapping[str, Any]) -> FinetuneSummary:
    """Read the result of the same command.

    Raises:
        OutputExistsError: The output is something else.
    """
    try:
        content = read_json(output / METRICS_FILE)
        task = TASKS[content["task"]]
        # The former name of the comparison.
        plain_values = content["comparison"] if "comparison" in content else content["ladder"]
        comparison = Comparison.from_plain_values(task, plain_values)
    except (OSError, ValueError, LookupError, TypeError):
        raise OutputExistsError(output, "is not a result of finetune") from None
    if with_current_names(content["identity"]) != fingerprint or fingerprint["labels"] is None:
        raise OutputExistsError(output, "was made with other settings or data")
    return FinetuneSummary(output=output, task=task, comparison=comparison, notes=content["notes"], was_done=True)


def _evaluate(
    experiment: ExperimentResult, job: _Job, fingerprint: Mapping[str, Any], config: FinetuneConfig
) -> FinetuneResult:
    """Compare the model with its baselines, and find the nearest training protein of each test protein."""
    tests = [table.splits["test"] for table in job.data_split.folds]
    trains = [table.splits["train"] for table in job.data_split.folds]
    truth = [target for targets in job.targets for target in targets.by_split["test"]]
    experiment.final.checkpoint.training_kmers = job.training_kmers
    is_random = job.method != "frozen" or config.head == "mlp"
    nearest_of_fold = [nearest(_sequences(test), _sequences(train)) for test, train in zip(tests, trains, strict=True)]
    return FinetuneResult(
        checkpoint=experiment.final.checkpoint,
        targets=job.final_targets,
        split_sizes=job.split_sizes,
        fingerprint=fingerprint,
        comparison=compare(job.final_targets.task, truth, experiment.predictions, is_random=is_random),
        proteins=[protein for test in tests for protein in test],
        truth=truth,
        predictions=experiment.final_predictions,
        similarities=np.concatenate([similarities for _, similarities in nearest_of_fold]),
        nearest=[
            train[index] for train, (indices, _) in zip(trains, nearest_of_fold, strict=True) for index in indices
        ],
        notes=[*job.notes, *experiment.notes, *job.warnings],
        skipped=job.statistics.skipped,
        log=experiment.log,
    )


def _sequences(proteins: Sequence[LabelledProtein]) -> list[str]:
    return [protein.sequence for protein in proteins]


def _finetune(labels: Path, output: Path, options: FinetuneOptions, callbacks: Callbacks) -> FinetuneSummary:
    """Fine-tune on a table that can be read twice."""
    config = options.finetune
    base = locate_model(options.model.model).directory
    check_not_an_input(output, [labels, base])
    fingerprint = _fingerprint(labels, options, base)
    if path_exists(output) and not config.force:
        return _load_summary(output, fingerprint)
    job = _prepare(labels, options, base)
    check_inputs()
    callbacks.on_plan(job.plan(output))
    device = choose_device(options.compute)
    run_directory = RunDirectory(output.with_name(f"{output.name}.partial"))
    with run_directory.locked(), inference_engine(options.compute, device, job.shape) as engine:
        remove_unfinished_beside(output)
        # --force replaces the output, but an interrupted run of the same command is resumed.
        force = config.force and not run_directory.matches(fingerprint)
        run_directory.open(fingerprint, lambda directory: None, force=force)
        trainer = ModelTrainer(
            base=base,
            metadata=job.metadata,
            method=job.method,
            config=config,
            optimizer=options.optimizer,
            engine=engine,
            executor=Executor(pool=engine.pool, precision=choose_precision("auto", device)),
            run_directory=run_directory,
            fingerprint=fingerprint,
            device=device,
            callbacks=callbacks,
        )
        try:
            experiment = Experiment(trainer, job.data_split, job.targets, job.final_targets).run()
        except DamagedRunError:
            if not config.force:
                raise
            run_directory.open(fingerprint, lambda directory: None, force=True)
            experiment = Experiment(trainer, job.data_split, job.targets, job.final_targets).run()
        if experiment is None:
            return FinetuneSummary(output=None, task=job.final_targets.task, comparison=None)
        callbacks.on_stage("metrics", None, 0)
        result = _evaluate(experiment, job, fingerprint, config)
        with atomic_directory(output, marker=METRICS_FILE) as directory:
            write_result(directory, result)
        remove(run_directory.path(""))
    return FinetuneSummary(output=output, task=job.final_targets.task, comparison=result.comparison, notes=result.notes)


def finetune_model(
    labels: PathLike, options: FinetuneOptions | None = None, callbacks: Callbacks | None = None
) -> FinetuneSummary:
    """Train an encoder, adapters, or a head on a frozen encoder to predict labels of proteins or of their residues.

    The model with the lowest validation loss is kept. It comes with `metrics.json`, its predictions for the test
    proteins, the similarity of each test protein to its nearest training protein, an HTML report, and a model card. The
    same call resumes a training that was interrupted.

    Args:
        labels: The path of the table of labelled proteins, or `-` for stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan, the stages, the steps of trainings and the residues of embedded
            proteins, and may stop a training.

    Returns:
        The path of the model, and its metrics on the test proteins.

    Raises:
        ProtembedError: The table, the options, the model or the output does not allow it; see `protembed.errors`.
    """
    options, path = options or FinetuneOptions(), as_path("labels", labels)
    output = follow_link(options.finetune.output or default_path(path, ".model"))
    check_is_path(output)
    check_utf8_path(output)
    check_is_ours_or_absent(output, METRICS_FILE)
    with unchanged_inputs(), seekable_inputs([path]) as (table,):
        return _finetune(table, output, options, callbacks or Callbacks())
