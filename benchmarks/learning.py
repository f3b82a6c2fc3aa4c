"""What is learned in equal time: transformers' Trainer and protembed, validated on the same hidden residues.

    python benchmarks/learning.py train.fasta --valid valid.fasta -o DIRECTORY [--minutes 15] [--threads 2]

One after the other on the same threads, with the same shape, crops and tokens a step. The Trainer has AdamW (betas 0.9
and 0.98, decay 0.01) with a peak of 4e-4, a warm-up over the first tenth and a linear decay that ends with the minutes;
protembed has its defaults. An arm whose model is already in the directory is not trained again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from protembed.config import SIZES
from protembed.data.alphabet import FIRST_AMINO_ACID
from protembed.data.batching import validation_packs
from protembed.data.corpus import Corpus, corpus_writer
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.model.checkpoint import load_checkpoint
from protembed.training.objectives import MaskedLM

TOKENS_PER_PACK = 1024
NUM_RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", default="t4_1M", choices=SIZES)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--crop-residues", type=int, default=256)
    options = parser.parse_args()

    corpus = store(options.valid, options.output / "valid")
    losses, counts = {}, np.empty(0)
    print("| | residues seen | validation loss | perplexity |\n|---|---|---|---|")
    for name, command in (("trainer", trainer_command), ("protembed", protembed_command)):
        directory = options.output / f"{name}.run"
        if not (directory / "model" / "config.json").exists():
            subprocess.run(command(options, directory), check=True)
        losses[name], counts = losses_by_protein(directory / "model", corpus, options.crop_residues, options.threads)
        last = json.loads((directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        mean = losses[name].sum() / counts.sum()
        print(f"| {name} | {last['residues']:,} | {mean:.4f} | {np.exp(mean):.2f} |", flush=True)
    low, middle, high = paired_bootstrap(losses["trainer"] - losses["protembed"], counts)
    print(
        f"\nprotembed is better by {middle:.4f} nats per hidden residue, 95 % interval {low:.4f} to {high:.4f} "
        f"(paired bootstrap over {len(corpus):,} proteins)"
    )


def trainer_command(options: argparse.Namespace, directory: Path) -> list[str]:
    settings = {
        "fasta": str(options.fasta),
        "output": str(directory),
        "size": options.size,
        "minutes": options.minutes,
        "threads": options.threads,
        "tokens_per_batch": options.tokens_per_batch,
        "crop_residues": options.crop_residues,
        "save_model": True,
    }
    return [sys.executable, str(Path(__file__).with_name("hf_trainer.py")), json.dumps(settings)]


def protembed_command(options: argparse.Namespace, directory: Path) -> list[str]:
    settings = {
        "--valid": options.valid,
        "--output": directory,
        "--size": options.size,
        "--max-minutes": options.minutes,
        "--threads": options.threads,
        "--tokens-per-batch": options.tokens_per_batch,
        "--crop-residues": options.crop_residues,
    }
    words = [str(word) for setting in settings.items() for word in setting]
    return [sys.executable, "-m", "protembed", "pretrain", str(options.fasta), *words, "--quiet"]


def store(fasta: Path, directory: Path) -> Corpus:
    if not directory.exists():
        with corpus_writer(directory) as writer:
            for record in read_fasta([fasta]):
                writer.add(record.sequence, record.id)
    return Corpus(directory)


def losses_by_protein(model: Path, corpus: Corpus, window_residues: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum the loss over the hidden residues of each protein, (proteins,), and count them, (proteins,)."""
    checkpoint = load_checkpoint(model)
    objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)
    losses, counts = np.zeros(len(corpus)), np.zeros(len(corpus))

    def measure(batch):
        with torch.inference_mode():
            log_probabilities = objective.logits(batch).log_softmax(-1)  # (masked, 20)
        classes = batch.targets - FIRST_AMINO_ACID
        return batch, -log_probabilities[torch.arange(len(classes)), classes].numpy()

    with WorkerPool(threads) as pool:
        for batch, of_targets in pool.map(measure, validation_packs(corpus, window_residues, TOKENS_PER_PACK)):
            crops = torch.searchsorted(batch.offsets, batch.positions, right=True) - 1
            rows = batch.rows[crops].numpy()
            np.add.at(losses, rows, of_targets)
            np.add.at(counts, rows, 1)
    return losses, counts


def paired_bootstrap(differences: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Resample proteins; return the 2.5th, 50th and 97.5th percentile of the mean difference per residue."""
    rng = np.random.default_rng(0)
    rows = (rng.integers(len(counts), size=len(counts)) for _ in range(NUM_RESAMPLES))
    means = [differences[row].sum() / counts[row].sum() for row in rows]
    return np.percentile(means, [2.5, 50, 97.5])


if __name__ == "__main__":
    main()
