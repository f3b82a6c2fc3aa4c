"""The rungs of a ladder that need a model: trained, or frozen with a fitted head, and applied to the test part."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protembed.config.common import OptimizerConfig
from protembed.config.finetune import FinetuneConfig, FinetuneMethod
from protembed.finetuning.baselines import Baseline, constant_baseline, frozen_head, sequence_baselines
from protembed.finetuning.evaluation import Output
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
from protembed.training.loop import StepReport
from protembed.training.run_directory import RunDirectory

RUNG_OF_METHOD: dict[FinetuneMethod, str] = {"frozen": "frozen", "full": "fine-tuned", "lora": "LoRA"}
RANDOM = "random initialisation"


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Who is told of the course, and asked whether to go on.

    Attributes:
        on_stage: told the name of each stage, the steps of a training (None: it is none) and those of an earlier run.
        on_step: told after each step of a training.
        on_protein: told the residues of each protein that was embedded.
        on_warning: told what the user should know, in a sentence.
        stop: asked after each step; when true the training is saved and left.
    """

    on_stage: Callable[[str, int | None, int], None] = lambda name, num_steps, first_step: None
    on_step: Callable[[StepReport], None] = lambda report: None
    on_protein: Callable[[int], None] = lambda num_residues: None
    on_warning: Callable[[str], None] = lambda sentence: None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model, and the rung that it has made.

    Attributes:
        checkpoint: the model with its head.
        rung: what it predicts of the test part.
        valid_loss: on the validation part, by which repeats are chosen.
        has_improved: whether its training made it better there than it began.
        divergence: The worst epoch of a training that diverged; None for any other.
    """

    checkpoint: Checkpoint
    rung: Baseline
    valid_loss: float
    has_improved: bool = True
    divergence: Divergence | None = None


@dataclass(frozen=True, kw_only=True)
class ModelTrainer:
    """Makes the rungs of a ladder.

    Attributes:
        base: the directory of the pretrained model.
        record: of the model to be: window, layer, pooling, task.
        method: how it learns.
        config: its head, batches and epochs.
        optimizer: of the trainings.
        engine: embeds and predicts.
        compute: trains.
        run: keeps the trainings' checkpoints, each in a directory of its own.
        identity: of the run.
        device: of encoder and head.
        watcher: is told of the course.
    """

    base: Path
    record: ModelMetadata
    method: FinetuneMethod
    config: FinetuneConfig
    optimizer: OptimizerConfig
    engine: Engine
    compute: Executor
    run: RunDirectory
    identity: Mapping[str, Any]
    device: torch.device
    watcher: Callbacks

    def read_log(self, place: str) -> list[dict[str, Any]]:
        """Read the log of a training by the name of its directory; empty where there was none."""
        return RunDirectory(self.run.path(place)).read_log()

    def frozen(self, table: SplitTable, targets: Targets, *, random: bool = False) -> TrainedModel:
        """Fit a head to the vectors of the encoder as it is, or of one with random weights."""
        checkpoint = self._start(random, self.config.seed)
        name = RANDOM if random else RUNG_OF_METHOD["frozen"]
        self.watcher.on_stage(name, None, 0)
        # A pooling that is yet to be learned begins as the mean.
        poolings = tuple("mean" if pooling == "attention" else pooling for pooling in self.record.poolings)
        representation = replace(Embedder.from_checkpoint(checkpoint, pooling="mean"), poolings=poolings)
        head, valid_loss = frozen_head(
            table, targets, representation, self.engine, self.config, self.watcher.on_protein
        )
        checkpoint.task_head = head.to(checkpoint.device)
        return self._rung(name, checkpoint, representation, table, valid_loss)

    def trained(
        self, place: str, table: SplitTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> TrainedModel | None:
        """Train the encoder and its head; None if the training was left before its end.

        Args:
            place: the name of the training's directory.
            table: the proteins.
            targets: their labels.
            seed: of the training.
            head: fitted to the frozen encoder, to start from; None: an encoder of the same shape starts from random
                weights, with a new head, and all of it is trained.
        """
        random = head is None
        method: FinetuneMethod = "full" if random else self.method
        checkpoint = self._start(random, seed)
        run = RunDirectory(self.run.path(place))
        run.open(self.identity, lambda directory: None, force=False)
        course = FinetuneSpec(
            method=method, config=self.config, optimizer=self.optimizer, compute=self.compute, seed=seed, head=head
        )
        training = EncoderTrainer(table, targets, checkpoint, course, run)
        name = RANDOM if random else RUNG_OF_METHOD[method]
        for sentence in training.warnings:
            self.watcher.on_warning(sentence)
        self.watcher.on_stage(name, training.plan.num_steps, training.state.progress.step)
        if not training.run(self.watcher.on_step, self.watcher.stop):
            return None
        if targets.task.label_kind == "labels" and checkpoint.task_head is not None:
            known = np.stack(self._predict(checkpoint, Embedder.from_checkpoint(checkpoint), table.splits["valid"]))
            choose_threshold(checkpoint.task_head, targets.known_targets("valid"), known)
        # It was fitted to the attention of another encoder.
        checkpoint.contact_head = ContactHead(checkpoint.contact_head.weight.shape[1]).to(self.device)
        rung = self._rung(name, checkpoint, Embedder.from_checkpoint(checkpoint), table, training.valid_loss)
        return replace(rung, has_improved=training.state.progress.best_step != 0, divergence=training.divergence())

    def _start(self, random: bool, seed: int) -> Checkpoint:
        checkpoint = load_checkpoint(self.base)
        if random:
            checkpoint = new_checkpoint(checkpoint.encoder.shape, "gaussian", seed)
        checkpoint.metadata, checkpoint.task_head = self.record, None
        return checkpoint.to(self.device)

    def _rung(
        self,
        name: str,
        checkpoint: Checkpoint,
        representation: Embedder,
        table: SplitTable,
        valid_loss: float,
    ) -> TrainedModel:
        rung = Baseline(name=name, outputs=self._predict(checkpoint, representation, table.splits["test"]))
        return TrainedModel(checkpoint=checkpoint, rung=rung, valid_loss=valid_loss)

    def _predict(
        self, checkpoint: Checkpoint, representation: Embedder, proteins: Sequence[LabelledProtein]
    ) -> list[Output]:
        assert checkpoint.task_head is not None
        checkpoint.task_head.eval()
        predictions = representation.predictions(checkpoint.task_head)
        outputs = []
        for protein, output in self.engine.run(predictions, proteins):
            check_finite(protein.id, output, "predictions")
            outputs.append(output)
        return outputs


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """What a climb has come to.

    Attributes:
        kept: the model that is kept.
        outputs: of each rung, of each of its trainings, what it predicted of all measured proteins, fold by fold; the
            model's rung is the last.
        kept_outputs: those of the model's rung by the training that is kept, or that stands for it in folds.
        log: of the steps of the training that is kept; empty where there was none.
        notes: what should be known about it, in sentences.
    """

    kept: TrainedModel
    outputs: Mapping[str, Sequence[Sequence[Output]]]
    kept_outputs: Sequence[Output]
    log: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


class Experiment:
    """Makes the rungs of all folds and repeats.

    Args:
        rungs: makes those that need a model.
        division: of the table.
        targets: the labels of each fold.
        final: those of the parts that the kept model is made of.
    """

    def __init__(self, rungs: ModelTrainer, division: DataSplit, targets: Sequence[Targets], final: Targets) -> None:
        self._rungs, self._division, self._targets, self._final = rungs, division, targets, final
        self._outputs: dict[str, list[list[Output]]] = defaultdict(list)
        self._trainings: dict[str, list[Divergence | None]] = defaultdict(list)
        self._kept: TrainedModel | None = None
        self._kept_repeat, self._kept_place = 0, ""

    def climb(self) -> ExperimentResult | None:
        """Make every rung; None if a training was left before its end."""
        for fold, (table, targets) in enumerate(zip(self._division.folds, self._targets, strict=True)):
            self._rungs.watcher.on_stage("counting", None, 0)
            for rung in (
                constant_baseline(table, self._final),
                *sequence_baselines(table, targets, self._rungs.config.seed),
            ):
                self._add(rung.name, 0, rung.outputs)
            if not (self._train_models(fold, table, targets) and self._train_random_baseline(fold, table, targets)):
                return None
        if self._division.has_folds and not self._train_final():
            return None
        assert self._kept is not None
        model = RUNG_OF_METHOD[self._rungs.method]
        last = [RANDOM, *dict.fromkeys([RUNG_OF_METHOD["frozen"], model])]
        order = [*(name for name in self._outputs if name not in last), *last]
        return ExperimentResult(
            kept=self._kept,
            outputs={name: self._outputs[name] for name in order if name in self._outputs},
            kept_outputs=self._outputs[model][self._kept_repeat],
            log=self._rungs.read_log(self._kept_place),
            notes=self._notes(),
        )

    def _notes(self) -> list[str]:
        notes = [_divergence_note(name, found) for name, found in self._trainings.items() if any(found)]
        if self._kept is not None and not self._kept.has_improved:
            head = self._rungs.config.head
            notes.append(
                f"fine-tuning did not improve the validation loss; keeping the frozen encoder with its {head} head"
            )
        if self._rungs.config.repeats > 1:
            notes.append("the figures are means over all trainings; the one with the lowest validation loss is kept")
        if self._division.has_folds:
            notes.append(
                "the figures are of models that did not see the proteins; the one that is kept saw all of them"
            )
        return notes

    def _train_random_baseline(self, fold: int, table: SplitTable, targets: Targets) -> bool:
        """Make the rung of the same shape from random weights, unless it is not wanted.

        It comes after the model, which is what was asked for. Where the encoder is too large to be trained, or is not
        to be, its random weights are not trained either.
        """
        rungs = self._rungs
        if rungs.config.skip_random_baseline:
            return True
        if rungs.method != "full":
            self._add(RANDOM, 0, rungs.frozen(table, targets, random=True).rung.outputs)
            return True
        for repeat in range(rungs.config.repeats):
            trained = self._train(f"random-{fold}-{repeat}", table, targets, rungs.config.seed + repeat, None)
            if trained is None:
                return False
            self._add(RANDOM, repeat, trained.rung.outputs)
        return True

    def _train_models(self, fold: int, table: SplitTable, targets: Targets) -> bool:
        """Make the rungs of the pretrained encoder, and keep the best of its trainings on the validation part."""
        rungs = self._rungs
        frozen = rungs.frozen(table, targets)
        self._add(frozen.rung.name, 0, frozen.rung.outputs)
        if rungs.method == "frozen":
            self._kept = frozen
            return True
        for repeat in range(rungs.config.repeats):
            place, seed = f"model-{fold}-{repeat}", rungs.config.seed + repeat
            trained = self._train(place, table, targets, seed, frozen.checkpoint.task_head)
            if trained is None:
                return False
            self._add(trained.rung.name, repeat, trained.rung.outputs)
            if repeat == 0 or self._kept is None or trained.valid_loss < self._kept.valid_loss:
                self._kept, self._kept_repeat, self._kept_place = trained, repeat, place
        return True

    def _train_final(self) -> bool:
        """Make the model that is kept where every fold had one of its own."""
        rungs, table = self._rungs, self._division.final
        self._kept, self._kept_repeat, self._kept_place = rungs.frozen(table, self._final), 0, "final"
        if rungs.method != "frozen":
            head = self._kept.checkpoint.task_head
            self._kept = self._train("final", table, self._final, rungs.config.seed, head)
        return self._kept is not None

    def _train(
        self, place: str, table: SplitTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> TrainedModel | None:
        """Train a model, and remember whether the training diverged; arguments as for `ModelTrainer.trained`."""
        trained = self._rungs.trained(place, table, targets, seed, head)
        if trained is not None:
            self._trainings[trained.rung.name].append(trained.divergence)
        return trained

    def _add(self, name: str, training: int, outputs: Sequence[Output]) -> None:
        """Append what a rung predicted of a fold to what it predicted of those before."""
        trainings = self._outputs[name]
        trainings += [[] for _ in range(training + 1 - len(trainings))]
        trainings[training] += outputs


def _divergence_note(name: str, trainings: Sequence[Divergence | None]) -> str:
    """Say which of the trainings of a model diverged, and describe the worst."""
    diverged = [divergence for divergence in trainings if divergence is not None]
    worst = max(diverged, key=lambda divergence: divergence.valid_loss)
    if len(trainings) == 1:
        return f"the training of {name!r} diverged: {worst}"
    return f"{len(diverged)} of {len(trainings)} trainings of {name!r} diverged; in the worst, {worst}"
