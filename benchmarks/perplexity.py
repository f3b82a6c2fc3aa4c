"""Perplexity of a model on all validation proteins, and on those far from all training proteins.

    python benchmarks/perplexity.py MODEL valid.fasta --run RUN --clusters clusters.tsv [--window-residues N]
        [--threads 2] [--json FILE]

The unigram and the bigram model are estimated from the training proteins of RUN; the random initialisation has the
shape of MODEL. The table of clusters has the columns `accession` and `split`; its `valid_strict` proteins are measured
separately. All models see the same masked 15 % of the residues, in windows of MODEL's length unless another is given.
95 % intervals of the difference to the unigram model, by resampling proteins.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bootstrap import bootstrap_interval
from clusters import read_clusters
from protembed.config.common import MICRO_BATCH_TOKENS, DeviceConfig
from protembed.data.alphabet import FIRST_AMINO_ACID
from protembed.data.batching import MaskedBatch
from protembed.data.clusters import parse_accession
from protembed.data.fasta import Record, read_fasta
from protembed.device import WorkerPool
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.pretraining.batches import validation_batches
from protembed.pretraining.corpus import Corpus, corpus_writer, open_corpora
from protembed.pretraining.ngrams import NgramModel
from protembed.resources import num_threads
from protembed.training.objective import MaskedLM

STRICT = "valid_strict"
MODEL, RANDOM, UNIGRAM = "the model", "random initialisation", "unigram"

# Computes the nats of each masked residue of a batch, (masked,).
Predictor = Callable[[MaskedBatch], Tensor]
Sums = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--clusters", type=Path, required=True)
    parser.add_argument("--window-residues", type=int)
    parser.add_argument("--threads", type=int, default=num_threads(DeviceConfig()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    trained = load_checkpoint(options.model)
    composition = NgramModel(open_corpora(options.run / "corpus").train)
    results = measure(
        trained, composition, options.fasta, options.clusters, options.threads, window_residues=options.window_residues
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def measure(
    trained: Checkpoint,
    composition: NgramModel,
    fasta: Path,
    clusters: Path,
    threads: int,
    *,
    window_residues: int | None = None,
) -> dict[str, Any]:
    """Measure a model and the baselines on all proteins and on the strict ones."""
    window = window_residues or trained.metadata.window_residues
    predictors = {
        MODEL: predictor_of(trained),
        RANDOM: predictor_of(new_checkpoint(trained.encoder.shape, "gaussian", seed=0)),
        "bigram": lambda batch: composition.nats(batch)["bigram"],
        UNIGRAM: lambda batch: composition.nats(batch)["unigram"],
    }
    sets = dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for name, corpus in validation_corpora(fasta, clusters, Path(folder)).items():
            micro_batches = validation_batches(corpus, window, MICRO_BATCH_TOKENS)
            sets[name] = compare(predictors, micro_batches, len(corpus), threads)
    return {"window_residues": window, "sets": sets}


def validation_corpora(fasta: Path, clusters: Path, folder: Path) -> dict[str, Corpus]:
    """Store all proteins of a file, and the strict ones among them, if there are any."""
    splits = {accession: row["split"] for accession, row in read_clusters(clusters).items()}
    everything = list(read_fasta([fasta]))
    strict = [record for record in everything if splits.get(parse_accession(record.id)) == STRICT]
    parts = {"valid": everything, STRICT: strict}
    return {name: stored_corpus(records, folder / name) for name, records in parts.items() if records}


def stored_corpus(records: Iterable[Record], directory: Path) -> Corpus:
    with corpus_writer(directory) as writer:
        for record in records:
            writer.add(record.sequence)
    return Corpus(directory)


def predictor_of(checkpoint: Checkpoint) -> Predictor:
    """Make the function that computes a model's nats on a batch, over the 20 amino acids."""
    objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)

    def nats(batch: MaskedBatch) -> Tensor:
        with torch.inference_mode():
            log_probabilities = objective.logits(batch).log_softmax(-1)  # (masked, 20)
        return -log_probabilities.gather(1, batch.targets[:, None] - FIRST_AMINO_ACID).squeeze(1)

    return nats


def protein_losses(
    predictor: Predictor, micro_batches: Sequence[MaskedBatch], num_proteins: int, threads: int
) -> tuple[Sums, Sums]:
    """Sum the nats of each protein's masked residues, and count them: (proteins,) each."""
    losses, counts = np.zeros(num_proteins), np.zeros(num_proteins)

    def measure(batch: MaskedBatch) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        crops = torch.searchsorted(batch.offsets, batch.positions, right=True) - 1
        return batch.rows[crops].numpy(), predictor(batch).numpy()

    with WorkerPool(threads) as pool:
        for rows, nats in pool.map(measure, micro_batches):
            np.add.at(losses, rows, nats)
            np.add.at(counts, rows, 1)
    return losses, counts


def compare(
    predictors: Mapping[str, Predictor], micro_batches: Sequence[MaskedBatch], num_proteins: int, threads: int
) -> dict[str, Any]:
    """Measure each predictor, and its difference to the unigram model."""
    losses = dict[str, Sums]()
    for name, predictor in predictors.items():
        losses[name], counts = protein_losses(predictor, micro_batches, num_proteins, threads)

    def measured(name: str) -> dict[str, float]:
        saved = losses[UNIGRAM] - losses[name]
        low, high = bootstrap_interval(lambda rows: saved[rows].sum() / counts[rows].sum(), num_proteins)
        return {
            "nats": float(losses[name].sum() / counts.sum()),
            "below_unigram": float(saved.sum() / counts.sum()),
            "low": low,
            "high": high,
        }

    return {
        "num_proteins": num_proteins,
        "num_masked": int(counts.sum()),
        "losses": {name: measured(name) for name in predictors},
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "| proteins | model | perplexity | nats per residue | below the unigram model, nats (95 %) |",
        "|---|---|---|---|---|",
    ]
    for name, part in results["sets"].items():
        for predictor, loss in part["losses"].items():
            below = (
                "" if predictor == UNIGRAM else f"{loss['below_unigram']:.4f} ({loss['low']:.4f} to {loss['high']:.4f})"
            )
            lines.append(
                f"| {name} ({part['num_proteins']:,}) | {predictor} | {np.exp(loss['nats']):.3f} | {loss['nats']:.4f} "
                f"| {below} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
