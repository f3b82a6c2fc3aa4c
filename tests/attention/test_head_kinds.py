import numpy as np
import pytest

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.head_kinds import KINDS, rank_heads
from protembed.attention.significance import LabelledScores, permutation_test
from protembed.attention.sites import SiteResult

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
SEQUENCE = "".join(np.random.default_rng(0).permutation(list(8 * AMINO_ACIDS)))
TOKENS = np.arange(len(SEQUENCE) + 2)
IS_RESIDUE = (TOKENS > 0) & (TOKENS < TOKENS[-1])


def normalise(weights):
    """Divide by the sums of the rows; a row without attention is spread evenly."""
    weights = np.broadcast_to(weights, (len(TOKENS), len(TOKENS))).astype(float)
    weights = np.where(weights.sum(-1, keepdims=True) == 0, 1, weights)
    return weights / weights.sum(-1, keepdims=True)


def at_offsets(*offsets):
    return normalise(IS_RESIDUE & np.isin(TOKENS - TOKENS[:, None], offsets))


def on(letters, sequence=SEQUENCE):
    return normalise(np.array([False, *(letter in letters for letter in sequence), False]))


EVEN = normalise(np.ones(len(TOKENS)))
ON_CLS, ON_EOS = normalise(TOKENS == 0), normalise(TOKENS == TOKENS[-1])
# Attention on a fifth of the residues that nothing distinguishes, different for each residue.
SCATTERED = normalise(np.random.default_rng(1).random((len(TOKENS), len(TOKENS))) < 0.2)
PLANTED = {
    "offset": at_offsets(4),
    "previous": at_offsets(-1),
    "next": at_offsets(1),
    "itself": at_offsets(0),
    "amino acid": on("C"),
    "nearby": at_offsets(*range(-8, 9)),
    "cls": ON_CLS,
    "eos": ON_EOS,
    "even": EVEN,
    "none": SCATTERED,
}


@pytest.fixture(scope="module")
def describe(make_statistics):
    """Return a function that describes a head with a map, (length, length), of one protein."""

    def make(weights, sequence=SEQUENCE, **known):
        (kind,) = rank_heads(make_statistics({sequence: [[weights]]}), **known)
        return kind

    return make


@pytest.mark.parametrize("kind", PLANTED)
def test_head_that_does_one_thing_is_named_after_it(describe, kind):
    found = describe(PLANTED[kind])

    assert found.kind == kind
    if kind != "none":
        assert 0.9 < found.strength <= 1
    assert (found.strength > 2 * found.expected) == (kind not in ("even", "none"))


@pytest.mark.parametrize("kind", PLANTED)
def test_head_keeps_its_name_with_a_third_of_its_attention_elsewhere(describe, kind):
    assert describe(0.67 * PLANTED[kind] + 0.33 * SCATTERED).kind == kind


@pytest.mark.parametrize("kind", ["offset", "previous", "next", "itself", "nearby", "cls", "eos"])
def test_head_with_less_than_half_of_its_attention_on_a_place_is_not_named_after_it(describe, kind):
    assert describe(0.4 * PLANTED[kind] + 0.6 * SCATTERED).kind != kind


def test_heads_are_ranked_by_kind_and_then_by_strength(make_statistics):
    weak = 0.8 * at_offsets(4) + 0.2 * SCATTERED
    maps = [[SCATTERED, EVEN, weak, ON_CLS], [at_offsets(-7), on("C"), at_offsets(0), ON_EOS]]

    kinds = rank_heads(make_statistics({SEQUENCE: maps}))

    expected = [(2, 1), (1, 3), (2, 3), (2, 2), (1, 4), (2, 4), (1, 2), (1, 1)]
    assert [(kind.layer, kind.head) for kind in kinds] == expected
    assert [KINDS.index(kind.kind) for kind in kinds] == sorted(KINDS.index(kind.kind) for kind in kinds)
    assert kinds[0].strength > kinds[1].strength


@pytest.mark.parametrize(
    ("offsets", "kind", "word", "place"),
    [
        ([4], "offset", "residue +4 (a turn of a helix)", "the residue 4 positions after it"),
        ([-6], "offset", "residue -6", "the residue 6 positions before it"),
        ([2], "offset", "residue +2 (the same side of a strand)", "the residue 2 positions after it"),
        ([-2, -1], "offset", "residues -2 to -1", "the residues 1 to 2 positions before it"),
        ([6, 7], "offset", "residues +6 to +7", "the residues 6 to 7 positions after it"),
        ([-1, 0], "offset", "residues -1 to 0", "itself and the residues around it"),
        ([1], "next", "next residue", "the residue after it"),
        ([-1], "previous", "previous residue", "the residue before it"),
        ([0], "itself", "itself", "itself"),
    ],
)
def test_offset_is_given_with_its_share_beside_that_of_even_attention(describe, offsets, kind, word, place):
    found = describe(0.9 * at_offsets(*offsets) + 0.1 * SCATTERED)

    assert (found.kind, found.word) == (kind, word)
    assert f"of its attention to {place} (" in found.sentence
    assert found.sentence.endswith(" if spread evenly).")
    assert found.expected == pytest.approx(len(offsets) / len(TOKENS), rel=0.1)


