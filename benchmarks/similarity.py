"""Similarity by shared 5-mers: how well it separates relatives from unrelated proteins, compared with alignment.

    python benchmarks/similarity.py train.fasta.xz clusters.tsv.gz [--num-clusters 3000]

One protein of each of half of the drawn 30 % clusters is a reference. The other proteins of these clusters have a
relative among the references, in the same 50 % cluster or only in the same 30 % cluster; the proteins of the other half
have none. Prints quantiles of the similarity to the nearest reference, and the fraction of each kind that `finetune`
would keep in the same split.
"""

import argparse
import csv
import io
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from protembed.config.finetune import LabelTableConfig
from protembed.data.fasta import read_fasta
from protembed.data.similarity import greedy_clusters, nearest
from protembed.io.reading import open_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("clusters", type=Path)
    parser.add_argument("--num-clusters", type=int, default=3_000)
    parser.add_argument("--members", type=int, default=4, help="of a cluster, at most")
    options = parser.parse_args()

    with open_input(options.clusters) as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8"), delimiter="\t"))
    clusters = {row["accession"]: (row["cluster30"], row["cluster50"]) for row in rows}
    families = defaultdict(list)
    for record in read_fasta([options.fasta]):
        accession = record.id.split("|")[1] if "|" in record.id else record.id
        families[clusters[accession][0]].append((record.sequence, clusters[accession][1]))
    rng = random.Random(0)
    drawn = [
        rng.sample(families[name], min(options.members, len(families[name])))
        for name in rng.sample(sorted(families), options.num_clusters)
    ]
    half = len(drawn) // 2
    references = [family[0] for family in drawn[:half]]
    queries = {
        "in the same 50 % cluster": [
            member for family in drawn[:half] for member in family[1:] if member[1] == family[0][1]
        ],
        "in the same 30 % cluster": [
            member for family in drawn[:half] for member in family[1:] if member[1] != family[0][1]
        ],
        "none": [member for family in drawn[half:] for member in family],
    }
    threshold = LabelTableConfig().cluster_identity
    print(f"| relative among {half:,} references | proteins | 10 % | median | 90 % | 98 % | at least {threshold} |")
    print("|---|---|---|---|---|---|---|")
    for kind, proteins in queries.items():
        _, similarities = nearest([query for query, _ in proteins], [reference for reference, _ in references])
        quantiles = " | ".join(f"{value:.2f}" for value in np.quantile(similarities, [0.1, 0.5, 0.9, 0.98]))
        print(f"| {kind} | {len(proteins):,} | {quantiles} | {(similarities >= threshold).mean():.1%} |")

    everything = [sequence for family in drawn for sequence, _ in family]
    began = time.monotonic()
    num_clusters = len(set(greedy_clusters(everything, threshold)))
    print(f"\n{len(everything):,} proteins in {num_clusters:,} clusters, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
