import numpy as np
import pytest
import torch

from protembed.config.model_sizes import ESM2Shape
from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, MASK, encode
from protembed.data.windows import most_central_window, window_spans
from protembed.inference.engine import Engine
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.model.checkpoint import load_checkpoint, new_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def oracle(tiny_esm, tmp_path_factory):
    """Compute log probabilities of the 20 amino acids, (tokens, 20), with transformers."""

    def log_probs(tokens):
        with torch.no_grad():
            logits = tiny_esm(input_ids=torch.tensor([list(map(int, tokens))])).logits[0]
        return logits[:, AMINO_ACID_IDS].log_softmax(-1).numpy()

    return log_probs


@pytest.fixture(scope="module")
def marginals(tiny_esm, tmp_path_factory):
    """Make marginals with the model of `oracle`."""
    directory = tmp_path_factory.mktemp("models") / "esm"
    tiny_esm.save_pretrained(directory)
    checkpoint = load_checkpoint(directory)

    def make(window_residues=None):
        return Marginals.from_checkpoint(checkpoint, window_residues)

    return make


@pytest.fixture
def engine(pool):
    return Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=500)


def query(sequence, *positions):
    return PositionQuery(residues=encode(sequence), positions=np.array(positions, dtype=np.int64))


def masked(tokens, index):
    return [*tokens[:index], MASK, *tokens[index + 1 :]]


def test_masked_log_probs_mask_each_position_alone(marginals, engine, oracle, proteins):
    queries = [query(proteins[3], 0, 7, 55), query(proteins[1], 5), query(proteins[4], 2, 3)]

    results = list(engine.run(marginals().masked(), queries))

    assert [query for query, _ in results] == queries
    for asked, log_probs in results:
        tokens = [CLS, *asked.residues, EOS]
        expected = [oracle(masked(tokens, index + 1))[index + 1] for index in asked.positions]
        np.testing.assert_allclose(log_probs, expected, **PARITY)


def test_unmasked_log_probs_take_one_pass_for_all_positions(marginals, engine, oracle, proteins):
    sizes = []
    queries = [query(proteins[3], 0, 7, 55), query(proteins[4], 2, 3)]

    results = list(engine.run(marginals().unmasked(), queries, sizes.append))

    for asked, log_probs in results:
        np.testing.assert_allclose(log_probs, oracle([CLS, *asked.residues, EOS])[asked.positions + 1], **PARITY)
    assert sizes == [len(asked.residues) + 2 for asked in queries]


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_position_of_a_long_protein_is_computed_in_its_most_central_window(
    is_masked, marginals, engine, oracle, proteins
):
    sequence, sizes = proteins[1], []
    residues, spans = encode(sequence), window_spans(len(sequence), 60)
    asked = query(sequence, *range(0, len(sequence), 7), len(sequence) - 1)
    job = marginals(60).masked() if is_masked else marginals(60).unmasked()

    ((_, log_probs),) = engine.run(job, [asked], sizes.append)

    assert len(spans) > 5
    for row, position in zip(log_probs, asked.positions, strict=True):
        start, stop = most_central_window(spans, int(position))
        tokens = [*[CLS] * (start == 0), *residues[start:stop], *[EOS] * (stop == len(residues))]
        index = position - start + (start == 0)
        seen = masked(tokens, index) if is_masked else tokens
        np.testing.assert_allclose(row, oracle(seen)[index], **PARITY)
    assert len(sizes) == (len(asked.positions) if is_masked else len(spans))
    assert sum(sizes) == job.num_tokens(asked)


@pytest.mark.parametrize("is_masked", [True, False])
def test_residues_that_the_caller_masked_stay_masked(is_masked, marginals, engine, oracle, proteins):
    residues = encode(proteins[3])
    residues[[4, 5, 30]] = MASK
    asked = PositionQuery(residues=residues, positions=np.array([3, 4, 30, 31]))
    job = marginals().masked() if is_masked else marginals().unmasked()

    ((_, log_probs),) = engine.run(job, [asked])

    tokens = [CLS, *residues, EOS]
    for row, position in zip(log_probs, asked.positions + 1, strict=True):
        seen = masked(tokens, position) if is_masked else tokens
        np.testing.assert_allclose(row, oracle(seen)[position], **PARITY)
    assert residues[3] != MASK  # the query is not changed


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_query_without_positions_has_no_rows(is_masked, marginals, engine):
    job = marginals().masked() if is_masked else marginals().unmasked()

    ((_, log_probs),) = engine.run(job, [query("MKT")])

    assert log_probs.shape == (0, 20)


def test_amino_acids_are_queried_and_other_residues_are_not():
    assert PositionQuery.amino_acids("MXKB").positions.tolist() == [0, 2]


def test_probabilities_of_the_twenty_amino_acids_sum_to_one(marginals, engine, proteins):
    ((_, log_probs),) = engine.run(marginals().masked(), [query(proteins[3], 1, 2)])

    assert log_probs.shape == (2, 20)
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_position_has_the_same_bits_whichever_others_are_asked_about(pool, proteins, is_masked):
    # A narrow model would not show it: MKL adds up wide products of few rows in another order.
    checkpoint = new_checkpoint(ESM2Shape(num_layers=1, dim=320, num_heads=20), "gaussian", seed=0)
    marginals = Marginals.from_checkpoint(checkpoint, window_residues=1022)
    job, engine = marginals.masked() if is_masked else marginals.unmasked(), Engine(pool=pool)
    sequence = proteins[3][:30]

    ((_, together),) = engine.run(job, [query(sequence, *range(30))])
    alone = [log_probs[0] for index in range(30) for _, log_probs in engine.run(job, [query(sequence, index)])]

    assert np.array_equal(together, alone)
