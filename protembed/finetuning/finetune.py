"""Fine-tuning: from labelled proteins and a model to a model with a task head, and to an honest figure of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from protembed.config.base import as_plain_values, with_current_names
from protembed.config.common import (
    TASKS,
    DeviceConfig,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    Task,
    choose_region,
)
from protembed.config.finetune import MAX_FULL_FINETUNE_PARAMETERS, FinetuneConfig, FinetuneMethod, LabelTableConfig
from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device, choose_precision
from protembed.errors import ConfigError, DamagedRunError, OutputExistsError
from protembed.finetuning.comparison import Comparison, compare
from protembed.finetuning.experiment import Callbacks, Experiment, ExperimentResult, ModelTrainer
from protembed.finetuning.label_cells import class_order
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
from protembed.model.catalog import find_model, model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint, model_sha256
from protembed.model.metadata import ModelMetadata
from protembed.training.distributed import Executor
from protembed.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """All options of a fine-tuning."""

    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    labels: LabelTableConfig = field(default_factory=LabelTableConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: DeviceConfig = field(default_factory=DeviceConfig)


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """What is going to be learned, known before anything is computed.

    Attributes:
        output: the model directory to be.
        task: what the labels are.
        target: the name of the label.
        classes: their names, or None.
        class_counts: Proteins of each class or label, the most frequent first; empty for values.
        reading: A sentence that shows how three cells were read.
        method: how the encoder learns.
        num_proteins: of each split; of folds, in the final training.
        num_folds: in which each protein is measured once; 1 where there is a test part.
        notes: what was decided for the user, in sentences.
        warnings: what the user should know about the table, in sentences.
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
    """What has come of it.

    Attributes:
        output: the model directory; None when the run was left before its end.
        task: what was learned.
        ladder: the model's figures on the test part, beside those of simpler ways; None when the run was left.
        notes: what should be known about both, in sentences.
        was_done: whether the result stood there already.
    """

    output: Path | None
    task: Task
    ladder: Comparison | None
    notes: Sequence[str] = ()
    was_done: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether there is a model."""
        return self.output is not None


def finetune_model(
    labels: PathLike,
    options: FinetuneOptions,
    *,
    on_plan: Callable[[FinetunePlan], None] = lambda plan: None,
    watcher: Callbacks | None = None,
) -> FinetuneSummary:
    """Train an encoder, adapters of it, or a head on a frozen one, to predict labels of proteins or their residues.

    The model with the lowest validation loss is kept. It comes with `metrics.json`, its predictions on the test part,
    how similar each test protein is to its nearest training protein, a page to look at, and a model card; the same call
    takes up a training that was interrupted.

    Args:
        labels: the labelled table.
        options: of the command.
        on_plan: told once, before anything is computed.
        watcher: told of the course, and asked whether to go on; nobody if None.

    Returns:
        Where the model is and how good it is on the test part.

    Raises:
        ProtembedError: the table, the options, the model or the output does not allow it; see `protembed.errors`.
    """
    path = as_path("labels", labels)
    output = follow_link(options.finetune.output or default_path(path, ".model"))
    check_is_path(output)
    check_utf8_path(output)
    check_is_ours_or_absent(output, METRICS_FILE)
    with unchanged_inputs(), seekable_inputs([path]) as (table,):
        return _finetune(table, output, options, on_plan, watcher or Callbacks())


def _finetune(
    labels: Path, output: Path, options: FinetuneOptions, on_plan: Callable[[FinetunePlan], None], watcher: Callbacks
) -> FinetuneSummary:
    """Fine-tune on a table that can be read twice."""
    config = options.finetune
    base = find_model(options.model.model)
    check_not_an_input(output, [labels, base])
    identity = _identity(labels, options, base)
    if path_exists(output) and not config.force:
        return _recall_summary(output, identity)
    work = _prepare(labels, options, base)
    check_inputs()
    on_plan(work.plan(output))
    device = choose_device(options.compute)
    run = RunDirectory(output.with_name(f"{output.name}.partial"))
    with run.locked(), inference_engine(options.compute, device, work.shape) as engine:
        remove_unfinished_beside(output)
        # What stands at the output is to be replaced, an interrupted run of this very command to be gone on with.
        run.open(identity, lambda directory: None, force=config.force and not run.matches(identity))
        rungs = ModelTrainer(
            base=base,
            record=work.record,
            method=work.method,
            config=config,
            optimizer=options.optimizer,
            engine=engine,
            compute=Executor(pool=engine.pool, precision=choose_precision("auto", device)),
            run=run,
            identity=identity,
            device=device,
            watcher=watcher,
        )
        try:
            climbed = Experiment(rungs, work.division, work.targets, work.final).climb()
        except DamagedRunError:
            if not config.force:
                raise
            run.open(identity, lambda directory: None, force=True)
            climbed = Experiment(rungs, work.division, work.targets, work.final).climb()
        if climbed is None:
            return FinetuneSummary(output=None, task=work.final.task, ladder=None)
        watcher.on_stage("figures", None, 0)
        result = _result(climbed, work, identity, config)
        with atomic_directory(output, marker=METRICS_FILE) as directory:
            write_result(directory, result)
        remove(run.path(""))
    return FinetuneSummary(output=output, task=work.final.task, ladder=result.ladder, notes=result.notes)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be done, with every decision made.

    Attributes:
        inferred: The labels, and what they were taken for.
        division: of the table.
        targets: the labels of each fold.
        final: those of the parts that the model is made of.
        method: how the encoder learns.
        record: of the model to be.
        shape: of the encoder.
        training_kmers: Hashes of the training proteins' k-mers, (k-mers,), int64, ascending.
        statistics: what was met while reading.
        of_model: what the user should know about the model.
        is_drawn: Whether the test part was drawn, and not given by a column.
    """

    inferred: InferredLabels
    division: DataSplit
    targets: Sequence[Targets]
    final: Targets
    method: FinetuneMethod
    record: ModelMetadata
    shape: EncoderShape
    training_kmers: Tensor
    statistics: ReadStatistics
    of_model: Sequence[str]
    is_drawn: bool

    def plan(self, output: Path) -> FinetunePlan:
        """Announce it."""
        return FinetunePlan(
            output=output,
            task=self.final.task,
            target=self.division.final.target,
            classes=self.final.classes,
            class_counts=self.class_counts,
            reading=self.inferred.reading,
            method=self.method,
            num_proteins=self.sizes,
            num_folds=len(self.division.folds),
            notes=self.notes,
            warnings=self.warnings,
        )

    @property
    def class_counts(self) -> dict[str, int]:
        """Count the proteins of each class, the most frequent first."""
        counts = class_counts(self.division.final.proteins, self.final.task)
        return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], class_order(name)))}

    @property
    def notes(self) -> list[str]:
        """Say what was decided for the user."""
        return [*self.inferred.labels.notes, *self.division.notes]

    @property
    def warnings(self) -> list[str]:
        """Say what the user should know about the table."""
        doubts = label_warnings(self.division.final, self.division.folds, self.final)
        of_reading = [*self.inferred.labels.warnings, *self.inferred.warnings]
        few = few_tested_warnings(self.division.folds, self.final.task, is_drawn=self.is_drawn)
        return [*self.of_model, *self.division.warnings, *self.statistics.warnings(), *of_reading, *doubts, *few]

    @property
    def sizes(self) -> dict[Split, int]:
        """Count the proteins of each part that the model is made of, and measured on."""
        return {split: len(part) for split, part in self.division.final.splits.items()}


