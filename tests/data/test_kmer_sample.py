import random

import numpy as np
import pytest

from protembed.data.hashing import KmerSample


@pytest.fixture
def random_proteins():
    rng = random.Random(0)
    return ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=100)) for _ in range(60)]


def test_a_protein_shares_k_mers_with_itself_and_its_segments_but_not_with_others(random_proteins):
    sample = KmerSample.from_sequences(random_proteins[:30])

    assert all(map(sample.shares_kmer, random_proteins[:30]))
    assert sample.shares_kmer(random_proteins[7][40:60])
    assert not any(map(sample.shares_kmer, random_proteins[30:]))


def test_a_sample_does_not_depend_on_the_order_of_proteins_or_the_block_size(random_proteins):
    forward = KmerSample.from_sequences(random_proteins)
    small, backward = (
        KmerSample.from_sequences(sequences, max_kmers=1000, block_size=7)
        for sequences in (random_proteins, random_proteins[::-1])
    )

    assert np.array_equal(small.hashes, backward.hashes)
    assert len(small.hashes) == 1000
    assert (np.diff(small.hashes) > 0).all()
    if small.length == forward.length:
        assert np.array_equal(small.hashes, forward.hashes[:1000])


def test_more_and_longer_proteins_are_compared_by_longer_k_mers(random_proteins):
    samples = (random_proteins[:1], random_proteins, ["".join(random_proteins)])
    lengths = [KmerSample.from_sequences(sequences).length for sequences in samples]

    assert lengths == sorted(lengths)
    # A protein of 100 residues against 6,000: 600,000 pairs, and 20**6 times 0.01 are 640,000.
    assert lengths[1] == 6


@pytest.mark.parametrize("sequence", ["MKT", "XXXXXXXXXXXX"])
def test_a_sequence_without_k_mers_shares_none(random_proteins, sequence):
    assert not KmerSample.from_sequences(random_proteins).shares_kmer(sequence)
    assert not KmerSample.from_sequences([sequence]).shares_kmer(sequence)
