"""How well a model guesses hidden residues: on all validation proteins, and on those far from all training proteins.

    python benchmarks/perplexity.py MODEL valid.fasta --run RUN --clusters clusters.tsv [--threads 2] [--json FILE]

The unigram and the bigram model are counted on the training proteins of RUN; the random initialisation has the shape of
MODEL. The table of clusters has columns `accession` and `split`; its `valid_strict` proteins are measured apart. All
hide the frozen 15 % of the residues, and see windows of the length that MODEL records. Intervals are of 95 %, by
resampling proteins.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clusters import accession_of, read_clusters
from numpy.typing import NDArray

from protembed.analysis.baselines import Composition
from protembed.config import ComputeConfig
from protembed.data.alphabet import FIRST_AMINO_ACID
from protembed.data.batching import MaskedBatch, validation_packs
from protembed.data.corpus import Corpus, corpus_writer, open_corpora
from protembed.data.fasta import Record, read_fasta
from protembed.device import WorkerPool, num_threads
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.training.objectives import MaskedLM

TOKENS_PER_PACK, NUM_RESAMPLES = 1024, 2_000
STRICT = "valid_strict"

Sums = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--clusters", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=num_threads(ComputeConfig()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    trained = load_checkpoint(find_model(options.model))
    window = trained.record.window_residues
    models = {
        "the model": trained,
        "random initialisation": new_checkpoint(trained.encoder.shape, "gaussian", seed=0),
    }
    composition = Composition(open_corpora(options.run / "corpus").train)
    results: dict[str, Any] = {"window_residues": window}
    with tempfile.TemporaryDirectory() as folder:
        for name, corpus in validation_corpora(options.fasta, options.clusters, Path(folder)).items():
            packs = validation_packs(corpus, window, TOKENS_PER_PACK)
            results[name] = {
                "num_proteins": len(corpus),
                "num_hidden": sum(len(pack.targets) for pack in packs),
                "losses": {
                    **{who: {"nats": loss} for who, loss in composition.losses(packs).items()},
                    **{
                        who: interval(*protein_losses(model, corpus, window, options.threads))
                        for who, model in models.items()
                    },
                },
            }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def validation_corpora(fasta: Path, clusters: Path, folder: Path) -> dict[str, Corpus]:
    """Store all proteins of a file, and those of them that the table calls strict."""
    splits = {accession: row["split"] for accession, row in read_clusters(clusters).items()}
    everything = list(read_fasta([fasta]))
    parts = {
        "valid": everything,
        STRICT: [record for record in everything if splits.get(accession_of(record.id)) == STRICT],
    }
    return {name: stored_corpus(records, folder / name) for name, records in parts.items()}


def stored_corpus(records: Iterable[Record], directory: Path) -> Corpus:
    with corpus_writer(directory) as writer:
        for record in records:
            writer.add(record.sequence)
    return Corpus(directory)


def protein_losses(checkpoint: Checkpoint, corpus: Corpus, window_residues: int, threads: int) -> tuple[Sums, Sums]:
    """Sum the nats of each protein's hidden residues over the 20 amino acids, and count them: (proteins,) each."""
    objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)
    losses, counts = np.zeros(len(corpus)), np.zeros(len(corpus))

    def measure(batch: MaskedBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        with torch.inference_mode():
            log_probabilities = objective.logits(batch).log_softmax(-1)  # (masked, 20)
        crops = torch.searchsorted(batch.offsets, batch.positions, right=True) - 1
        nats = -log_probabilities.gather(1, batch.targets[:, None] - FIRST_AMINO_ACID)
        return batch.rows[crops].numpy(), nats.squeeze(1).numpy()

    with WorkerPool(threads) as pool:
        for rows, nats in pool.map(measure, validation_packs(corpus, window_residues, TOKENS_PER_PACK)):
            np.add.at(losses, rows, nats)
            np.add.at(counts, rows, 1)
    return losses, counts


def interval(losses: Sums, counts: Sums) -> dict[str, float]:
    """Compute the mean nats of a hidden residue, and a 95 % interval over resampled proteins."""
    rng = np.random.default_rng(0)
    resamples = (rng.integers(len(counts), size=len(counts)) for _ in range(NUM_RESAMPLES))
    low, high = np.quantile([losses[rows].sum() / counts[rows].sum() for rows in resamples], [0.025, 0.975])
    return {"nats": float(losses.sum() / counts.sum()), "low": float(low), "high": float(high)}


def markdown(results: dict[str, Any]) -> str:
    sets = [name for name in ("valid", STRICT) if name in results]
    titles = [f"{name}, {results[name]['num_proteins']:,} proteins" for name in sets]
    lines = [f"| perplexity (nats per residue) | {' | '.join(titles)} |", f"|---|{'---|' * len(sets)}"]
    for who in results[sets[0]]["losses"]:
        cells = [described(results[name]["losses"][who]) for name in sets]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def described(loss: dict[str, float]) -> str:
    bounds = f", {loss['low']:.4f} to {loss['high']:.4f}" if "low" in loss else ""
    return f"{np.exp(loss['nats']):.2f} ({loss['nats']:.4f}{bounds})"


if __name__ == "__main__":
    main()