def _prepare(labels: Path, options: FinetuneOptions, base: Path) -> _Work:
    """Read the table and the model, and decide what was left open."""
    config, statistics = options.labels, ReadStatistics()
    columns = Columns(target=config.target, sequence=config.sequence, split=config.split_column, id=config.id)
    table = read_labels(labels, columns, on_illegal=options.reader.on_illegal, statistics=statistics)
    inferred = infer_labels(table, config.task, config.label_separator)
    task, is_chosen, region = inferred.task, config.task != "auto", choose_region(config.region)
    table = cut_table(inferred.labels, region, task, options.reader.on_illegal, statistics)
    division = split_table(table, task, config, options.finetune.seed)
    targets = [Targets.from_table(fold, task, allows_rare=is_chosen) for fold in division.folds]
    final = Targets.from_table(division.final, task, allows_rare=is_chosen) if division.has_folds else targets[0]
    checkpoint = load_checkpoint(base)
    method = _method(options.finetune, checkpoint, task)
    training_data, training_kmers = describe_training(division.final, final, division.folds)
    record = _record(checkpoint.metadata, method, final, table.target, options)
    return _Work(
        inferred=inferred,
        division=division,
        targets=targets,
        final=final,
        method=method,
        record=replace(record, region=None if region is None else str(region), training_data=training_data),
        shape=checkpoint.encoder.shape,
        training_kmers=training_kmers,
        statistics=statistics,
        of_model=checkpoint.warnings,
        is_drawn=config.split is not None or not table.has_splits,
    )


