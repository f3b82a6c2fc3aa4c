import random

import numpy as np
import pytest

from protembed.data import hashing
from protembed.data.hashing import KmerSample


@pytest.fixture
def random_proteins():
    rng = random.Random(0)
    return ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=100)) for _ in range(60)]


def test_a_protein_shares_k_mers_with_itself_and_its_pieces_and_not_with_others(random_proteins):
    sample = KmerSample.from_sequences(random_proteins[:30])

    assert all(map(sample.shares_kmer, random_proteins[:30]))
    assert sample.shares_kmer(random_proteins[7][40:60])
    assert not any(map(sample.shares_kmer, random_proteins[30:]))


def test_a_sample_is_the_same_whatever_the_order_and_the_parts(random_proteins, monkeypatch):
    forward = KmerSample.from_sequences(random_proteins)
    monkeypatch.setattr(hashing, "_PROTEINS_AT_ONCE", 7)
    monkeypatch.setattr(hashing, "MAX_TRAINING_KMERS", 1000)
    small, backward = KmerSample.from_sequences(random_proteins), KmerSample.from_sequences(random_proteins[::-1])

    assert np.array_equal(small.hashes, backward.hashes)
    assert len(small.hashes) == 1000
    assert (np.diff(small.hashes) > 0).all()
    if small.length == forward.length:
        assert np.array_equal(small.hashes, forward.hashes[:1000])


def test_more_and_longer_proteins_are_compared_by_longer_k_mers(random_proteins):
    lengths = [
        KmerSample.from_sequences(part).length
        for part in (random_proteins[:1], random_proteins, ["".join(random_proteins)])
    ]

    assert lengths == sorted(lengths)
    # A protein of 100 residues against 6,000: 600,000 pairs, and 20**6 times 0.01 are 640,000.
    assert lengths[1] == 6


@pytest.mark.parametrize("sequence", ["MKT", "XXXXXXXXXXXX"])
def test_what_has_no_k_mer_shares_none(random_proteins, sequence):
    assert not KmerSample.from_sequences(random_proteins).shares_kmer(sequence)
    assert not KmerSample.from_sequences([sequence]).shares_kmer(sequence)
