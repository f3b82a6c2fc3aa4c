"""Fine-tuning of the whole encoder, by the loop that pretraining uses."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from protembed.config.finetune import FinetuneConfig
from protembed.config.optimizer import OptimizerConfig, OptimizerName
from protembed.data.alphabet import encode
from protembed.data.batching import LabelledPlan, labelled_packs
from protembed.data.labels import LabelTable
from protembed.device import WorkerPool
from protembed.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from protembed.model.encoder import initialise
from protembed.model.heads import TaskHead
from protembed.training.distributed import Compute
from protembed.training.loop import StepReport, Training, plan_training, train
from protembed.training.objectives import WholeProtein, evaluate
from protembed.training.optimizer import make_optimizers
from protembed.training.run_directory import RunDirectory
from protembed.training.state import RunState
from protembed.training.targets import Targets

_DEFAULT_RATES: Mapping[OptimizerName, float] = {"adamw": 3e-4, "muon": 3e-4, "sgd": 0.1}


class FullTraining:
    """The training of an encoder and a new head together, resumed where its run stands.

    Args:
        table: the labelled proteins.
        targets: their labels as numbers.
        checkpoint: the model, whose record names layer and pooling; it receives the head, and is trained in place.
        config: epochs, batches and seed.
        optimizer: of encoder and head.
        run: keeps the checkpoints and the best model.
        pool: computes packs side by side.

    Attributes:
        plan: the course of the training.
        state: how far it has come.
    """

    def __init__(
        self,
        table: LabelTable,
        targets: Targets,
        checkpoint: Checkpoint,
        config: FinetuneConfig,
        optimizer: OptimizerConfig,
        run: RunDirectory,
        pool: WorkerPool,
    ) -> None:
        self._checkpoint, self._run, self._compute = checkpoint, run, Compute(pool=pool)
        head = TaskHead(checkpoint.encoder.shape.dim, targets.classes)
        initialise(head, "gaussian", torch.Generator().manual_seed(config.seed))
        if not targets.classes:
            head.offset.fill_(targets.of_split["train"].mean())
            head.scale.fill_(targets.of_split["train"].std())
        checkpoint.task_head = head
        self._objective = WholeProtein(
            checkpoint.encoder, head, checkpoint.record.pooling or "mean", checkpoint.record.layer
        )
        self._objective.to(checkpoint.device)
        self._batches = LabelledPlan(
            [encode(protein.sequence) for protein in table.parts["train"]],
            targets.tensor("train"),
            config.tokens_per_batch,
            config.seed,
        )
        valid = [encode(protein.sequence) for protein in table.parts["valid"]]
        self._valid_packs = labelled_packs(valid, targets.tensor("valid"), np.arange(len(valid)))
        steps = self._batches.steps_per_epoch
        self.plan = plan_training(
            optimizer,
            config.epochs * steps,
            _DEFAULT_RATES,
            validate_every=steps,
            save_every=steps,
        )
        self._optimizers = make_optimizers(self._objective, self.plan.optimizer, self.plan.weight_decay, pool)
        self.state = RunState(run.path(""))
        self.state.restore(self._objective, self._optimizers)

    def run(self, on_step: Callable[[StepReport], None], stop: Callable[[], bool]) -> Checkpoint | None:
        """Train to the end and return the best model; None if it was left before."""
        training = Training(
            objective=self._objective, batches=self._batches, optimizers=self._optimizers, compute=self._compute
        )
        for report in train(training, self.plan, self.state, validate=self._validate, stop=stop):
            if report.is_best:
                save_checkpoint(self._checkpoint, self._run.path("best"), card="The best model so far.\n")
            on_step(report)
        return load_checkpoint(self._run.path("best")) if self.state.progress.step == self.plan.num_steps else None

    def _validate(self) -> dict[str, float]:
        return {"valid_loss": evaluate(self._objective, self._valid_packs, self._compute).mean().item()}
