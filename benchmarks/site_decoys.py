"""Negative control of `inspect-attention --sites`: heads that attend significantly to made-up sites.

For each kind of made-up site, the mean number of heads with q ≤ 0.05, and the fraction of sets with any:

- `acids`: ten aspartates and glutamates of a parvalbumin that do not bind its calcium (PDB 1S3P, chain A);
- `calcium`: the ten that do, once, as a positive control;
- in each protein of a FASTA file: ten scattered residues, a segment of twelve, the pattern of two calcium-binding loops
  at random positions, and the first twelve residues.

"before" compares with all residues of the protein, "now" as `protembed.attention.sites` does.

    python benchmarks/site_decoys.py examples/proteins.fasta --num-sets 30
"""

import argparse
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.attention.maps import AttentionExtractor, MapRequest
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import Site, SiteTable, SiteTests
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import Batch
from protembed.data.fasta import Record, read_fasta
from protembed.inference.computation import run_to_end
from protembed.model.checkpoint import load_checkpoint

PARVALBUMIN = (
    "SMTDLLSAEDIKKAIGAFTAADSFDHKKFFQMVGLKKKSADDVKKVFHILDKDKDGFIDEDELGSILKGFSSDARDLSAKETKTLMAAGDKDGDGKIGVEEFSTLVAES"
)
CALCIUM = np.array([51, 53, 55, 57, 62, 90, 92, 94, 96, 101]) - 1
LOOP = np.array([0, 2, 4, 6, 11])
Sets = Iterator[tuple[str, NDArray[np.int64]]]


def acids(rng: np.random.Generator) -> Sets:
    """Draw ten acids that bind no calcium."""
    indices = np.array([index for index, letter in enumerate(PARVALBUMIN) if letter in "DE" and index not in CALCIUM])
    while True:
        yield PARVALBUMIN, rng.choice(indices, 10, replace=False)


def made_up(kind: str, sequences: list[str], rng: np.random.Generator) -> Sets:
    """Draw residues of each protein in turn."""
    for sequence in cycle(sequences):
        length = len(sequence)
        if kind == "scattered":
            yield sequence, rng.choice(length, 10, replace=False)
        elif kind == "segment":
            yield sequence, rng.integers(0, length - 12) + np.arange(12)
        elif kind == "loops":
            first = rng.integers(0, length - 30)
            yield sequence, np.concatenate([first + LOOP, rng.integers(first + 14, length - 12) + LOOP])
        else:
            yield sequence, np.arange(12)


def received(reader: AttentionExtractor, sequence: str) -> NDArray[np.float32]:
    """Compute the attention that each residue receives, (heads, residues)."""
    tokens = torch.tensor([CLS, *encode(sequence).tolist(), EOS])
    batch = Batch(tokens=tokens, offsets=torch.tensor([0, len(tokens)]), rows=torch.tensor([0]))
    with torch.no_grad():
        values = run_to_end(reader.extract(batch, [MapRequest(received=True)]))[0].received
    assert values is not None
    return values


def count_heads(sequence: str, indices: NDArray[np.int64], values: NDArray[np.float32], num: int) -> tuple[int, int]:
    """Count the significant heads in a comparison with all residues, and in the present test."""
    is_labelled = np.isin(np.arange(len(sequence)), indices)
    everything = LabelledScores(values=values, is_labelled=is_labelled, strata=np.zeros(len(sequence), np.int64))
    before = permutation_test([everything], num_permutations=num)
    sites = [Site(protein="p", position=int(index) + 1, label="x", line=2) for index in indices]
    marks = SiteTests(SiteTable(path="sites", sites=sites))
    marks.add(Record(row=0, id="p", description="p", sequence=sequence, path="", line=1), values)
    return int((before.q_values <= 0.05).sum()), marks.evaluate(num_permutations=num, seed=0)["x"].num_following


def main() -> None:
    """Print a line for each kind of site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--num-sets", type=int, default=30)
    parser.add_argument("--num-permutations", type=int, default=10_000)
    options = parser.parse_args()
    sequences = [
        record.sequence for record in islice(read_fasta([options.fasta]), 30) if 60 <= len(record.sequence) <= 400
    ]
    reader = AttentionExtractor(encoder=load_checkpoint().encoder, layers=[0], heads=[0])
    values = {sequence: received(reader, sequence) for sequence in [PARVALBUMIN, *sequences]}
    rng = np.random.default_rng(0)
    sets = {"acids": acids(rng), "calcium": iter([(PARVALBUMIN, CALCIUM)])}
    sets |= {kind: made_up(kind, sequences, rng) for kind in ("scattered", "segment", "loops", "start")}
    for kind, drawn in sets.items():
        counts = [
            count_heads(sequence, indices, values[sequence], options.num_permutations)
            for sequence, indices in islice(drawn, options.num_sets)
        ]
        before, now = np.array(counts).T
        print(
            f"{kind}: {len(counts)} sets; before {before.mean():.2f} heads, {np.mean(before > 0):.0%} of sets; "
            f"now {now.mean():.2f} heads, {np.mean(now > 0):.0%} of sets",
            flush=True,
        )


if __name__ == "__main__":
    main()
