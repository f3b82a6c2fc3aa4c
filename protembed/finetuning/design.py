"""The design of an experiment: the decisions that the options leave open, and the run that carries it out."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from protembed.callbacks import Callbacks
from protembed.config.common import PrecisionName, Task, choose_region
from protembed.config.finetune import MAX_FULL_FINETUNE_PARAMETERS, FinetuneConfig, FinetuneMethod, FinetuneOptions
from protembed.device import choose_device
from protembed.errors import ConfigError, DamagedRunError
from protembed.finetuning.experiment import Design, Experiment, ExperimentResult
from protembed.finetuning.runs import TrainingRuns
from protembed.finetuning.targets import TaskTable
from protembed.finetuning.training_data import describe_training
from protembed.inference.engine import inference_engine
from protembed.model.catalog import ResolvedModel, model_name
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.model.metadata import ModelMetadata
from protembed.model.representation import parse_poolings
from protembed.training.precision import precision_name, resolve_precision
from protembed.training.run_directory import RunDirectory


def make_design(
    folds: Sequence[TaskTable], final: TaskTable, model: ResolvedModel, options: FinetuneOptions
) -> tuple[Design, list[str]]:
    """Make the decisions that the options left open, and return them with warnings about the pretrained model."""
    checkpoint = load_checkpoint(model)
    method = _choose_method(options.finetune, checkpoint, final.task)
    training_data, training_kmers = describe_training(final, folds)
    metadata = _metadata(checkpoint.metadata, method, final, options)
    design = Design(
        folds=folds,
        final=final,
        base=model.directory,
        method=method,
        metadata=replace(metadata, training_data=training_data),
        training_kmers=training_kmers,
        shape=checkpoint.encoder.shape,
    )
    return design, checkpoint.warnings


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


def _metadata(base: ModelMetadata, method: FinetuneMethod, final: TaskTable, options: FinetuneOptions) -> ModelMetadata:
    """Make the metadata of the fine-tuned model from those of the pretrained one."""
    per_residue, region = final.task.per_residue, choose_region(options.labels.region)
    pooling = (base.pooling or "mean") if options.finetune.pooling == "auto" else options.finetune.pooling
    if options.finetune.pooling == "auto" and (method == "frozen" or per_residue):
        pooling = pooling.replace("attention", "mean")  # attention pooling would not be trained
    return replace(
        base,
        pooling=None if per_residue else ",".join(parse_poolings(pooling)),
        configuration={
            **options.settings(),
            "from_model": model_name(options.model.model),
            **({"from_finetuned": True} if base.has_finetuned_encoder else {}),
        },
        classes=final.classes,
        task=final.task.name,
        target=final.target,
        region=None if region is None else str(region),
    )


def _with_precision(design: Design, requested: PrecisionName, run: RunDirectory, device: torch.device) -> Design:
    """Add the precision of the training, which the run and the metadata of the models record."""
    if design.method == "frozen":
        return design
    precision = resolve_precision(run, requested, device)
    configuration = {**design.metadata.configuration, "precision": precision_name(precision)}
    return replace(design, precision=precision, metadata=replace(design.metadata, configuration=configuration))


def run_experiment(
    design: Design, options: FinetuneOptions, runs: TrainingRuns, callbacks: Callbacks
) -> ExperimentResult | None:
    """Run the experiment, or resume it; with `force` a damaged one is started over.

    Returns:
        Its result, of which the first process alone has all baselines; None if a training was stopped.

    Raises:
        DamagedRunError: The experiment is damaged. With `force`, several processes raise it too, because the others
            cannot leave the middle of a training; then it was removed, and the next call starts over.
    """
    device = choose_device(options.compute)
    with inference_engine(options.compute, device, design.shape) as engine:

        def run(*, force: bool = False) -> ExperimentResult | None:
            decided = _with_precision(design, options.finetune.precision, runs.open(force=force), device)
            return Experiment(decided, options, engine, runs, callbacks).run()

        try:
            return run()
        except DamagedRunError:
            if not options.finetune.force:
                raise
            if runs.processes.size > 1:
                runs.discard()
                raise
            return run(force=True)
