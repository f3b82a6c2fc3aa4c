"""Train and evaluate the model and its baselines in every fold; keep the best model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protembed.callbacks import Callbacks
from protembed.config.common import OptimizerConfig
from protembed.config.finetune import FinetuneConfig, FinetuneMethod
from protembed.finetuning.baselines import constant_baseline, frozen_head, sequence_baselines
from protembed.finetuning.evaluation import Prediction
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.splits import DataSplit
from protembed.finetuning.targets import Targets
from protembed.finetuning.trainer import Divergence, EncoderTrainer, FinetuneSpec, choose_threshold
from protembed.inference.embedding import Embedder, check_finite
from protembed.inference.engine import Engine
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.heads import ContactHead, TaskHead
from protembed.model.metadata import ModelMetadata
from protembed.training.distributed import Executor
from protembed.training.run_directory import RunDirectory

# The names of the predictors that need a model.
NAME_OF_METHOD: dict[FinetuneMethod, str] = {"frozen": "frozen", "full": "fine-tuned", "lora": "LoRA"}
RANDOM = "random initialisation"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model and its predictions for the test split.

    Attributes:
        name: The name of the predictor.
        checkpoint: The model with its head.
        predictions: The prediction for each test protein.
        valid_loss: The validation loss, by which one of several trainings is chosen.
        has_improved: Whether the training lowered the validation loss.
        divergence: The worst epoch of a training that diverged; None for any other.
    """

    name: str
    checkpoint: Checkpoint
    predictions: Sequence[Prediction]
    valid_loss: float
    has_improved: bool = True
    divergence: Divergence | None = None


