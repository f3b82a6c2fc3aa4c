import numpy as np
import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, MASK, encode
from protembed.data.windows import most_central_window, window_spans
from protembed.inference.engine import Engine
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.model.checkpoint import load_checkpoint

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

    def make(window_residues=None, **options):
        return Marginals.from_checkpoint(checkpoint, window_residues=window_residues, **options)

    return make


@pytest.fixture
def engine(pool):
    return Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=500)


def query(sequence, *positions):
    return PositionQuery(sequence=sequence, positions=np.array(positions, dtype=np.int64))


def masked(tokens, index):
    return [*tokens[:index], MASK, *tokens[index + 1 :]]


def test_masked_log_probs_mask_each_position_alone(marginals, engine, oracle, proteins):
    queries = [query(proteins[3], 0, 7, 55), query(proteins[1], 5), query(proteins[4], 2, 3)]

    results = list(marginals().masked_log_probs(engine, queries))

    assert [query for query, _ in results] == queries
    for asked, log_probs in results:
        tokens = [CLS, *encode(asked.sequence), EOS]
        expected = [oracle(masked(tokens, index + 1))[index + 1] for index in asked.positions]
        np.testing.assert_allclose(log_probs, expected, **PARITY)


def test_unmasked_log_probs_take_one_pass_for_all_positions(marginals, engine, oracle, proteins):
    sizes = []
    queries = [query(proteins[3], 0, 7, 55), query(proteins[4], 2, 3)]

    results = list(marginals(on_crop=sizes.append).unmasked_log_probs(engine, queries))

    for asked, log_probs in results:
        np.testing.assert_allclose(
            log_probs, oracle([CLS, *encode(asked.sequence), EOS])[asked.positions + 1], **PARITY
        )
    assert sizes == [len(asked.sequence) + 2 for asked in queries]


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_position_of_a_long_protein_is_computed_in_its_most_central_window(
    is_masked, marginals, engine, oracle, proteins
):
    sequence, sizes = proteins[1], []
    residues, spans = encode(sequence), window_spans(len(sequence), 60)
    asked = query(sequence, *range(0, len(sequence), 7), len(sequence) - 1)
    model = marginals(60, on_crop=sizes.append)

    ((_, log_probs),) = (model.masked_log_probs if is_masked else model.unmasked_log_probs)(engine, [asked])

    assert len(spans) > 5
    for row, position in zip(log_probs, asked.positions, strict=True):
        start, stop = most_central_window(spans, int(position))
        tokens = [*[CLS] * (start == 0), *residues[start:stop], *[EOS] * (stop == len(residues))]
        index = position - start + (start == 0)
        seen = masked(tokens, index) if is_masked else tokens
        np.testing.assert_allclose(row, oracle(seen)[index], **PARITY)
    assert len(sizes) == (len(asked.positions) if is_masked else len(spans))
    assert sum(sizes) == model.num_tokens(asked, masked=is_masked)


def test_all_positions_are_those_of_standard_amino_acids():
    assert PositionQuery.all_positions("MXKB").positions.tolist() == [0, 2]


def test_probabilities_of_the_twenty_amino_acids_sum_to_one(marginals, engine, proteins):
    ((_, log_probs),) = marginals().masked_log_probs(engine, [query(proteins[3], 1, 2)])

    assert log_probs.shape == (2, 20)
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, rtol=1e-5)
