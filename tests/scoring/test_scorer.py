import numpy as np
import pytest

from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID
from protembed.inference.engine import Engine
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.scoring.mutations import Place, find_mutations, mutate, parse_mutations
from protembed.scoring.scorer import MutatedPositions, VariantScorer
from protembed.scoring.variants import Variant

ROW = Place("variants.csv", 1)
METHODS = ("masked-marginals", "wildtype-marginals", "pseudo-perplexity")


@pytest.fixture
def score(tiny_checkpoint, pool):
    """Score variants, and count the passes of the model."""

    def run(variants, method):
        sizes, mutated = [], MutatedPositions()
        mutated.add(variants)
        marginals = Marginals.from_checkpoint(tiny_checkpoint)
        scorer = VariantScorer(marginals=marginals, method=method, mutated=mutated, on_crop=sizes.append)
        scored = list(scorer.scores(Engine(pool=pool, tokens_per_chunk=300), variants))
        assert [variant for variant, _ in scored] == list(variants)
        assert sum(sizes) == scorer.num_tokens()
        run.per_residue = [value.per_residue for _, value in scored]
        return [value.total for _, value in scored], len(sizes)

    return run


def variants_of(wild_type, *texts):
    return [Variant(wild_type=wild_type, mutations=parse_mutations(text, 0, ROW), cells=[]) for text in texts]


@pytest.fixture
def wild_type(proteins):
    return proteins[3]


def mutation(wild_type, position, mutant):
    return f"{wild_type[position - 1]}{position}{mutant}"


@pytest.mark.parametrize("method", METHODS)
def test_the_wild_type_scores_zero_in_every_row(method, score, wild_type):
    mutant = mutation(wild_type, 2, "W")

    values, _ = score(variants_of(wild_type, "WT", mutant, "WT", "WT", mutant, "WT"), method)

    assert [value == 0 for value in values] == [True, False, True, True, False, True]
    assert values[1] == values[4]


@pytest.mark.parametrize("method", METHODS)
def test_scoring_wild_types_only_runs_no_pass_of_the_model(method, score, wild_type):
    assert score(variants_of(wild_type, "WT", "WT"), method) == ([0.0, 0.0], 0)
    assert score([], method) == ([], 0)


@pytest.mark.parametrize("method", METHODS[:2])
def test_marginals_of_several_mutations_are_the_sum_of_each(method, score, wild_type):
    first, second = mutation(wild_type, 2, "W"), mutation(wild_type, 9, "C")

    scores, _ = score(variants_of(wild_type, first, second, f"{first}:{second}"), method)

    np.testing.assert_allclose(scores[2], scores[0] + scores[1], rtol=1e-9)
    assert abs(scores[0] - scores[1]) > 1e-5


def test_passes_do_not_grow_with_the_number_of_variants_at_a_position(score, wild_type):
    few = variants_of(wild_type, *(mutation(wild_type, position, "W") for position in (2, 9)))
    many = variants_of(wild_type, *(mutation(wild_type, position, to) for position in (2, 9) for to in "ACDEFGHIKL"))

    assert score(few, "masked-marginals")[1] == score(many, "masked-marginals")[1] == 2
    assert score(few, "wildtype-marginals")[1] == score(many, "wildtype-marginals")[1] == 1


def test_variants_of_several_wild_types_score_as_in_separate_tables(score, proteins):
    apart = [variants_of(protein, mutation(protein, 2, "W"), mutation(protein, 5, "W")) for protein in proteins[3:6]]
    mixed = [variants[number] for number in (1, 0) for variants in apart]

    for method in METHODS:
        values = dict(zip(map(id, mixed), score(mixed, method)[0], strict=True))
        for variants in apart:
            alone, _ = score(variants, method)
            np.testing.assert_allclose([values[id(variant)] for variant in variants], alone, rtol=1e-5, atol=1e-6)


def test_pseudo_perplexity_masks_every_residue_of_every_mutated_sequence(score, wild_type):
    variants = variants_of(wild_type, mutation(wild_type, 2, "W"), "WT", mutation(wild_type, 5, "W"))

    assert score(variants, "pseudo-perplexity")[1] == 3 * len(wild_type)


def test_reverting_a_mutation_negates_its_pseudo_perplexity_score(score, wild_type):
    there = variants_of(wild_type, mutation(wild_type, 2, "W"))[0]
    back = Variant(wild_type=there.sequence, mutations=find_mutations(there.sequence, wild_type, ROW), cells=[])

    (forth, reverse), _ = score([there, back], "pseudo-perplexity")

    np.testing.assert_allclose(forth, -reverse, rtol=1e-4)


# Insertions and deletions


def shifted(wild_type, text):
    mutations = parse_mutations(text, 0, ROW)
    return Variant(wild_type=wild_type, mutations=mutations, cells=[], shifted=mutate(wild_type, mutations))


def likelihood(checkpoint, pool, sequence):
    (found,) = Engine(pool=pool).run(
        Marginals.from_checkpoint(checkpoint).masked(), [PositionQuery.amino_acids(sequence)]
    )
    query, log_probs = found
    return log_probs[np.arange(len(query.positions)), query.residues - FIRST_AMINO_ACID].sum(dtype=float)


@pytest.mark.parametrize("method", METHODS)
def test_a_deletion_scores_the_difference_of_pseudo_log_likelihoods_by_every_method(
    method, score, wild_type, tiny_checkpoint, pool
):
    variant = shifted(wild_type, f"{wild_type[4]}5_{wild_type[6]}7del")
    substitution = variants_of(wild_type, mutation(wild_type, 2, "W"))[0]

    (_, total, _), _ = score([substitution, variant, substitution], method)

    after, before = (likelihood(tiny_checkpoint, pool, sequence) for sequence in (variant.sequence, wild_type))
    assert total == pytest.approx(after - before, abs=1e-4)
    expected = after / (len(wild_type) - 3) - before / len(wild_type)
    assert score.per_residue[1] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(score.per_residue[0]) == (method != "pseudo-perplexity")


def test_substitutions_score_the_same_beside_deletions(score, wild_type):
    substitutions = variants_of(wild_type, mutation(wild_type, 2, "W"), mutation(wild_type, 9, "C"), "WT")
    deletion = shifted(wild_type, f"{wild_type[4]}5del")

    alone, _ = score(substitutions, "masked-marginals")
    beside, _ = score([substitutions[0], deletion, *substitutions[1:]], "masked-marginals")

    assert [beside[0], *beside[2:]] == alone


def test_means_of_substitutions_are_those_of_the_positions_computed(tiny_checkpoint, pool, wild_type):
    letters = AMINO_ACIDS[:5]
    position = wild_type.index("L") + 1
    variants = variants_of(wild_type, *(mutation(wild_type, position, letter) for letter in letters))
    mutated = MutatedPositions()
    mutated.add(variants)
    scorer = VariantScorer(
        marginals=Marginals.from_checkpoint(tiny_checkpoint), method="masked-marginals", mutated=mutated
    )

    scores = [value.total for _, value in scorer.scores(Engine(pool=pool), variants)]

    np.testing.assert_allclose(scorer.means.matrix()[AMINO_ACIDS.index("L"), :5], scores, atol=1e-6)