def _result(
    climbed: ExperimentResult, work: _Work, identity: Mapping[str, Any], config: FinetuneConfig
) -> FinetuneResult:
    """Measure, and gather what is left behind."""
    tests = [table.splits["test"] for table in work.division.folds]
    trains = [table.splits["train"] for table in work.division.folds]
    truth = [answer for targets in work.targets for answer in targets.by_split["test"]]
    climbed.kept.checkpoint.training_kmers = work.training_kmers
    is_random = work.method != "frozen" or config.head == "mlp"
    similar = [nearest(_sequences(test), _sequences(train)) for test, train in zip(tests, trains, strict=True)]
    return FinetuneResult(
        checkpoint=climbed.kept.checkpoint,
        targets=work.final,
        sizes=work.sizes,
        identity=identity,
        ladder=compare(work.final.task, truth, climbed.outputs, is_random=is_random),
        proteins=[protein for test in tests for protein in test],
        truth=truth,
        outputs=climbed.kept_outputs,
        similarities=np.concatenate([similarities for _, similarities in similar]),
        neighbours=[train[place] for train, (places, _) in zip(trains, similar, strict=True) for place in places],
        notes=[*work.notes, *climbed.notes, *work.warnings],
        skipped=work.statistics.skipped,
        log=climbed.log,
    )


def _sequences(proteins: Sequence[LabelledProtein]) -> list[str]:
    return [protein.sequence for protein in proteins]


def _method(config: FinetuneConfig, checkpoint: Checkpoint, task: Task) -> FinetuneMethod:
    """Decide how the encoder learns, and refuse what cannot be."""
    method: FinetuneMethod = "full" if checkpoint.num_parameters <= MAX_FULL_FINETUNE_PARAMETERS else "lora"
    method = config.method or method
    poolings = () if config.pooling == "auto" else parse_poolings(config.pooling)
    if poolings and task.per_residue:
        raise ConfigError("--pooling", config.pooling, f"in {task.name} the head sees every residue")
    if "attention" in poolings and method == "frozen":
        raise ConfigError("--pooling", config.pooling, "attention is learned with --method full or lora")
    if config.repeats > 1 and method == "frozen":
        raise ConfigError("--repeats", config.repeats, "a frozen encoder is not trained")
    if config.balance_classes and task.label_kind == "value":
        raise ConfigError("--balance-classes", config.balance_classes, f"{task.name} has no classes")
    if config.balance_classes and method == "frozen" and config.head == "mlp":
        raise ConfigError("--balance-classes", config.balance_classes, "a frozen encoder's mlp cannot weigh them")
    return method


def _record(
    base: ModelMetadata, method: FinetuneMethod, targets: Targets, target: str, options: FinetuneOptions
) -> ModelMetadata:
    """Say what the model is going to be."""
    pooling = (base.pooling or "mean") if options.finetune.pooling == "auto" else options.finetune.pooling
    if options.finetune.pooling == "auto" and (method == "frozen" or targets.task.per_residue):
        pooling = pooling.replace("attention", "mean")  # there is nobody to learn it
    return replace(
        base,
        pooling=None if targets.task.per_residue else ",".join(parse_poolings(pooling)),
        configuration={**_settings(options), "from_model": model_name(options.model.model)},
        classes=targets.classes,
        task=targets.task.name,
        target=target,
    )


def _identity(labels: Path, options: FinetuneOptions, base: Path) -> dict[str, Any]:
    """Collect what makes two fine-tunings the same."""
    return {**_settings(options), "labels": sha256_of_inputs([labels]), "model": model_sha256(base)}


def _settings(options: FinetuneOptions) -> dict[str, Any]:
    parts = (options.finetune, options.labels, options.optimizer, options.reader)
    return {name: value for part in parts for name, value in as_plain_values(part).items()}


def _recall_summary(output: Path, identity: dict[str, Any]) -> FinetuneSummary:
    """Read the result of the very same command.

    Raises:
        OutputExistsError: something else stands there.
    """
    try:
        recorded = read_json(output / METRICS_FILE)
        task = TASKS[recorded["task"]]
        ladder = Comparison.from_plain_values(task, recorded["ladder"])
    except (OSError, ValueError, LookupError, TypeError):
        raise OutputExistsError(output, "is no result of finetune") from None
    if with_current_names(recorded["identity"]) != identity or identity["labels"] is None:
        raise OutputExistsError(output, "was made with other settings or data")
    return FinetuneSummary(output=output, task=task, ladder=ladder, notes=recorded["notes"], was_done=True)
