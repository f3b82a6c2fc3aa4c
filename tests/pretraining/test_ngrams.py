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


def hide(sequence, positions, *, offsets=None):
    """Hide residues of one crop, or of several that `offsets` divide; no special tokens."""
    tokens, positions = torch.from_numpy(encode(sequence)).long(), torch.tensor(positions)
    shown = tokens.clone()
    shown[positions] = MASK
    offsets = torch.tensor(offsets or [0, len(sequence)])
    return MaskedBatch(
        tokens=shown,
        offsets=offsets,
        rows=torch.zeros(len(offsets) - 1, dtype=torch.int64),
        positions=positions,
        targets=tokens[positions],
        num_residues=len(sequence),
    )


@pytest.fixture(scope="module")
def ngrams(make_corpus):
    """Of seven residues: three A, two C, one M, one X."""
    return NgramModel(make_corpus(["ACX", "MACA"]))


def test_the_unigram_counts_each_amino_acid_once_more_than_it_occurs(ngrams):
    expected = np.ones(20)
    expected[[index("A"), index("C"), index("M")]] += [3, 2, 1]

    assert ngrams.unigram == pytest.approx(expected / 26)


def test_the_bigram_counts_neighbours_and_twenty_more_of_the_plain_composition(ngrams):
    plain = ngrams.unigram

    # A is followed by C twice; the last A and the X beside C make no pair.
    assert ngrams.bigram[index("A"), index("C")] == pytest.approx((2 + 20 * plain[index("C")]) / 22)
    assert ngrams.bigram[index("A"), index("M")] == pytest.approx(20 * plain[index("M")] / 22)
    assert ngrams.bigram[index("C"), index("A")] == pytest.approx((1 + 20 * plain[index("A")]) / 21)
    assert ngrams.bigram[index("W")] == pytest.approx(plain)
    assert ngrams.bigram.sum(1) == pytest.approx(np.ones(20))


def counted_one_by_one(sequences):
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

    pairs = counted_one_by_one(sequences)
    letters = "".join(sequences)
    expected = np.array([letters.count(letter) + 1 for letter in AMINO_ACIDS])
    assert ngrams.unigram == pytest.approx(expected / expected.sum())
    smoothed = (pairs + 20 * ngrams.unigram) / (pairs.sum(1, keepdims=True) + 20)
    assert ngrams.bigram == pytest.approx(smoothed)


def test_losses_are_mean_nats_over_all_hidden_residues(ngrams):
    losses = ngrams.losses([hide("MAC", [1]), hide("ACACM", [1, 3])])

    of_a, of_c = (-math.log(ngrams.unigram[index(letter)]) for letter in "AC")
    assert losses["unigram"] == pytest.approx((of_a + 2 * of_c) / 3)
    after_m, after_a = (-math.log(ngrams.bigram[index(pair[0]), index(pair[1])]) for pair in ("MA", "AC"))
    assert losses["bigram"] == pytest.approx((after_m + 2 * after_a) / 3)


@pytest.mark.parametrize(
    ("sequence", "hidden", "offsets"),
    [
        ("CAM", [0], None),
        ("MACAM", [2], [0, 2, 5]),
        ("XAC", [1, 2], None),
    ],
    ids=["at the start", "at the start of a later crop", "after X and after a hidden residue"],
)
def test_the_bigram_falls_back_to_the_unigram(ngrams, sequence, hidden, offsets):
    losses = ngrams.losses([hide(sequence, hidden, offsets=offsets)])

    assert losses["bigram"] == pytest.approx(losses["unigram"])


def test_the_left_neighbour_of_a_whole_proteins_first_residue_is_cls_and_unknown(ngrams, make_corpus):
    (batch,) = validation_batches(make_corpus(["C"]), 10, 100)

    losses = ngrams.losses([batch])

    assert losses["bigram"] == losses["unigram"] == pytest.approx(-math.log(ngrams.unigram[index("C")]))


def test_the_bigram_beats_the_unigram_where_neighbours_tell(make_corpus):
    alternating = make_corpus(["AC" * 100])

    losses = NgramModel(alternating).losses(validation_batches(alternating, 1000, 1000))

    assert losses["bigram"] < 0.75 * losses["unigram"]


def test_natural_proteins_have_a_unigram_perplexity_near_eighteen(corpus):
    losses = NgramModel(corpus).losses(validation_batches(corpus, 1000, 1000))

    assert math.exp(losses["unigram"]) == pytest.approx(18, abs=0.7)
    assert losses["bigram"] < math.log(20)
