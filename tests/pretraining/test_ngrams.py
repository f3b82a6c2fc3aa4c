import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from protembed.data.alphabet import AMINO_ACIDS, MASK, encode
from protembed.data.batching import MaskedBatch
from protembed.pretraining.batches import validation_batches
from protembed.pretraining.ngrams import NgramModel


def index(letter):
    return AMINO_ACIDS.index(letter)


def mask_positions(sequence, positions, *, offsets=None):
    """Mask residues of one crop without special tokens, or of several crops divided by `offsets`."""
    tokens, positions = torch.from_numpy(encode(sequence)).long(), torch.tensor(positions)
    masked = tokens.clone()
    masked[positions] = MASK
    offsets = torch.tensor(offsets or [0, len(sequence)])
    return MaskedBatch(
        tokens=masked,
        offsets=offsets,
        rows=torch.zeros(len(offsets) - 1, dtype=torch.int64),
        positions=positions,
        targets=tokens[positions],
        num_residues=len(sequence),
    )


@pytest.fixture(scope="module")
def ngrams(make_corpus):
    """The n-gram model of seven residues: three A, two C, one M, one X."""
    return NgramModel(make_corpus(["ACX", "MACA"]))


def test_the_unigram_adds_one_pseudocount_to_each_amino_acid(ngrams):
    expected = np.ones(20)
    expected[[index("A"), index("C"), index("M")]] += [3, 2, 1]

    assert ngrams.unigram == pytest.approx(expected / 26)


def test_the_bigram_adds_twenty_pseudocounts_distributed_like_the_unigram(ngrams):
    unigram = ngrams.unigram

    # A is followed by C twice; neither the last A nor the X after C makes a pair.
    assert ngrams.bigram[index("A"), index("C")] == pytest.approx((2 + 20 * unigram[index("C")]) / 22)
    assert ngrams.bigram[index("A"), index("M")] == pytest.approx(20 * unigram[index("M")] / 22)
    assert ngrams.bigram[index("C"), index("A")] == pytest.approx((1 + 20 * unigram[index("A")]) / 21)
    assert ngrams.bigram[index("W")] == pytest.approx(unigram)
    assert ngrams.bigram.sum(1) == pytest.approx(np.ones(20))


def count_pairs(sequences):
    """Count pairs of neighbouring standard residues, (20, 20)."""
    pairs = np.zeros((20, 20))
    for sequence in sequences:
        for first, second in pairwise(sequence):
            if first in AMINO_ACIDS and second in AMINO_ACIDS:
                pairs[index(first), index(second)] += 1
    return pairs


@pytest.mark.parametrize("residues_per_block", [1, 2, 7, 100, 1 << 22])
def test_no_pair_spans_two_proteins_or_is_lost_between_blocks(make_corpus, proteins, residues_per_block):
    sequences = ["M", "K", "MK", *(protein[:17] for protein in proteins)]

    ngrams = NgramModel(make_corpus(sequences), residues_per_block=residues_per_block)

    pairs = count_pairs(sequences)
    letters = "".join(sequences)
    expected = np.array([letters.count(letter) + 1 for letter in AMINO_ACIDS])
    assert ngrams.unigram == pytest.approx(expected / expected.sum())
    smoothed = (pairs + 20 * ngrams.unigram) / (pairs.sum(1, keepdims=True) + 20)
    assert ngrams.bigram == pytest.approx(smoothed)


def test_losses_are_mean_nats_over_all_masked_residues(ngrams):
    losses = ngrams.losses([mask_positions("MAC", [1]), mask_positions("ACACM", [1, 3])])

    nats_a, nats_c = (-math.log(ngrams.unigram[index(letter)]) for letter in "AC")
    assert losses["unigram"] == pytest.approx((nats_a + 2 * nats_c) / 3)
    after_m, after_a = (-math.log(ngrams.bigram[index(pair[0]), index(pair[1])]) for pair in ("MA", "AC"))
    assert losses["bigram"] == pytest.approx((after_m + 2 * after_a) / 3)


@pytest.mark.parametrize(
    ("sequence", "positions", "offsets"),
    [
        ("CAM", [0], None),
        ("MACAM", [2], [0, 2, 5]),
        ("XAC", [1, 2], None),
    ],
    ids=["at the start", "at the start of a later crop", "after X and after a masked residue"],
)
def test_the_bigram_falls_back_to_the_unigram(ngrams, sequence, positions, offsets):
    losses = ngrams.losses([mask_positions(sequence, positions, offsets=offsets)])

    assert losses["bigram"] == pytest.approx(losses["unigram"])


def test_the_bigram_falls_back_to_the_unigram_after_cls(ngrams, make_corpus):
    (batch,) = validation_batches(make_corpus(["C"]), 10, 100)

    losses = ngrams.losses([batch])

    assert losses["bigram"] == losses["unigram"] == pytest.approx(-math.log(ngrams.unigram[index("C")]))


def test_the_bigram_beats_the_unigram_if_residues_depend_on_their_neighbours(make_corpus):
    alternating = make_corpus(["AC" * 100])

    losses = NgramModel(alternating).losses(validation_batches(alternating, 1000, 1000))

    assert losses["bigram"] < 0.75 * losses["unigram"]


def test_natural_proteins_have_a_unigram_perplexity_near_eighteen(corpus):
    losses = NgramModel(corpus).losses(validation_batches(corpus, 1000, 1000))

    assert math.exp(losses["unigram"]) == pytest.approx(18, abs=0.7)
    assert losses["bigram"] < math.log(20)