@dataclass(frozen=True, kw_only=True)
class ModelTrainer:
    """Trains models, or fits heads to frozen encoders, and predicts the test split with them.

    Attributes:
        base: The directory of the pretrained model.
        metadata: The metadata of the models: window, layer, poolings and task.
        method: How the pretrained encoder is trained.
        config: The kind of head, the batches and the epochs.
        optimizer: The optimiser of all trainings.
        engine: The engine that embeds and predicts.
        executor: The threads that train, and their precision.
        run_directory: The directory of the run; each training has its own directory in it.
        fingerprint: Settings and inputs that make two runs the same.
        device: The device of encoder and head.
    """

    base: Path
    metadata: ModelMetadata
    method: FinetuneMethod
    config: FinetuneConfig
    optimizer: OptimizerConfig
    engine: Engine
    executor: Executor
    run_directory: RunDirectory
    fingerprint: Mapping[str, Any]
    device: torch.device
    callbacks: Callbacks

    def fit_frozen(self, table: SplitTable, targets: Targets, *, random: bool = False) -> TrainedModel:
        """Fit a head to the vectors of the frozen encoder.

        Args:
            table: The labelled proteins.
            targets: The targets of the table.
            random: Whether the encoder has random weights instead of the pretrained ones.
        """
        checkpoint = self._load_model(random, self.config.seed)
        name = RANDOM if random else NAME_OF_METHOD["frozen"]
        self.callbacks.on_stage(name, None, 0)
        # A pooling that is yet to be learned starts as the mean.
        poolings = tuple("mean" if pooling == "attention" else pooling for pooling in self.metadata.poolings)
        embedder = replace(Embedder.from_checkpoint(checkpoint, pooling="mean"), poolings=poolings)
        head, valid_loss = frozen_head(table, targets, embedder, self.engine, self.config, self.callbacks.on_progress)
        checkpoint.task_head = head.to(checkpoint.device)
        predictions = self._predict(checkpoint, embedder, table.splits["test"])
        return TrainedModel(name=name, checkpoint=checkpoint, predictions=predictions, valid_loss=valid_loss)

    def train(
        self, directory_name: str, table: SplitTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> TrainedModel | None:
        """Train the encoder and its head; return None if the training was stopped.

        Args:
            directory_name: The name of the training's directory in the run directory.
            table: The labelled proteins.
            targets: The targets of the table.
            seed: The seed of the training.
            head: The head to start from, fitted to the frozen encoder. None trains all of an encoder of the same shape
                from random weights, with a new head.
        """
        random = head is None
        method: FinetuneMethod = "full" if random else self.method
        checkpoint = self._load_model(random, seed)
        run_directory = RunDirectory(self.run_directory.path(directory_name))
        run_directory.open(self.fingerprint, lambda directory: None, force=False)
        spec = FinetuneSpec(
            method=method, config=self.config, optimizer=self.optimizer, executor=self.executor, seed=seed, head=head
        )
        trainer = EncoderTrainer(table, targets, checkpoint, spec, run_directory)
        name = RANDOM if random else NAME_OF_METHOD[method]
        for sentence in trainer.warnings:
            self.callbacks.on_warning(sentence)
        self.callbacks.on_stage(name, trainer.schedule.num_steps, trainer.checkpoints.progress.step)
        if not trainer.run(self.callbacks.on_step, self.callbacks.stop):
            return None
        embedder = Embedder.from_checkpoint(checkpoint)
        if targets.task.label_kind == "labels" and checkpoint.task_head is not None:
            probabilities = np.stack(self._predict(checkpoint, embedder, table.splits["valid"]))
            choose_threshold(checkpoint.task_head, targets.known_targets("valid"), probabilities)
        # The contact head was fitted to the attention of the encoder before this training.
        checkpoint.contact_head = ContactHead(checkpoint.contact_head.weight.shape[1]).to(self.device)
        return TrainedModel(
            name=name,
            checkpoint=checkpoint,
            predictions=self._predict(checkpoint, embedder, table.splits["test"]),
            valid_loss=trainer.valid_loss,
            has_improved=trainer.checkpoints.progress.best_step != 0,
            divergence=trainer.divergence(),
        )

    def read_log(self, directory_name: str) -> list[dict[str, Any]]:
        """Read the log of a training; return an empty list where there was none.

        Args:
            directory_name: The name of the training's directory in the run directory.
        """
        return RunDirectory(self.run_directory.path(directory_name)).read_log()

    def _load_model(self, random: bool, seed: int) -> Checkpoint:
        checkpoint = load_checkpoint(self.base)
        if random:
            checkpoint = new_checkpoint(checkpoint.encoder.shape, "gaussian", seed)
        checkpoint.metadata, checkpoint.task_head = self.metadata, None
        return checkpoint.to(self.device)

    def _predict(
        self, checkpoint: Checkpoint, embedder: Embedder, proteins: Sequence[LabelledProtein]
    ) -> list[Prediction]:
        assert checkpoint.task_head is not None
        checkpoint.task_head.eval()
        predictions = []
        for protein, prediction in self.engine.run(embedder.predictions(checkpoint.task_head), proteins):
            check_finite(protein.id, prediction, "predictions")
            predictions.append(prediction)
        return predictions


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """The final model, and the predictions of all predictors.

    Attributes:
        predictions: For each predictor, the model last, and for each of its trainings: the prediction for each test
            protein, fold by fold.
        final_predictions: The model's predictions by the training that is kept, or by its first training in each fold.
        log: The lines about the steps of the training that is kept; empty where there was none.
        notes: Sentences about the final model and its metrics.
    """

    final: TrainedModel
    predictions: Mapping[str, Sequence[Sequence[Prediction]]]
    final_predictions: Sequence[Prediction]
    log: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


class Experiment:
    """Trains and evaluates the model and its baselines in all folds and repeats.

    Args:
        trainer: The trainer of all models.
        data_split: The folds in which predictors are tested, and the splits of the final model.
        targets: The targets of each fold.
        final_targets: The targets of the splits of the final model.
    """

    def __init__(
        self, trainer: ModelTrainer, data_split: DataSplit, targets: Sequence[Targets], final_targets: Targets
    ) -> None:
        self._trainer, self._data_split = trainer, data_split
        self._targets, self._final_targets = targets, final_targets
        self._predictions: dict[str, list[list[Prediction]]] = defaultdict(list)
        self._divergences: dict[str, list[Divergence | None]] = defaultdict(list)
        self._best: TrainedModel | None = None
        self._best_repeat, self._best_directory = 0, ""

    def run(self) -> ExperimentResult | None:
        """Train and evaluate all predictors; return None if a training was stopped."""
        for fold, (table, targets) in enumerate(zip(self._data_split.folds, self._targets, strict=True)):
            self._trainer.callbacks.on_stage("baselines", None, 0)
            for baseline in (
                constant_baseline(table, self._final_targets),
                *sequence_baselines(table, targets, self._trainer.config.seed),
            ):
                self._collect(baseline.name, 0, baseline.predictions)
            if not (self._train_models(fold, table, targets) and self._train_random_baseline(fold, table, targets)):
                return None
        if self._data_split.has_folds and not self._train_final():
            return None
        assert self._best is not None
        model = NAME_OF_METHOD[self._trainer.method]
        last = [RANDOM, *dict.fromkeys([NAME_OF_METHOD["frozen"], model])]
        order = [*(name for name in self._predictions if name not in last), *last]
        return ExperimentResult(
            final=self._best,
            predictions={name: self._predictions[name] for name in order if name in self._predictions},
            final_predictions=self._predictions[model][self._best_repeat],
            log=self._trainer.read_log(self._best_directory),
            notes=self._notes(),
        )

    def _train_models(self, fold: int, table: SplitTable, targets: Targets) -> bool:
        """Evaluate the pretrained encoder, frozen and trained; keep the training with the lowest validation loss."""
        trainer = self._trainer
        frozen = trainer.fit_frozen(table, targets)
        self._collect(frozen.name, 0, frozen.predictions)
        if trainer.method == "frozen":
            self._best = frozen
            return True
        for repeat in range(trainer.config.repeats):
            directory_name, seed = f"model-{fold}-{repeat}", trainer.config.seed + repeat
            model = self._train(directory_name, table, targets, seed, frozen.checkpoint.task_head)
            if model is None:
                return False
            self._collect(model.name, repeat, model.predictions)
            if repeat == 0 or self._best is None or model.valid_loss < self._best.valid_loss:
                self._best, self._best_repeat, self._best_directory = model, repeat, directory_name
        return True

    def _train_random_baseline(self, fold: int, table: SplitTable, targets: Targets) -> bool:
        """Evaluate an encoder of the same shape that starts from random weights, unless the options skip it.

        It comes after the model, which is what the user asked for. Where the pretrained encoder is not fully trained,
        the random one stays frozen.
        """
        trainer = self._trainer
        if trainer.config.skip_random_baseline:
            return True
        if trainer.method != "full":
            self._collect(RANDOM, 0, trainer.fit_frozen(table, targets, random=True).predictions)
            return True
        for repeat in range(trainer.config.repeats):
            model = self._train(f"random-{fold}-{repeat}", table, targets, trainer.config.seed + repeat, None)
            if model is None:
                return False
            self._collect(RANDOM, repeat, model.predictions)
        return True

    def _train_final(self) -> bool:
        """Train the final model on the proteins of all folds."""
        trainer, table = self._trainer, self._data_split.final
        self._best, self._best_repeat, self._best_directory = trainer.fit_frozen(table, self._final_targets), 0, "final"
        if trainer.method != "frozen":
            head = self._best.checkpoint.task_head
            self._best = self._train("final", table, self._final_targets, trainer.config.seed, head)
        return self._best is not None

    def _train(
        self, directory_name: str, table: SplitTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> TrainedModel | None:
        """Train a model by `ModelTrainer.train`, and note whether the training diverged."""
        model = self._trainer.train(directory_name, table, targets, seed, head)
        if model is not None:
            self._divergences[model.name].append(model.divergence)
        return model

    def _collect(self, name: str, repeat: int, predictions: Sequence[Prediction]) -> None:
        """Append a predictor's predictions in one fold to those in the folds before."""
        trainings = self._predictions[name]
        trainings += [[] for _ in range(repeat + 1 - len(trainings))]
        trainings[repeat] += predictions

    def _notes(self) -> list[str]:
        notes = [
            _divergence_note(name, divergences) for name, divergences in self._divergences.items() if any(divergences)
        ]
        if self._best is not None and not self._best.has_improved:
            head = self._trainer.config.head
            notes.append(
                f"fine-tuning did not improve the validation loss; keeping the frozen encoder with its {head} head"
            )
        if self._trainer.config.repeats > 1:
            notes.append("metrics are means over all trainings; the model with the lowest validation loss is kept")
        if self._data_split.has_folds:
            notes.append("metrics come from models that did not see the test proteins; the final model saw all of them")
        return notes


def _divergence_note(name: str, divergences: Sequence[Divergence | None]) -> str:
    """Count the trainings of a model that diverged, and describe the worst."""
    diverged = [divergence for divergence in divergences if divergence is not None]
    worst = max(diverged, key=lambda divergence: divergence.valid_loss)
    if len(divergences) == 1:
        return f"the training of {name!r} diverged: {worst}"
    return f"{len(diverged)} of {len(divergences)} trainings of {name!r} diverged; in the worst, {worst}"
