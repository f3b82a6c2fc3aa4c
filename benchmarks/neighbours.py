"""Whether proteins with similar vectors are relatives: the nearest neighbours of proteins without close relatives.

    python benchmarks/neighbours.py MODEL proteins.fasta clusters.tsv [--queries 2000] [--others 8000] [--json FILE]

A query is a protein of a 30 % identity cluster with at least two 50 % clusters, one for each such cluster, drawn by the
seed. The database has for each query one member of another 50 % cluster of its 30 % cluster, and other proteins, drawn
at random. Whatever is of the query's own 50 % cluster is left out. A query is right if its nearest neighbour by cosine
is of its 30 % cluster. The table has columns `accession`, `cluster50` and `cluster30`. Beside the model stand its
vectors less the mean of the database's, a random initialisation of its shape at the same layer, the shares of the amino
acids, and the counts of all triples of residues. Intervals are of 95 %, by resampling queries.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from bootstrap import bootstrap_interval
from clusters import read_clusters
from perplexity import MODEL, RANDOM
from protembed.config.common import DeviceConfig
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import Record, read_fasta
from protembed.device import WorkerPool, num_threads
from protembed.finetuning.baselines import composition
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.pretraining.clusters import parse_accession

# The least to be beaten: the model is compared with it on the same queries.
BASELINE = "3-mers"
COMPOSITION = "amino-acid composition"

Vectors = NDArray[np.floating] | csr_array


@dataclass(frozen=True)
class Protein:
    record: Record
    cluster50: str
    cluster30: str

    @property
    def sequence(self) -> str:
        return self.record.sequence


@dataclass(frozen=True)
class Retrieval:
    """What is looked for, and where."""

    queries: Sequence[Protein]
    database: Sequence[Protein]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("clusters", type=Path)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--others", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=num_threads(DeviceConfig()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    retrieval = draw(read_proteins(options.fasta, options.clusters), options.queries, options.others, options.seed)
    results = measure(load_checkpoint(find_model(options.model)), retrieval, options.threads)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def measure(trained: Checkpoint, retrieval: Retrieval, threads: int) -> dict[str, Any]:
    """Measure by how many queries a relative is found, by a model's vectors and by what they are compared with."""
    untrained = new_checkpoint(trained.encoder.shape, "gaussian", seed=0)
    untrained.metadata = trained.metadata
    represent: dict[str, Callable[[Sequence[Protein]], Vectors]] = {
        MODEL: lambda proteins: embedded(trained, proteins, threads),
        RANDOM: lambda proteins: embedded(untrained, proteins, threads),
        COMPOSITION: lambda proteins: composition([protein.sequence for protein in proteins]),
        BASELINE: triples,
    }
    vectors = {name: (rule(retrieval.queries), rule(retrieval.database)) for name, rule in represent.items()}
    queries, database = vectors[MODEL]
    centred = {f"{MODEL}, centred": (queries - database.mean(0), database - database.mean(0))}
    is_right = {name: found_relatives(retrieval, *pair) for name, pair in (vectors | centred).items()}
    return {
        "num_queries": len(retrieval.queries),
        "num_database": len(retrieval.database),
        "shares": {name: share(right, is_right[BASELINE]) for name, right in is_right.items()},
    }


# What is looked for


def read_proteins(fasta: Path, clusters: Path) -> list[Protein]:
    """Read the proteins that the table of clusters has, and say how many it does not have."""
    table, proteins, num_unknown = read_clusters(clusters), list[Protein](), 0
    for record in read_fasta([fasta]):
        row = table.get(parse_accession(record.id))
        if row is None:
            num_unknown += 1
        else:
            proteins.append(Protein(record, row["cluster50"], row["cluster30"]))
    print(f"{len(proteins):,} proteins; {num_unknown:,} more are not in {clusters} and left out", file=sys.stderr)
    return proteins


def draw(proteins: Sequence[Protein], num_queries: int, num_others: int, seed: int) -> Retrieval:
    """Draw the queries, a remote relative of each, and others."""
    families: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, protein in enumerate(proteins):
        families[protein.cluster30][protein.cluster50].append(number)
    wide = [family for family in families.values() if len(family) > 1]
    if len(wide) < num_queries:
        raise SystemExit(f"only {len(wide)} clusters at 30 % have two at 50 %: ask for fewer --queries")
    rng = np.random.default_rng(seed)
    queries, relatives = list[int](), list[int]()
    for place in rng.choice(len(wide), num_queries, replace=False):
        groups = list(wide[place].values())
        for chosen, group in zip((queries, relatives), rng.choice(len(groups), 2, replace=False), strict=True):
            chosen.append(int(rng.choice(groups[group])))
    left = np.setdiff1d(np.arange(len(proteins)), [*queries, *relatives])
    if len(left) < num_others:
        raise SystemExit(f"only {len(left)} proteins are left beside queries and relatives: ask for fewer --others")
    others = rng.choice(left, num_others, replace=False).tolist()
    return Retrieval([proteins[row] for row in queries], [proteins[row] for row in [*relatives, *others]])


def found_relatives(retrieval: Retrieval, queries: Vectors, database: Vectors) -> NDArray[np.bool_]:
    """Tell for each query whether its nearest neighbour is of its 30 % cluster, (queries,)."""
    similarity = normalize(queries) @ normalize(database).T
    similarity = similarity.toarray() if issparse(similarity) else similarity  # (queries, database)
    own, theirs = (np.array([one.cluster50 for one in part]) for part in (retrieval.queries, retrieval.database))
    similarity[own[:, None] == theirs] = -np.inf
    nearest = similarity.argmax(1)
    own, theirs = (np.array([one.cluster30 for one in part]) for part in (retrieval.queries, retrieval.database))
    return own == theirs[nearest]


def share(is_right: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> dict[str, float]:
    """Measure how many queries are right, and how many more than by the baseline."""
    low, high = bootstrap_interval(lambda rows: is_right[rows].mean(), len(is_right))
    gains = is_right.astype(float) - baseline
    gain_low, gain_high = bootstrap_interval(lambda rows: gains[rows].mean(), len(gains))
    return {
        "share": float(is_right.mean()),
        "low": low,
        "high": high,
        "gain": float(gains.mean()),
        "gain_low": gain_low,
        "gain_high": gain_high,
    }


# Representations, (proteins, dim) each


def embedded(checkpoint: Checkpoint, proteins: Sequence[Protein], threads: int) -> Vectors:
    with WorkerPool(threads) as pool:
        return np.stack(
            [one.values for _, one in Engine(pool=pool).run(Embedder.from_checkpoint(checkpoint).proteins(), proteins)]
        )


def triples(proteins: Sequence[Protein]) -> Vectors:
    vocabulary = [a + b + c for a in AMINO_ACIDS for b in AMINO_ACIDS for c in AMINO_ACIDS]
    counter = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=False, vocabulary=vocabulary)
    return csr_array(counter.transform([protein.sequence for protein in proteins]), dtype=float)


def markdown(results: dict[str, Any]) -> str:
    what = f"{results['num_queries']:,} queries in {results['num_database']:,} proteins"
    lines = [f"| {what} | nearest is a relative (95 %) | points more than by {BASELINE} (95 %) |", "|---|---|---|"]
    for name, part in results["shares"].items():
        gain, low, high = (f"{100 * part[key]:+.1f}" for key in ("gain", "gain_low", "gain_high"))
        gain = "" if name == BASELINE else f"{gain} ({low} to {high})"
        lines.append(f"| {name} | {part['share']:.1%} ({part['low']:.1%} to {part['high']:.1%}) | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
