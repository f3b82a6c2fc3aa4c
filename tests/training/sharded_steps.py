"""Trains a tiny model alone, in two processes, and in two that shard it; `test_sharding.py` runs it in both of them.

It writes losses, and how far apart the weights are, as JSON to the path that it is given, beside checkpoints.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from protembed.config.model_sizes import ESM2Shape
from protembed.data.batching import MaskedBatch
from protembed.device import WorkerPool
from protembed.io.writing import write_json
from protembed.model.checkpoint import new_checkpoint
from protembed.pretraining.batches import fill_up
from protembed.training.checkpoints import Checkpoints
from protembed.training.distributed import SINGLE_PROCESS, Executor, joined_processes
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers, set_learning_rate
from protembed.training.sharding import shard_weights

CPU, NUM_STEPS = torch.device("cpu"), 6
RATES = {"sgd": 0.5, "adamw": 0.01, "muon": 0.01}


def draw(step):
    """Three micro-batches, of which one of two processes gets two, and the other one."""
    generator = torch.Generator().manual_seed(step)
    for num_tokens in (30, 41, 17):
        tokens = torch.randint(4, 24, (num_tokens,), generator=generator)
        positions = torch.arange(1, num_tokens, 3)
        offsets, rows = torch.tensor([0, num_tokens]), torch.zeros(1, dtype=torch.int64)
        yield MaskedBatch(
            tokens=tokens,
            offsets=offsets,
            rows=rows,
            positions=positions,
            targets=tokens[positions],
            num_residues=num_tokens,
        )


class Training:
    """A training of the same initial model in one of three ways."""

    def __init__(self, optimizer, processes, pool):
        model = new_checkpoint(ESM2Shape(num_layers=3, dim=36, num_heads=3), "gaussian", seed=0)
        self.objective, self.processes = MaskedLM(model.encoder, model.lm_head), processes
        if processes.is_sharded:
            shard_weights(self.objective, CPU, processes)
        executor = Executor(pool=pool, processes=processes)
        optimizers = make_optimizers(self.objective, optimizer, 0.01, executor)
        set_learning_rate(optimizers, RATES[optimizer])
        self.setup = TrainingSetup(
            objective=self.objective, micro_batches=self.micro_batches, optimizers=optimizers, executor=executor
        )

    def micro_batches(self, step):
        drawn = list(draw(step))
        return fill_up(self.processes.shard(drawn), len(drawn), self.processes)

    def steps(self, first=0, end=NUM_STEPS):
        results = [take_step(self.setup, self.micro_batches(step), 1.0) for step in range(first, end)]
        return [[result.loss, result.grad_norm] for result in results]

    def checkpoints(self, directory):
        return Checkpoints(directory, processes=self.processes)

    def save(self, directory):
        self.checkpoints(directory).save(self.objective, self.setup.optimizers)

    def restored(self, directory):
        self.checkpoints(directory).restore(self.objective, self.setup.optimizers)
        return self

    def weights(self):
        parameters = (parameter.detach() for parameter in self.objective.parameters())
        return [weight.full_tensor() if self.processes.is_sharded else weight for weight in parameters]


def distance(one, other):
    return max((left - right).abs().max().item() for left, right in zip(one.weights(), other.weights(), strict=True))


def compare(optimizer, ways, pool):
    trainings = {name: Training(optimizer, processes, pool) for name, processes in ways.items()}
    steps = {name: training.steps() for name, training in trainings.items()}
    return {"steps": steps, "distance": distance(trainings["sharded"], trainings["two"])}


def move_between_processes(optimizer, ways, pool, directory):
    """Train two steps sharded, two in one process, and two sharded; return the distance from six sharded ones."""
    uninterrupted, begun = (Training(optimizer, ways["sharded"], pool) for _ in range(2))
    uninterrupted.steps()
    begun.steps(end=2)
    begun.save(directory / "begun")
    if ways["two"].is_first:
        alone = Training(optimizer, SINGLE_PROCESS, pool).restored(directory / "begun")
        alone.steps(2, 4)
        alone.save(directory / "alone")
    ways["two"].barrier()
    ended = Training(optimizer, ways["sharded"], pool).restored(directory / "alone")
    ended.steps(4)
    return distance(ended, uninterrupted)


def main(path):
    with joined_processes(CPU) as two, WorkerPool(1) as pool:
        ways = {"alone": SINGLE_PROCESS, "two": two, "sharded": replace(two, is_sharded=True)}
        results = {optimizer: compare(optimizer, ways, pool) for optimizer in RATES}
        for optimizer in RATES:
            results[optimizer]["moved"] = move_between_processes(optimizer, ways, pool, path.parent / optimizer)
        if two.is_first:
            write_json(path, results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
