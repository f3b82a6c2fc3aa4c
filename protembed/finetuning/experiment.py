"""The course of an experiment: train and evaluate the model and its baselines in every fold; keep the best model."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.callbacks import Callbacks
from protembed.config.finetune import FinetuneMethod, FinetuneOptions
from protembed.config.model_sizes import EncoderShape
from protembed.device import choose_device
from protembed.evaluation.metrics import best_threshold
from protembed.finetuning.baselines import FrozenEncoder, Predictor, constant_baseline, sequence_baselines
from protembed.finetuning.labels import LabelledProtein
from protembed.finetuning.prediction import predict_proteins
from protembed.finetuning.runs import TrainingRuns
from protembed.finetuning.sharing import compute_shared
from protembed.finetuning.targets import Prediction, TaskTable
from protembed.finetuning.trainer import Divergence, EncoderTrainer, FinetuneSpec
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.heads import ContactHead, TaskHead
from protembed.model.metadata import ModelMetadata
from protembed.training.distributed import Executor

# The names of the predictors that need a model.
NAME_OF_METHOD: dict[FinetuneMethod, str] = {"frozen": "frozen", "full": "fine-tuned", "lora": "LoRA"}
RANDOM = "random initialisation"


@dataclass(frozen=True, kw_only=True)
class Design:
    """What an experiment trains and tests, with every decision made.

    Attributes:
        folds: The tables whose test splits are predicted: a single one, or those of a cross-validation.
        final: The table that the final model is trained on; the only fold where there is no cross-validation.
        base: The directory of the pretrained model.
        metadata: The metadata of all models: window, layer, poolings and task.
        training_kmers: Hashes of the k-mers of the final training proteins, (k-mers,), int64, ascending.
        precision: The type of the inputs of matrix products in training.
    """

    folds: Sequence[TaskTable]
    final: TaskTable
    base: Path
    method: FinetuneMethod
    metadata: ModelMetadata
    training_kmers: Tensor
    shape: EncoderShape
    precision: torch.dtype = torch.float32

    @property
    def has_folds(self) -> bool:
        """Whether this is a cross-validation."""
        return len(self.folds) > 1


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Predictor):
    """A model and its predictions for the test split.

    Attributes:
        checkpoint: The model with its head.
        valid_loss: The validation loss, by which one of several trainings is chosen.
        kept_step: The step after which the validation loss was lowest; 0 if training did not lower it,
            None without a training by steps.
        frozen_loss: The validation loss of the frozen encoder from which the training began; None if it is not known.
        log: The lines about the steps of the training; empty where there was none.
    """

    checkpoint: Checkpoint
    valid_loss: float
    kept_step: int | None = None
    frozen_loss: float | None = None
    log: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """The final model, and the predictions of all predictors.

    Attributes:
        predictions: For each predictor, the model last, and for each of its trainings: the prediction for each test
            protein, fold by fold.
        final_predictions: The model's predictions by the training that is kept, or by its first training in each fold.
        is_random: Whether another seed would give another model.
    """

    final: TrainedModel
    predictions: Mapping[str, Sequence[Sequence[Prediction]]]
    final_predictions: Sequence[Prediction]
    is_random: bool
    notes: Sequence[str]


class _StoppedError(Exception):
    """The caller stopped a training, which is saved."""


class Experiment:
    """Trains and evaluates the model and its baselines in all folds and repeats, on the threads of one engine.

    Several processes share the training and the embedding. All take the same decisions, because they have the same
    losses.
    """

    def __init__(
        self,
        design: Design,
        options: FinetuneOptions,
        engine: Engine,
        runs: TrainingRuns,
        callbacks: Callbacks,
    ) -> None:
        self._design, self._options, self._config = design, options, options.finetune
        self._engine, self._runs, self._callbacks = engine, runs, callbacks
        self._device, self._processes = choose_device(options.compute), runs.processes
        self._predictions: dict[str, list[list[Prediction]]] = defaultdict(list)
        self._divergences: dict[str, list[Divergence | None]] = defaultdict(list)
        # Vectors of the frozen pretrained encoder by sequence: folds share most of their proteins.
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._best: TrainedModel | None = None
        self._best_repeat = 0

    def run(self) -> ExperimentResult | None:
        """Train and evaluate all predictors; return None if a training was stopped."""
        try:
            for fold, table in enumerate(self._design.folds):
                self._test_baselines(table)
                self._test_models(fold, table)
                self._test_random_baseline(fold, table)
            if self._design.has_folds:
                self._train_final()
        except _StoppedError:
            return None
        assert self._best is not None
        model = NAME_OF_METHOD[self._design.method]
        last = [RANDOM, *dict.fromkeys([NAME_OF_METHOD["frozen"], model])]
        order = [*(name for name in self._predictions if name not in last), *last]
        return ExperimentResult(
            final=self._best,
            predictions={name: self._predictions[name] for name in order if name in self._predictions},
            final_predictions=self._predictions[model][self._best_repeat],
            is_random=self._design.method != "frozen" or self._config.head == "mlp",
            notes=self._notes(self._best),
        )

    # The predictors

    def _test_baselines(self, table: TaskTable) -> None:
        """Evaluate the baselines that need no model, in the first process, which alone reports them."""
        self._callbacks.on_stage("baselines", None, 0)
        if not self._processes.is_first:
            return
        self._collect(constant_baseline(self._design.final, table))
        for baseline in sequence_baselines(table, self._config.seed):
            self._collect(baseline)

    def _test_models(self, fold: int, table: TaskTable) -> None:
        """Evaluate the pretrained encoder, frozen and trained; keep the training with the lowest validation loss."""
        frozen = self._fit_frozen(table)
        self._collect(frozen)
        if self._design.method == "frozen":
            self._best = frozen
            return
        for repeat in range(self._config.repeats):
            model = self._train(f"model-{fold}-{repeat}", table, repeat, frozen.checkpoint.task_head)
            self._collect(model, repeat)
            if repeat == 0 or self._best is None or model.valid_loss < self._best.valid_loss:
                self._best, self._best_repeat = model, repeat

    def _test_random_baseline(self, fold: int, table: TaskTable) -> None:
        """Evaluate an encoder of the same shape that starts from random weights, unless the options skip it.

        It comes after the model, which is what the user asked for. Where the pretrained encoder is not fully trained,
        the random one stays frozen.
        """
        if self._config.skip_random_baseline:
            return
        if self._design.method != "full":
            self._collect(self._fit_frozen(table, random=True))
            return
        for repeat in range(self._config.repeats):
            self._collect(self._train(f"random-{fold}-{repeat}", table, repeat, None), repeat)

    def _train_final(self) -> None:
        """Train the final model on the proteins of all folds."""
        self._best, self._best_repeat = self._fit_frozen(self._design.final), 0
        if self._design.method != "frozen":
            self._best = self._train("final", self._design.final, 0, self._best.checkpoint.task_head)

    def _collect(self, predictor: Predictor, repeat: int = 0) -> None:
        """Append a predictor's predictions in one fold to those in the folds before."""
        trainings = self._predictions[predictor.name]
        trainings += [[] for _ in range(repeat + 1 - len(trainings))]
        trainings[repeat] += predictor.predictions

    # One model

    def _fit_frozen(self, table: TaskTable, *, random: bool = False) -> TrainedModel:
        """Fit a head to the vectors of the frozen encoder, with its pretrained or with random weights."""
        checkpoint = self._load_model(random, self._config.seed)
        name = RANDOM if random else NAME_OF_METHOD["frozen"]
        self._callbacks.on_stage(name, None, 0)
        # A pooling that is yet to be learned starts as the mean.
        poolings = tuple("mean" if pooling == "attention" else pooling for pooling in self._design.metadata.poolings)
        embedder = replace(Embedder.from_checkpoint(checkpoint, pooling="mean"), poolings=poolings)
        frozen = FrozenEncoder(
            embedder=embedder,
            engine=self._engine,
            processes=self._processes,
            on_protein=self._callbacks.on_progress,
            known=self._vectors if self._design.has_folds and not random else {},
        )
        head, valid_loss = frozen.fit_head(table, self._config)
        checkpoint.task_head = head.to(checkpoint.device)
        predictions = self._predict(checkpoint, embedder, table.splits["test"])
        return TrainedModel(name=name, checkpoint=checkpoint, predictions=predictions, valid_loss=valid_loss)

    def _train(self, run_name: str, table: TaskTable, repeat: int, head: TaskHead | None) -> TrainedModel:
        """Train the encoder and its head, with the number of the repeat added to the seed.

        It starts from a head that was fitted to the frozen encoder. Without one, all of an encoder of the same shape is
        trained from random weights.
        """
        random, seed = head is None, self._config.seed + repeat
        spec = FinetuneSpec(
            method="full" if random else self._design.method,
            config=self._config,
            optimizer=self._options.optimizer,
            executor=Executor(pool=self._engine.pool, processes=self._processes, precision=self._design.precision),
            seed=seed,
            head=head,
        )
        checkpoint, run_directory = self._load_model(random, seed), self._runs.open(run_name)
        trainer = EncoderTrainer(table, checkpoint, spec, run_directory)
        name = RANDOM if random else NAME_OF_METHOD[spec.method]
        for sentence in trainer.warnings:
            self._callbacks.on_warning(sentence)
        self._callbacks.on_stage(name, trainer.schedule.num_steps, trainer.checkpoints.progress.step)
        if not trainer.run(self._callbacks.on_step, self._callbacks.stop):
            raise _StoppedError
        embedder = Embedder.from_checkpoint(checkpoint)
        if table.task.label_kind == "labels" and checkpoint.task_head is not None:
            probabilities = np.stack(self._predict(checkpoint, embedder, table.splits["valid"]))
            checkpoint.task_head.threshold.fill_(best_threshold(table.known_targets("valid"), probabilities))
        # The contact head was fitted to the attention of the encoder before this training.
        checkpoint.contact_head = ContactHead(checkpoint.contact_head.weight.shape[1]).to(self._device)
        self._divergences[name].append(trainer.divergence())
        return TrainedModel(
            name=name,
            checkpoint=checkpoint,
            predictions=self._predict(checkpoint, embedder, table.splits["test"]),
            valid_loss=trainer.valid_loss,
            kept_step=trainer.checkpoints.progress.best_step,
            frozen_loss=trainer.frozen_loss,
            log=run_directory.read_log(),
        )

    def _load_model(self, random: bool, seed: int) -> Checkpoint:
        checkpoint = load_checkpoint(self._design.base)
        if random:
            checkpoint = new_checkpoint(checkpoint.encoder.shape, "gaussian", seed)
        checkpoint.metadata, checkpoint.task_head = self._design.metadata, None
        checkpoint.training_kmers = self._design.training_kmers
        return checkpoint.to(self._device)

    def _predict(
        self, checkpoint: Checkpoint, embedder: Embedder, proteins: Sequence[LabelledProtein]
    ) -> list[Prediction]:
        assert checkpoint.task_head is not None
        head = checkpoint.task_head.eval()

        def predict(share: Sequence[LabelledProtein]) -> Iterator[NDArray[np.float32]]:
            return (prediction for _, prediction in predict_proteins(self._engine, embedder, head, share))

        return list(compute_shared(self._processes, proteins, predict))

    # What the user should know

    def _notes(self, best: TrainedModel) -> list[str]:
        notes = [
            _divergence_note(name, divergences) for name, divergences in self._divergences.items() if any(divergences)
        ]
        if best.kept_step == 0:
            notes.append(
                "fine-tuning did not improve the validation loss; "
                f"keeping the frozen encoder with its {self._config.head} head"
            )
        if self._config.precision == "auto" and self._design.precision == torch.bfloat16:
            notes.append("training multiplied in bfloat16; --precision float32 is slower and rounds less")
        if self._config.repeats > 1:
            notes.append("metrics are means over all trainings; the model with the lowest validation loss is kept")
        if self._design.has_folds:
            notes.append("metrics come from models that did not see the test proteins; the final model saw all of them")
        return notes


def _divergence_note(name: str, divergences: Sequence[Divergence | None]) -> str:
    """Count the trainings of a model that diverged, and describe the worst."""
    diverged = [divergence for divergence in divergences if divergence is not None]
    worst = max(diverged, key=lambda divergence: divergence.valid_loss)
    if len(divergences) == 1:
        return f"the training of {name!r} diverged: {worst}"
    return f"{len(diverged)} of {len(divergences)} trainings of {name!r} diverged; in the worst, {worst}"
