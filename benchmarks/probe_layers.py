"""Choose the layer for embedding: a linear probe of each layer that predicts cellular components.

    python benchmarks/probe_layers.py MODEL labels.csv [--num-train 4000] [--num-valid 2000] [--json FILE]

The table has the columns `sequence`, `label` (several separated by `;`) and `split`. Probes are trained on a sample of
the train rows; the metric is the area under the precision-recall curve, averaged over labels, on a sample of the valid
rows, at the best of a few penalties. Penalty and layer are both chosen on those rows, so that the best value is
slightly optimistic. The baseline is the amino-acid composition; layer 0, the embedding, contains no more than that and
is not chosen. 95 % intervals of the difference to the last layer, by resampling proteins.
"""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

from bootstrap import bootstrap_interval
from protembed.config.common import DeviceConfig
from protembed.device import WorkerPool
from protembed.finetuning.baselines import composition
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.io.reading import open_input
from protembed.model.checkpoint import load_checkpoint
from protembed.resources import num_threads

INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0)
NUM_RESAMPLES = 500

Truth = NDArray[np.int64]
Vectors = NDArray[np.floating]


class Protein(NamedTuple):
    sequence: str
    labels: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--num-train", type=int, default=4_000)
    parser.add_argument("--num-valid", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=num_threads(DeviceConfig()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train, valid = sampled(options.labels, {"train": options.num_train, "valid": options.num_valid}, options.seed)
    binarizer = MultiLabelBinarizer().fit([protein.labels for protein in train])
    truth = [binarizer.transform([protein.labels for protein in part]) for part in (train, valid)]
    checkpoint = load_checkpoint(options.model)
    scores = {"composition": probe(*map(counted, (train, valid)), *truth)}
    # All layers in one pass over the proteins, concatenated.
    job = Embedder.from_checkpoint(checkpoint, layer="all").proteins()
    with WorkerPool(options.threads) as pool:
        vectors = [
            np.stack([embedding.values for _, embedding in Engine(pool=pool).run(job, part)]) for part in (train, valid)
        ]
    layers = zip(*(np.split(part, checkpoint.encoder.shape.num_layers + 1, axis=1) for part in vectors), strict=True)
    scores |= {str(layer): probe(*pair, *truth) for layer, pair in enumerate(layers)}
    results = {
        "num_train": len(train),
        "num_valid": len(valid),
        "num_labels": len(binarizer.classes_),
        **compare(truth[1], scores),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def counted(proteins: list[Protein]) -> Vectors:
    return composition([protein.sequence for protein in proteins])


def sampled(path: Path, sizes: dict[str, int], seed: int) -> list[list[Protein]]:
    """Draw rows of each split of a table."""
    with open_input(path) as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8")))
    rng, parts = np.random.default_rng(seed), []
    for split, size in sizes.items():
        inside = [Protein(row["sequence"], tuple(row["label"].split(";"))) for row in rows if row["split"] == split]
        chosen = rng.choice(len(inside), min(size, len(inside)), replace=False)
        parts.append([inside[index] for index in sorted(chosen.tolist())])
    return parts


def probe(train: Vectors, valid: Vectors, truth_train: Truth, truth_valid: Truth) -> Vectors:
    """Fit a linear probe for each label; return the best penalty's scores of the valid rows, (proteins, labels)."""
    scores = []
    for strength in INVERSE_PENALTIES:
        classifier = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=1_000))
        scores.append(make_pipeline(StandardScaler(), classifier).fit(train, truth_train).decision_function(valid))
    return max(scores, key=lambda part: mean_auprc(truth_valid, part))


def mean_auprc(truth: Truth, scores: Vectors) -> float:
    """Average the area under the precision-recall curve over the labels that occur."""
    occurs = truth.any(0)
    return float(average_precision_score(truth[:, occurs], scores[:, occurs], average="macro"))


def compare(truth: Truth, scores: dict[str, Vectors]) -> dict[str, Any]:
    """Measure each layer and its difference to the last one on resampled proteins; choose the best."""
    last = scores[str(len(scores) - 2)]  # the layers and the composition
    layers = {}
    for name, layer_scores in scores.items():

        def difference(rows: NDArray[np.int64], layer_scores: Vectors = layer_scores) -> float:
            return mean_auprc(truth[rows], layer_scores[rows]) - mean_auprc(truth[rows], last[rows])

        low, high = bootstrap_interval(difference, len(truth), num_resamples=NUM_RESAMPLES)
        layers[name] = {"auprc": mean_auprc(truth, layer_scores), "low": low, "high": high}
    candidates = [name for name in layers if name not in ("composition", "0")]
    return {"layers": layers, "best_layer": int(max(candidates, key=lambda name: layers[name]["auprc"]))}


def markdown(results: dict[str, Any]) -> str:
    lines = ["| vectors of | mean AUPRC | less the last layer, 95 % |", "|---|---|---|"]
    for name, part in results["layers"].items():
        title = f"layer {name}" if name.isdecimal() else name
        lines.append(f"| {title} | {part['auprc']:.4f} | {part['low']:+.4f} to {part['high']:+.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
