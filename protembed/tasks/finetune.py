"""Fine-tuning: from labelled proteins and a model to a model with a task head, its metrics and its predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.base import as_plain_values
from protembed.config.finetune import FinetuneConfig, TaskName
from protembed.config.optimizer import OptimizerConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig
from protembed.data.fasta import ReadReport
from protembed.data.labels import (
    Columns,
    LabelTable,
    Split,
    read_labels,
)
from protembed.data.predictions import prediction_cells, prediction_header
from protembed.device import choose_device, worker_pool
from protembed.errors import OutputExistsError
from protembed.files import atomic_directory, atomic_file, remove, write_json
from protembed.inference.engine import Engine
from protembed.inference.representation import Representation, representation_of
from protembed.inputs import default_path, read_json, sha256_of_inputs
from protembed.metrics import Metrics
from protembed.model.catalog import find_model
from protembed.model.checkpoint import (
    Checkpoint,
    load_checkpoint,
    model_sha256,
    write_checkpoint_files,
)
from protembed.model.heads import TaskHead
from protembed.model.record import ModelRecord
from protembed.report.card import finetuned_card
from protembed.text import table_line
from protembed.training.finetuning import FullTraining
from protembed.training.linear import fit_classifier, fit_values
from protembed.training.loop import StepReport
from protembed.training.run_directory import RunDirectory
from protembed.training.targets import Targets

_METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """All options of a fine-tuning."""

    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """What is going to be learned, known before the first step.

    Attributes:
        output: the model directory to be.
        task: classification or regression.
        target: the name of the label.
        classes: their names, or None.
        num_proteins: of each split.
        num_steps: of training; None for a frozen encoder.
        first_step: where the training stands; above 0 it is resumed.
        notes: what was decided for the user, in sentences.
    """

    output: Path
    task: TaskName
    target: str
    classes: Sequence[str] | None
    num_proteins: dict[Split, int]
    num_steps: int | None
    first_step: int
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FinetuneSummary:
    """What has come of it.

    Attributes:
        output: the model directory; None when the run was left before its end.
        task: classification or regression.
        test: metrics of the model on the test part.
        baseline: metrics of the majority or the mean on the test part.
        is_finished: whether all planned steps were taken.
    """

    output: Path | None
    task: TaskName
    test: Metrics
    baseline: Metrics
    is_finished: bool


def finetune_model(
    labels: Path,
    options: FinetuneOptions,
    *,
    on_plan: Callable[[FinetunePlan], None] = lambda plan: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    on_protein: Callable[[int], None] = lambda num_residues: None,
    stop: Callable[[], bool] = lambda: False,
) -> FinetuneSummary:
    """Train an encoder, or a head on a frozen one, to predict the labels of whole proteins.

    The model of the epoch with the lowest validation loss is kept. It comes with `metrics.json`, its predictions on the
    test part in `test_predictions.tsv`, and a model card; the same call takes up a training that was interrupted.

    Args:
        labels: the labelled table.
        options: of the command.
        on_plan: told once, before anything is computed.
        on_step: told after each step of a full training.
        on_protein: told the residues of each protein that the frozen encoder has embedded.
        stop: asked after each step; when true the training is saved and left.

    Returns:
        Where the model is and how good it is on the test part.

    Raises:
        ProtembedError: the table, the options, the model or the output does not allow it; see `protembed.errors`.
    """
    config, report = options.finetune, ReadReport()
    output = config.output or default_path(labels, ".model")
    base = find_model(options.model.model)
    identity = _identity(labels, options, base)
    if output.exists() and not config.force:
        return _recall_summary(output, identity)
    columns = Columns(target=config.target, sequence=config.sequence, split=config.split_column)
    table = read_labels(labels, columns, on_illegal=options.reader.on_illegal, report=report)
    targets = Targets.of(table, config.task)
    checkpoint = load_checkpoint(base).to(choose_device(options.compute))
    representation = representation_of(checkpoint, pooling=config.pooling)
    checkpoint.record = _record(checkpoint.record, representation, table, targets, options)
    plan = _plan(output, table, targets, report)
    with worker_pool(options.compute, checkpoint.device) as pool:
        engine = Engine(pool=pool)
        if config.method == "frozen":
            on_plan(plan)
            checkpoint.task_head = _fit_head(table, targets, representation, engine, on_protein)
            return _write_result(output, checkpoint, table, targets, engine, identity)
        run = RunDirectory(output.with_name(f"{output.name}.partial"))
        run.open(identity, lambda directory: None, force=config.force)
        training = FullTraining(table, targets, checkpoint, config, options.optimizer, run, pool)
        on_plan(replace(plan, num_steps=training.plan.num_steps, first_step=training.state.progress.step))
        trained = training.run(on_step, stop)
        if trained is None:
            return FinetuneSummary(output=None, task=targets.name, test={}, baseline={}, is_finished=False)
        summary = _write_result(output, trained.to(checkpoint.device), table, targets, engine, identity)
    remove(run.path(""))
    return summary


def _record(
    base: ModelRecord, representation: Representation, table: LabelTable, targets: Targets, options: FinetuneOptions
) -> ModelRecord:
    """Say what the model is going to be."""
    window_residues = base.window_residues
    if options.finetune.method == "full":
        # It is trained on whole proteins, and must compute others like those.
        window_residues = max(window_residues, *(len(protein.sequence) for protein in table.parts["train"]))
    return replace(
        base,
        window_residues=window_residues,
        layer=representation.layers[0],
        pooling=representation.poolings[0],
        configuration=_settings(options),
        classes=targets.classes,
        target=table.target,
    )


def _plan(output: Path, table: LabelTable, targets: Targets, report: ReadReport) -> FinetunePlan:
    return FinetunePlan(
        output=output,
        task=targets.name,
        target=table.target,
        classes=targets.classes,
        num_proteins={split: len(part) for split, part in table.parts.items()},
        num_steps=None,
        first_step=0,
        notes=[*table.notes, *report.warnings()],
    )


def _fit_head(
    table: LabelTable,
    targets: Targets,
    representation: Representation,
    engine: Engine,
    on_protein: Callable[[int], None],
) -> TaskHead:
    """Embed train and valid once, and fit a linear head to the vectors."""
    vectors: dict[Split, NDArray[np.float32]] = {}
    for split in ("train", "valid"):
        rows = []
        for protein, embedding in engine.run(representation.proteins(), table.parts[split]):
            rows.append(embedding.values)
            on_protein(len(protein.sequence))
        vectors[split] = np.stack(rows)
    valid = (vectors["valid"], targets.of_split["valid"])
    if targets.classes:
        return fit_classifier(vectors["train"], targets.of_split["train"], valid, targets.classes)
    return fit_values(vectors["train"], targets.of_split["train"], valid)


# What is left behind


def _write_result(
    output: Path, checkpoint: Checkpoint, table: LabelTable, targets: Targets, engine: Engine, identity: dict[str, Any]
) -> FinetuneSummary:
    """Predict the test part, measure, and write the model directory with its tables; it appears complete."""
    head = checkpoint.task_head
    assert head is not None
    predictions = representation_of(checkpoint).predictions(head)
    outputs = np.stack([output for _, output in engine.run(predictions, table.parts["test"])])
    test, baseline = targets.measure(outputs), targets.measure(targets.baseline())
    checkpoint.record = replace(checkpoint.record, metrics={"test": test, "baseline": baseline})
    metrics = {"identity": identity, "task": targets.name, "test": test, "baseline": baseline}
    with atomic_directory(output, marker=_METRICS) as directory:
        write_checkpoint_files(
            checkpoint, directory, finetuned_card(checkpoint, _facts(table, targets, test, baseline))
        )
        write_json(directory / _METRICS, metrics)
        with atomic_file(directory / "test_predictions.tsv") as stream:
            stream.write(table_line(["id", "label", *prediction_header(targets.classes)]))
            for protein, values in zip(table.parts["test"], outputs, strict=True):
                stream.write(table_line([protein.id, protein.label, *prediction_cells(values, targets.classes)]))
    return FinetuneSummary(output=output, task=targets.name, test=test, baseline=baseline, is_finished=True)


def _facts(table: LabelTable, targets: Targets, test: Metrics, baseline: Metrics) -> dict[str, str]:
    rows = {f"{split} proteins": f"{len(part):,}" for split, part in table.parts.items()}
    trivial = "majority" if targets.classes else "mean"
    for name, value in test.items():
        trivially = baseline[name]
        ours = "undefined" if value is None else f"{value:.3f}"
        theirs = "undefined" if trivially is None else f"{trivially:.3f}"
        rows[f"test {name}"] = f"{ours} ({trivial}: {theirs})"
    return rows


def _identity(labels: Path, options: FinetuneOptions, base: Path) -> dict[str, Any]:
    """Collect what makes two fine-tunings the same."""
    return {**_settings(options), "labels": sha256_of_inputs([labels]), "model": model_sha256(base)}


def _settings(options: FinetuneOptions) -> dict[str, Any]:
    parts = (options.finetune, options.optimizer, options.reader)
    return {name: value for part in parts for name, value in as_plain_values(part).items()}


def _recall_summary(output: Path, identity: dict[str, Any]) -> FinetuneSummary:
    """Read the result of the very same command.

    Raises:
        OutputExistsError: something else stands there.
    """
    try:
        recorded = read_json(output / _METRICS)
    except (OSError, ValueError):
        raise OutputExistsError(output, "is no result of finetune") from None
    if recorded["identity"] != identity or identity["labels"] is None:
        raise OutputExistsError(output, "was made with other settings or data")
    return FinetuneSummary(
        output=output,
        task=recorded["task"],
        test=recorded["test"],
        baseline=recorded["baseline"],
        is_finished=True,
    )
