"""Several cores in training: micro-batches on worker threads, or one micro-batch on OpenMP's threads.

    python benchmarks/threads.py data.fasta [--size t6_8M] [--threads 2] [--rounds 5]

Both take the same steps in turn; the table has the median and the range of their residues per second. Run it once on an
idle machine and once while another process keeps a core busy.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from protembed.config.model_sizes import SIZES
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.model.checkpoint import new_checkpoint
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.corpus import Corpus, corpus_writer
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers, set_learning_rate

SECONDS = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", default="t6_8M", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "corpus"
        with corpus_writer(directory) as writer:
            for record in read_fasta([arguments.fasta]):
                writer.add(record.sequence)
        corpus = Corpus(directory)
    checkpoint = new_checkpoint(SIZES[arguments.size], "gaussian", seed=0)
    objective = MaskedLM(checkpoint.encoder, checkpoint.require_lm_head())

    arms = {
        f"{arguments.threads} workers, micro-batches of 1,024": (1024, arguments.threads, 1),
        f"OpenMP {arguments.threads}, micro-batches of 1,024": (1024, 1, arguments.threads),
        f"OpenMP {arguments.threads}, micro-batches of 4,096": (4096, 1, arguments.threads),
        "1 worker, micro-batches of 1,024": (1024, 1, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(arguments.rounds):
        for name, (micro_batch_tokens, workers, operator_threads) in arms.items():
            batches = PretrainingBatches(corpus, BatchConfig(), micro_batch_tokens, MaskingConfig(), seed=0)
            rates[name].append(measure(objective, batches, workers, operator_threads))
    print(f"{arguments.size}, steps of 4,096 tokens, {arguments.rounds} alternating rounds, residues per second\n")
    print("| | median | range |\n|---|---|---|")
    for name, measured in rates.items():
        print(f"| {name} | {statistics.median(measured):,.0f} | {min(measured):,.0f} – {max(measured):,.0f} |")


def measure(objective: MaskedLM, batches: PretrainingBatches, workers: int, operator_threads: int) -> float:
    """Train for some seconds; return the residues per second."""
    with WorkerPool(workers) as pool:
        list(pool.map(lambda _: torch.set_num_threads(operator_threads), range(workers)))
        executor = Executor(pool=pool)
        optimizers = make_optimizers(objective, "adamw", 0.01, executor)
        set_learning_rate(optimizers, 1e-4)
        training = TrainingSetup(
            objective=objective, micro_batches=batches.micro_batches, optimizers=optimizers, executor=executor
        )
        take_step(training, batches.micro_batches(0), 1.0)
        num_residues, step, began = 0, 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            step += 1
            num_residues += take_step(training, batches.micro_batches(step), 1.0).num_residues
        return num_residues / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