def test_three_adjacent_offsets_count_as_one_and_the_strongest_decides_what_it_is(describe):
    found = describe(0.4 * at_offsets(4) + 0.15 * at_offsets(3) + 0.15 * at_offsets(5) + 0.3 * SCATTERED)

    assert found.word == "residues +3 to +4 (a turn of a helix)"
    assert "the residues 3 to 4 positions after it" in found.sentence


@pytest.mark.parametrize(
    ("letters", "word"),
    [("C", "Cys (C)"), ("DE", "acidic (D, E)"), ("CW", "C and W"), ("ILV", "aliphatic (I, L, V)")],
)
def test_preferred_amino_acids_are_named_together(describe, letters, word):
    found = describe(on(letters))

    assert (found.kind, found.word) == ("amino acid", word)
    assert found.expected == pytest.approx(sum(map(SEQUENCE.count, letters)) / len(SEQUENCE))


def test_offset_head_is_not_named_after_an_amino_acid_at_that_offset(describe):
    # Cysteine at every fourth position: a head on +4 gives a quarter of its attention to a twentieth of the alphabet.
    sequence = "".join("C" if number % 4 == 0 else letter for number, letter in enumerate(SEQUENCE))

    assert describe(at_offsets(4), sequence).kind == "offset"


def test_minor_preference_beside_a_strong_one_is_not_mentioned(describe):
    assert describe(0.6 * on("C") + 0.2 * on("K") + 0.2 * EVEN).word == "C and K"
    assert describe(0.85 * on("C") + 0.15 * on("K")).word == "Cys (C)"


def test_rare_amino_acid_does_not_give_a_head_its_name(describe):
    # Attention to four tryptophans may as well be attention to four positions.
    sequence = SEQUENCE.replace("W", "A")
    rare = "WWWW" + sequence[4:]
    more = "WWWWW" + sequence[5:]

    assert describe(on("W", rare), rare).kind == "none"
    assert describe(on("W", more), more).kind == "amino acid"


def test_nearby_is_no_pattern_in_a_short_protein(make_statistics):
    sequence, num_tokens = SEQUENCE[:12], 14
    distance = np.abs(np.subtract.outer(np.arange(num_tokens), np.arange(num_tokens)))
    near = np.where(distance <= 8, 1.0, 0.1)
    near /= near.sum(-1, keepdims=True)

    (kind,) = rank_heads(make_statistics({sequence: [[near]]}))

    assert kind.kind == "even"


# Contacts and sites


def head_test(rng, follows, num_residues=200):
    """Test two heads on labels that the first one follows, by as much as `follows`."""
    is_labelled = np.arange(num_residues) % 8 == 0
    values = rng.random((2, num_residues))
    values[0] += follows * is_labelled
    scores = LabelledScores(values=values, is_labelled=is_labelled, strata=np.zeros(num_residues, int))
    return permutation_test([scores], num_permutations=500)


def make_contacts(follows, precision, random=0.04):
    return ContactEvaluation(
        head_precisions=np.array([precision, random]),
        random_precision=random,
        significance=head_test(np.random.default_rng(0), follows),
        precisions={},
        fitted=None,
        num_proteins=3,
    )


@pytest.fixture(scope="module")
def two_heads(make_statistics):
    return make_statistics({SEQUENCE: [[at_offsets(4), SCATTERED]]})


def test_head_that_follows_contacts_comes_first_with_its_precision(two_heads):
    first, second = rank_heads(two_heads, make_contacts(0.9, 0.31))

    assert (first.kind, first.layer, first.head, first.strength, first.expected) == ("contacts", 1, 1, 0.31, 0.04)
    assert "31 % are in contact (random pairs: 4 %)." in first.sentence
    assert second.kind == "none"


@pytest.mark.parametrize(("follows", "precision"), [(0.9, 0.07), (0.0, 0.31)])
def test_contacts_must_be_significant_and_twice_as_precise_as_random_pairs(two_heads, follows, precision):
    assert [kind.kind for kind in rank_heads(two_heads, make_contacts(follows, precision))] == ["offset", "none"]


def test_head_is_named_after_the_label_that_it_attends_to_most(two_heads):
    rng = np.random.default_rng(0)
    follows = {"weak": 0.6, "<b>zinc": 0.9, "unrelated": 0.0}
    sites = {
        label: SiteResult(significance=head_test(rng, strength), num_residues=25, num_segments=25)
        for label, strength in follows.items()
    }

    first, second = rank_heads(two_heads, sites=sites)

    assert (first.kind, first.word, second.kind) == ("sites", "<b>zinc", "none")
    assert 0.9 < first.strength < 1
    assert first.expected == 0.5


def test_significant_preference_that_is_small_does_not_give_a_head_its_name(two_heads):
    test = head_test(np.random.default_rng(0), 0.1, num_residues=4000)
    assert test.q_values[0] < 0.01

    kinds = rank_heads(two_heads, sites={"site": SiteResult(significance=test, num_residues=500, num_segments=500)})

    assert [kind.kind for kind in kinds] == ["offset", "none"]
