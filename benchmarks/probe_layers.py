"""Which layer's vectors tell most about proteins: a linear probe of each layer on where proteins are in a cell.

    python benchmarks/probe_layers.py MODEL labels.csv [--num-train 4000] [--num-valid 2000] [--json FILE]

The table has the columns `sequence`, `label` (several divided by `;`) and `split`; a sample of its train rows is
learned from, a sample of its valid rows is measured: the mean over the labels of the area under the precision-recall
curve, at the best of a few penalties. Penalty and layer are both chosen on those rows, so that the best figure
flatters a little. Beside the layers stands the composition of amino acids; layer 0, the embedding, knows no more than
that and is not chosen. Intervals of the difference to the last layer are of 95 %, by resampling proteins.
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
from protembed.device import WorkerPool, num_threads
from protembed.finetuning.baselines import composition
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.io.reading import open_input
from protembed.model.catalog import find_model
from protembed.model.checkpoint import load_checkpoint

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
    checkpoint = load_checkpoint(find_model(options.model))
    scores = {"composition": probe(*map(counted, (train, valid)), *truth)}
    # All layers in one pass over the proteins; they stand side by side.
    compute = Embedder.from_checkpoint(checkpoint, layer="all").proteins()
    with WorkerPool(options.threads) as pool:
        vectors = [np.stack([one.values for _, one in Engine(pool=pool).run(compute, part)]) for part in (train, valid)]
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
    """Draw rows of each part of a table."""
    with open_input(path) as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8")))
    rng, parts = np.random.default_rng(seed), []
    for split, size in sizes.items():
        inside = [Protein(row["sequence"], tuple(row["label"].split(";"))) for row in rows if row["split"] == split]
        chosen = rng.choice(len(inside), min(size, len(inside)), replace=False)
        parts.append([inside[place] for place in sorted(chosen.tolist())])
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
    """Measure each layer, and its difference to the last one on resampled proteins; choose the best."""
    last = scores[str(len(scores) - 2)]  # beside the layers, the composition
    layers = {}
    for name, own in scores.items():

        def difference(rows: NDArray[np.int64], own: Vectors = own) -> float:
            return mean_auprc(truth[rows], own[rows]) - mean_auprc(truth[rows], last[rows])

        low, high = bootstrap_interval(difference, len(truth), num_resamples=NUM_RESAMPLES)
        layers[name] = {"auprc": mean_auprc(truth, own), "low": low, "high": high}
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
