import numpy as np
import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, MASK, encode
from protembed.data.windows import most_central_window, window_spans
from protembed.inference.engine import Engine
from protembed.inference.marginals import PositionQuery, marginals_of
from protembed.model.checkpoint import load_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def oracle(tiny_esm, tmp_path_factory):
    """What transformers says of some tokens: log probabilities of the 20 amino acids, (tokens, 20)."""

    def ask(tokens):
        with torch.no_grad():
            logits = tiny_esm(input_ids=torch.tensor([list(map(int, tokens))])).logits[0]
        return logits[:, AMINO_ACID_IDS].log_softmax(-1).numpy()

    return ask


@pytest.fixture(scope="module")
def marginals(tiny_esm, tmp_path_factory):
    """Make marginals of the model of `oracle`."""
    directory = tmp_path_factory.mktemp("models") / "esm"
    tiny_esm.save_pretrained(directory)
    checkpoint = load_checkpoint(directory)

    def make(window_residues=None, **options):
        return marginals_of(checkpoint, window_residues=window_residues, **options)

    return make


@pytest.fixture
def engine(pool):
    return Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=500)


def query(sequence, *positions):
    return PositionQuery(sequence=sequence, positions=np.array(positions, dtype=np.int64))


def masked(tokens, place):
    return [*tokens[:place], MASK, *tokens[place + 1 :]]


def test_each_position_is_asked_with_itself_alone_masked(marginals, engine, oracle, proteins):
    queries = [query(proteins[3], 0, 7, 55), query(proteins[1], 5), query(proteins[4], 2, 3)]

    answers = list(marginals().masked(engine, queries))

    assert [asked for asked, _ in answers] == queries
    for asked, found in answers:
        tokens = [CLS, *encode(asked.sequence), EOS]
        expected = [oracle(masked(tokens, place + 1))[place + 1] for place in asked.positions]
        np.testing.assert_allclose(found, expected, **PARITY)


def test_one_pass_with_nothing_masked_answers_at_every_position(marginals, engine, oracle, proteins):
    sizes = []
    queries = [query(proteins[3], 0, 7, 55), query(proteins[4], 2, 3)]

    answers = list(marginals(on_crop=sizes.append).unmasked(engine, queries))

    for asked, found in answers:
        np.testing.assert_allclose(found, oracle([CLS, *encode(asked.sequence), EOS])[asked.positions + 1], **PARITY)
    assert sizes == [len(asked.sequence) + 2 for asked in queries]


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_position_of_a_long_protein_is_asked_in_its_most_central_window(
    is_masked, marginals, engine, oracle, proteins
):
    sequence, sizes = proteins[1], []
    residues, spans = encode(sequence), window_spans(len(sequence), 60)
    asked = query(sequence, *range(0, len(sequence), 7), len(sequence) - 1)
    model = marginals(60, on_crop=sizes.append)

    ((_, found),) = (model.masked if is_masked else model.unmasked)(engine, [asked])

    assert len(spans) > 5
    for row, position in zip(found, asked.positions, strict=True):
        start, stop = most_central_window(spans, int(position))
        tokens = [*[CLS] * (start == 0), *residues[start:stop], *[EOS] * (stop == len(residues))]
        place = position - start + (start == 0)
        shown = masked(tokens, place) if is_masked else tokens
        np.testing.assert_allclose(row, oracle(shown)[place], **PARITY)
    assert len(sizes) == (len(asked.positions) if is_masked else len(spans))
    assert sum(sizes) == model.num_tokens(asked, masked=is_masked)


def test_everywhere_is_at_every_amino_acid_and_not_at_others():
    assert PositionQuery.all_positions("MXKB").positions.tolist() == [0, 2]


def test_probabilities_are_those_of_twenty_amino_acids(marginals, engine, proteins):
    ((_, found),) = marginals().masked(engine, [query(proteins[3], 1, 2)])

    assert found.shape == (2, 20)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
