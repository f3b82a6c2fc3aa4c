"""Whether proteins with similar vectors are relatives: the nearest neighbours of proteins without close relatives.

    python benchmarks/neighbours.py MODEL proteins.fasta clusters.tsv [--queries 2000] [--others 8000] [--json FILE]

A query is a protein of a 30 % identity cluster with at least two 50 % clusters, one for each such cluster, drawn by the
seed. The database has for each query one member of another 50 % cluster of its 30 % cluster, and other proteins, drawn
at random. Whatever is of the query's own 50 % cluster is left out. A query is right if its nearest neighbour by cosine
is of its 30 % cluster. The table has columns `accession`, `cluster50` and `cluster30`. Beside the model stand a random
initialisation of its shape, the shares of the amino acids, and the counts of all triples of residues. Intervals are of
95 %, by resampling queries.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clusters import accession_of, read_clusters
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from protembed.config import ComputeConfig
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import Record, read_fasta
from protembed.device import WorkerPool, num_threads
from protembed.inference.engine import Engine
from protembed.inference.representation import representation_of
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint

NUM_RESAMPLES = 2_000

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
    parser.add_argument("--threads", type=int, default=num_threads(ComputeConfig()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    retrieval = draw(read_proteins(options.fasta, options.clusters), options.queries, options.others, options.seed)
    trained = load_checkpoint(find_model(options.model))
    random = new_checkpoint(trained.encoder.shape, "gaussian", seed=0)
    representations: dict[str, Callable[[Sequence[Protein]], Vectors]] = {
        "the model": lambda proteins: embedded(trained, proteins, options.threads),
        "random initialisation": lambda proteins: embedded(random, proteins, options.threads),
        "amino-acid composition": composition,
        "3-mers": triples,
    }
    results: dict[str, Any] = {
        "num_queries": len(retrieval.queries),
        "num_database": len(retrieval.database),
        "shares": {name: neighbour_share(retrieval, represent) for name, represent in representations.items()},
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


# What is looked for


def read_proteins(fasta: Path, clusters: Path) -> list[Protein]:
    """Read the proteins that the table of clusters has."""
    rows, proteins = read_clusters(clusters), []
    for record in read_fasta([fasta]):
        row = rows.get(accession_of(record.id))
        if row is not None:
            proteins.append(Protein(record, row["cluster50"], row["cluster30"]))
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
    others = rng.choice(left, num_others, replace=False).tolist()
    return Retrieval([proteins[row] for row in queries], [proteins[row] for row in [*relatives, *others]])


def neighbour_share(retrieval: Retrieval, represent: Callable[[Sequence[Protein]], Vectors]) -> dict[str, float]:
    """Measure how many queries have a nearest neighbour of their 30 % cluster, with a 95 % interval."""
    queries, database = (normalize(represent(part)) for part in (retrieval.queries, retrieval.database))
    similarity = queries @ database.T
    similarity = similarity.toarray() if isinstance(similarity, csr_array) else similarity  # (queries, database)
    own, theirs = (
        np.array([protein.cluster50 for protein in part]) for part in (retrieval.queries, retrieval.database)
    )
    similarity[own[:, None] == theirs] = -np.inf
    nearest = similarity.argmax(1)
    is_right = np.array(
        [
            query.cluster30 == retrieval.database[place].cluster30
            for query, place in zip(retrieval.queries, nearest, strict=True)
        ]
    )
    rng = np.random.default_rng(0)
    shares = [rng.choice(is_right, len(is_right)).mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(shares, [0.025, 0.975])
    return {"share": float(is_right.mean()), "low": float(low), "high": float(high)}


# Representations, (proteins, dim) each


def embedded(checkpoint: Checkpoint, proteins: Sequence[Protein], threads: int) -> Vectors:
    with WorkerPool(threads) as pool:
        return np.stack(
            [vector for _, vector in Engine(pool=pool).run(representation_of(checkpoint).proteins, proteins)]
        )


def composition(proteins: Sequence[Protein]) -> Vectors:
    return np.array([[protein.sequence.count(letter) for letter in AMINO_ACIDS] for protein in proteins], dtype=float)


def triples(proteins: Sequence[Protein]) -> Vectors:
    vocabulary = [a + b + c for a in AMINO_ACIDS for b in AMINO_ACIDS for c in AMINO_ACIDS]
    counter = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=False, vocabulary=vocabulary)
    return csr_array(counter.transform([protein.sequence for protein in proteins]), dtype=float)


def markdown(results: dict[str, Any]) -> str:
    what = f"{results['num_queries']:,} queries in {results['num_database']:,} proteins"
    lines = [f"| {what} | nearest is a relative | 95 % |", "|---|---|---|"]
    lines += [
        f"| {name} | {part['share']:.1%} | {part['low']:.1%} to {part['high']:.1%} |"
        for name, part in results["shares"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
