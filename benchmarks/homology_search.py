"""Homology search with vectors: is the nearest neighbour of a protein a remote relative?

    python benchmarks/homology_search.py MODEL proteins.fasta clusters.tsv [--queries 2000] [--others 8000]
        [--json FILE]

Queries are random proteins, each from another cluster at 30 % identity that has several clusters at 50 %. The database
has a relative of each query from another 50 % cluster of its 30 % cluster, and other random proteins. Members of the
query's 50 % cluster are ignored. A query is correct if its nearest neighbour by cosine similarity is in its 30 %
cluster. The table has the columns `accession`, `cluster50` and `cluster30`. The model is compared with its centred
vectors (less the mean of the database), a random initialisation of its shape at the same layer, the amino-acid
composition, and the counts of all 3-mers. 95 % intervals, by resampling queries.
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
from protembed.data.clusters import parse_accession
from protembed.data.fasta import Record, read_fasta
from protembed.device import WorkerPool
from protembed.finetuning.baselines import composition
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.resources import num_threads

# The baseline with which the model is compared on the same queries.
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
    """The queries, and the database that is searched."""

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
    results = measure(load_checkpoint(options.model), retrieval, options.threads)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def measure(trained: Checkpoint, retrieval: Retrieval, threads: int) -> dict[str, Any]:
    """Measure the fraction of queries that find a relative, for a model and for the baselines."""
    untrained = new_checkpoint(trained.encoder.shape, "gaussian", seed=0)
    untrained.metadata = trained.metadata
    represent: dict[str, Callable[[Sequence[Protein]], Vectors]] = {
        MODEL: lambda proteins: embedded(trained, proteins, threads),
        RANDOM: lambda proteins: embedded(untrained, proteins, threads),
        COMPOSITION: lambda proteins: composition([protein.sequence for protein in proteins]),
        BASELINE: count_3mers,
    }
    vectors = {name: (rule(retrieval.queries), rule(retrieval.database)) for name, rule in represent.items()}
    queries, database = vectors[MODEL]
    centred = {f"{MODEL}, centred": (queries - database.mean(0), database - database.mean(0))}
    is_correct = {name: finds_relative(retrieval, *pair) for name, pair in (vectors | centred).items()}
    return {
        "num_queries": len(retrieval.queries),
        "num_database": len(retrieval.database),
        "fractions": {name: fraction_correct(correct, is_correct[BASELINE]) for name, correct in is_correct.items()},
    }


# Queries and database


def read_proteins(fasta: Path, clusters: Path) -> list[Protein]:
    """Read the proteins that are in the table of clusters, and report how many are not."""
    table, proteins, num_unknown = read_clusters(clusters), list[Protein](), 0
    for record in read_fasta([fasta]):
        row = table.get(parse_accession(record.id))
        if row is None:
            num_unknown += 1
        else:
            proteins.append(Protein(record, row["cluster50"], row["cluster30"]))
    print(f"{len(proteins):,} proteins; {num_unknown:,} more are not in {clusters} and skipped", file=sys.stderr)
    return proteins


def draw(proteins: Sequence[Protein], num_queries: int, num_others: int, seed: int) -> Retrieval:
    """Draw the queries, a remote relative of each, and others."""
    families: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, protein in enumerate(proteins):
        families[protein.cluster30][protein.cluster50].append(number)
    wide = [family for family in families.values() if len(family) > 1]
    if len(wide) < num_queries:
        raise SystemExit(f"only {len(wide)} clusters at 30 % have two at 50 %: reduce --queries")
    rng = np.random.default_rng(seed)
    queries, relatives = list[int](), list[int]()
    for index in rng.choice(len(wide), num_queries, replace=False):
        groups = list(wide[index].values())
        for chosen, group in zip((queries, relatives), rng.choice(len(groups), 2, replace=False), strict=True):
            chosen.append(int(rng.choice(groups[group])))
    left = np.setdiff1d(np.arange(len(proteins)), [*queries, *relatives])
    if len(left) < num_others:
        raise SystemExit(f"only {len(left)} proteins are left without queries and relatives: reduce --others")
    others = rng.choice(left, num_others, replace=False).tolist()
    return Retrieval([proteins[row] for row in queries], [proteins[row] for row in [*relatives, *others]])


def finds_relative(retrieval: Retrieval, queries: Vectors, database: Vectors) -> NDArray[np.bool_]:
    """Check for each query whether its nearest neighbour is in its 30 % cluster, (queries,)."""
    similarity = normalize(queries) @ normalize(database).T
    similarity = similarity.toarray() if issparse(similarity) else similarity  # (queries, database)
    sides = (retrieval.queries, retrieval.database)
    of_queries, of_database = (np.array([protein.cluster50 for protein in side]) for side in sides)
    similarity[of_queries[:, None] == of_database] = -np.inf
    nearest = similarity.argmax(1)
    of_queries, of_database = (np.array([protein.cluster30 for protein in side]) for side in sides)
    return of_queries == of_database[nearest]


def fraction_correct(is_correct: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> dict[str, float]:
    """Compute the fraction of correct queries, and its difference from the baseline's."""
    low, high = bootstrap_interval(lambda rows: is_correct[rows].mean(), len(is_correct))
    gains = is_correct.astype(float) - baseline
    gain_low, gain_high = bootstrap_interval(lambda rows: gains[rows].mean(), len(gains))
    return {
        "fraction": float(is_correct.mean()),
        "low": low,
        "high": high,
        "gain": float(gains.mean()),
        "gain_low": gain_low,
        "gain_high": gain_high,
    }


# Representations, (proteins, dim) each


def embedded(checkpoint: Checkpoint, proteins: Sequence[Protein], threads: int) -> Vectors:
    job = Embedder.from_checkpoint(checkpoint).proteins()
    with WorkerPool(threads) as pool:
        return np.stack([embedding.values for _, embedding in Engine(pool=pool).run(job, proteins)])


def count_3mers(proteins: Sequence[Protein]) -> Vectors:
    vocabulary = [a + b + c for a in AMINO_ACIDS for b in AMINO_ACIDS for c in AMINO_ACIDS]
    counter = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=False, vocabulary=vocabulary)
    return csr_array(counter.transform([protein.sequence for protein in proteins]), dtype=float)


def markdown(results: dict[str, Any]) -> str:
    what = f"{results['num_queries']:,} queries in {results['num_database']:,} proteins"
    lines = [f"| {what} | nearest is a relative (95 %) | points above {BASELINE} (95 %) |", "|---|---|---|"]
    for name, part in results["fractions"].items():
        gain, low, high = (f"{100 * part[key]:+.1f}" for key in ("gain", "gain_low", "gain_high"))
        gain = "" if name == BASELINE else f"{gain} ({low} to {high})"
        lines.append(f"| {name} | {part['fraction']:.1%} ({part['low']:.1%} to {part['high']:.1%}) | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
