"""Masked positions filled in: probabilities as transformers computes them, and draws that nothing else changes."""

import numpy as np
import pytest

from protembed.data.alphabet import AMINO_ACIDS, encode
from protembed.device import WorkerPool
from protembed.errors import NotFiniteError
from protembed.inference.engine import Engine
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.model.checkpoint import load_checkpoint
from protembed.scoring.filling import Draft, SequenceSampler, rank_residues


@pytest.fixture(scope="module")
def marginals(plain_model):
    checkpoint = load_checkpoint(plain_model.directory)
    return lambda window_residues: Marginals.from_checkpoint(checkpoint, window_residues)


@pytest.fixture(scope="module")
def masked(proteins):
    """A protein of 383 residues, with masked positions at its ends, side by side, and apart."""
    letters = list(proteins[1])
    for position in (0, 1, 40, 41, 42, 150, 261, len(letters) - 1):
        letters[position] = "?"
    return "".join(letters)


@pytest.fixture
def engine(pool):
    return Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=500)


def begin(sequence, numbers, seed=0):
    return [Draft.begin("p", sequence, seed=seed, number=number) for number in numbers]


def samples(sampler, engine, drafts):
    return [draft.sequence for draft in sampler.complete(engine, drafts)]


@pytest.fixture
def sampler(tiny_checkpoint):
    def make(temperature=1.0, window_residues=None):
        marginals = Marginals.from_checkpoint(tiny_checkpoint, window_residues)
        return SequenceSampler(marginals=marginals, temperature=temperature)

    return make


# Parity


@pytest.mark.parametrize("window_residues", [1000, 60])
def test_probabilities_at_masked_positions_equal_a_plain_computation_with_transformers(
    window_residues, plain_model, marginals, masked, engine
):
    query = PositionQuery.masked(encode(masked))

    ((_, log_probs),) = engine.run(marginals(window_residues).unmasked(), [query])

    options = {"is_masked": False, "window_residues": window_residues}  # the positions are masked already
    expected = [plain_model.log_probs(masked, position, **options) for position in query.positions.tolist()]
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)
    ranked = list(rank_residues(query, log_probs, 3))
    assert [(row.position, row.rank) for row in ranked[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    for row in ranked:
        probabilities = np.exp(expected[query.positions.tolist().index(row.position - 1)])
        np.testing.assert_allclose(row.probability, np.sort(probabilities)[-row.rank], rtol=0, atol=1e-5)
        np.testing.assert_allclose(row.probability, probabilities[AMINO_ACIDS.index(row.residue)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("window_residues", [1000, 60])
def test_the_most_probable_sequence_is_filled_in_best_first_as_a_plain_loop_over_transformers_does(
    window_residues, plain_model, marginals, masked, engine
):
    letters, total = list(masked), 0.0
    options = {"is_masked": False, "window_residues": window_residues}  # the positions are masked already
    while "?" in letters:
        positions = [position for position, letter in enumerate(letters) if letter == "?"]
        rows = {position: plain_model.log_probs("".join(letters), position, **options) for position in positions}
        best = max(positions, key=lambda position: rows[position].max())
        letters[best] = AMINO_ACIDS[rows[best].argmax()]
        total += rows[best].max()

    sampler = SequenceSampler(marginals=marginals(window_residues), temperature=0)
    (draft,) = sampler.complete(engine, begin(masked, [1]))

    assert draft.sequence == "".join(letters)
    np.testing.assert_allclose(draft.log_probability, total, rtol=0, atol=1e-4)


# Draws


def test_drawn_residues_follow_the_probabilities_of_the_model(sampler, engine):
    sequence, number = "MKTAY?AKQR", 2000
    ((query, log_probs),) = engine.run(sampler().marginals.unmasked(), [PositionQuery.masked(encode(sequence))])

    drawn = [sample[5] for sample in samples(sampler(), engine, begin(sequence, range(1, number + 1)))]

    counts = np.array([drawn.count(letter) for letter in AMINO_ACIDS])
    probabilities = np.exp(log_probs[0])
    assert (abs(counts / number - probabilities) < 5 * np.sqrt(probabilities / number)).all()


def test_a_low_temperature_prefers_the_most_probable_residue_and_a_high_one_is_uniform(sampler, engine):
    sequence = "MKTAY?AKQR"
    ((query, log_probs),) = engine.run(sampler().marginals.unmasked(), [PositionQuery.masked(encode(sequence))])
    best = AMINO_ACIDS[log_probs[0].argmax()]

    cold = [samples(sampler(low), engine, begin(sequence, range(1, 21))) for low in (0, 1e-320, 1e-5)]
    hot = samples(sampler(100.0), engine, begin(sequence, range(1, 401)))

    assert {sample[5] for drawn in cold for sample in drawn} == {best}
    assert {sample[5] for sample in hot} == set(AMINO_ACIDS)


def test_a_sample_depends_on_its_number_and_seed_alone_and_not_on_other_samples_and_proteins(
    sampler, engine, masked, proteins
):
    other = "?" + proteins[3][1:-4] + "????"
    together = samples(sampler(), engine, [*begin(other, range(1, 5)), *begin(masked, range(1, 5))])

    assert samples(sampler(), engine, begin(masked, [3])) == [together[6]]
    assert samples(sampler(), engine, begin(other, [4, 2])) == [together[3], together[1]]
    assert samples(sampler(), engine, begin(masked, [3], seed=1)) != [together[6]]
    assert len(set(together)) == 8


def test_samples_are_the_same_with_any_number_of_workers_and_any_batch_size(sampler, masked):
    results = []
    for num_workers, tokens in ((1, 1024), (3, 50)):
        with WorkerPool(num_workers) as pool:
            engine = Engine(pool=pool, micro_batch_tokens=tokens, tokens_per_chunk=10 * tokens)
            completed = sampler(window_residues=60).complete(engine, begin(masked, range(1, 7)))
            results.append([(draft.sequence, draft.log_probability) for draft in completed])

    assert results[0] == results[1]


def test_residues_that_are_not_masked_are_kept_also_those_beside_the_twenty(sampler, engine):
    (sample,) = samples(sampler(), engine, begin("MXB?UZO?K", [1]))

    assert [sample[index] for index in (0, 1, 2, 4, 5, 6, 8)] == list("MXBUZOK")
    assert {sample[3], sample[7]} <= set(AMINO_ACIDS)


def test_equal_drafts_are_computed_once(sampler, engine, monkeypatch):
    counts = []
    run = Engine.run
    monkeypatch.setattr(
        Engine, "run", lambda self, job, queries: (counts.append(len(queries)), run(self, job, queries))[1]
    )

    list(sampler(0).complete(engine, begin("MK??Y", range(1, 9))))

    assert counts == [1, 1]


def test_progress_counts_the_tokens_of_each_draft_after_every_draw(sampler, engine):
    tokens = []

    list(sampler().complete(engine, begin("MK??Y", [1, 2]), tokens.append))

    assert tokens == [7] * 4


def test_a_protein_of_masks_alone_is_filled_in(sampler, engine):
    (sample,) = samples(sampler(window_residues=16), engine, begin("?" * 40, [1]))

    assert len(sample) == 40
    assert set(sample) <= set(AMINO_ACIDS)


def test_a_log_probability_that_is_not_finite_is_an_error(sampler, engine):
    broken = sampler()
    broken.marginals.encoder.final_norm.weight.data.fill_(float("nan"))

    with pytest.raises(NotFiniteError, match="'p'"):
        samples(broken, engine, begin("MK?", [1]))
