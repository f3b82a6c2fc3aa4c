"""The rungs of a ladder that need a model: trained, or frozen with a fitted head, and applied to the test part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protembed.analysis.rungs import Rung, frozen_head
from protembed.analysis.scores import Output
from protembed.config.common import OptimizerConfig
from protembed.config.finetune import FinetuneConfig, FinetuneMethod
from protembed.data.labels import LabelledProtein, LabelTable
from protembed.data.targets import Targets
from protembed.inference.embedding import Representation, refuse_infinite, representation_of
from protembed.inference.engine import Engine
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.heads import ContactHead, TaskHead
from protembed.model.metadata import ModelRecord
from protembed.training.distributed import Compute
from protembed.training.finetuning import Course, Divergence, EncoderTraining, choose_threshold
from protembed.training.loop import StepReport
from protembed.training.run_directory import RunDirectory

RUNG_OF_METHOD: dict[FinetuneMethod, str] = {"frozen": "frozen", "full": "fine-tuned", "lora": "LoRA"}
RANDOM = "random initialisation"


@dataclass(frozen=True, kw_only=True)
class Watcher:
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
class ModelRung:
    """A model, and the rung that it has made.

    Attributes:
        checkpoint: the model with its head.
        rung: what it predicts of the test part.
        valid_loss: on the validation part, by which repeats are chosen.
        has_improved: whether its training made it better there than it began.
        divergence: The worst epoch of a training that diverged; None for any other.
    """

    checkpoint: Checkpoint
    rung: Rung
    valid_loss: float
    has_improved: bool = True
    divergence: Divergence | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRungs:
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
    record: ModelRecord
    method: FinetuneMethod
    config: FinetuneConfig
    optimizer: OptimizerConfig
    engine: Engine
    compute: Compute
    run: RunDirectory
    identity: Mapping[str, Any]
    device: torch.device
    watcher: Watcher

    def read_log(self, place: str) -> list[dict[str, Any]]:
        """Read the log of a training by the name of its directory; empty where there was none."""
        return RunDirectory(self.run.path(place)).read_log()

    def frozen(self, table: LabelTable, targets: Targets, *, random: bool = False) -> ModelRung:
        """Fit a head to the vectors of the encoder as it is, or of one with random weights."""
        checkpoint = self._start(random, self.config.seed)
        name = RANDOM if random else RUNG_OF_METHOD["frozen"]
        self.watcher.on_stage(name, None, 0)
        # A pooling that is yet to be learned begins as the mean.
        poolings = tuple("mean" if pooling == "attention" else pooling for pooling in self.record.poolings)
        representation = replace(representation_of(checkpoint, pooling="mean"), poolings=poolings)
        head, valid_loss = frozen_head(
            table, targets, representation, self.engine, self.config, self.watcher.on_protein
        )
        checkpoint.task_head = head.to(checkpoint.device)
        return self._rung(name, checkpoint, representation, table, valid_loss)

    def trained(
        self, place: str, table: LabelTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> ModelRung | None:
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
        course = Course(
            method=method, config=self.config, optimizer=self.optimizer, compute=self.compute, seed=seed, head=head
        )
        training = EncoderTraining(table, targets, checkpoint, course, run)
        name = RANDOM if random else RUNG_OF_METHOD[method]
        for sentence in training.warnings:
            self.watcher.on_warning(sentence)
        self.watcher.on_stage(name, training.plan.num_steps, training.state.progress.step)
        if not training.run(self.watcher.on_step, self.watcher.stop):
            return None
        if targets.task.answer == "labels" and checkpoint.task_head is not None:
            known = np.stack(self._predict(checkpoint, representation_of(checkpoint), table.parts["valid"]))
            choose_threshold(checkpoint.task_head, targets.known("valid"), known)
        # It was fitted to the attention of another encoder.
        checkpoint.contact_head = ContactHead(checkpoint.contact_head.weight.shape[1]).to(self.device)
        rung = self._rung(name, checkpoint, representation_of(checkpoint), table, training.valid_loss)
        return replace(rung, has_improved=training.state.progress.best_step != 0, divergence=training.divergence())

    def _start(self, random: bool, seed: int) -> Checkpoint:
        checkpoint = load_checkpoint(self.base)
        if random:
            checkpoint = new_checkpoint(checkpoint.encoder.shape, "gaussian", seed)
        checkpoint.record, checkpoint.task_head = self.record, None
        return checkpoint.to(self.device)

    def _rung(
        self,
        name: str,
        checkpoint: Checkpoint,
        representation: Representation,
        table: LabelTable,
        valid_loss: float,
    ) -> ModelRung:
        rung = Rung(name=name, outputs=self._predict(checkpoint, representation, table.parts["test"]))
        return ModelRung(checkpoint=checkpoint, rung=rung, valid_loss=valid_loss)

    def _predict(
        self, checkpoint: Checkpoint, representation: Representation, proteins: Sequence[LabelledProtein]
    ) -> list[Output]:
        assert checkpoint.task_head is not None
        checkpoint.task_head.eval()
        predictions = representation.predictions(checkpoint.task_head)
        outputs = []
        for protein, output in self.engine.run(predictions, proteins):
            refuse_infinite(protein.id, output, "predictions")
            outputs.append(output)
        return outputs
