import math

import pytest
import torch

from protembed.analysis.baselines import Composition
from protembed.analysis.perplexity import PerplexityMeter
from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID
from protembed.data.corpus import Corpora
from protembed.errors import DataError
from protembed.training.objectives import MaskedLM

KEYS = {"valid_loss", "valid_perplexity", "valid_accuracy", "unigram_perplexity", "bigram_perplexity"}


@pytest.fixture
def objective(tiny_checkpoint):
    return MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head)


@pytest.fixture
def meter(make_corpus, proteins, objective, pool):
    """Measure on proteins 30 to 39, and on further sets."""

    def make(*further, window_residues=500, tokens_per_pack=1000, valid=proteins[30:]):
        sets = [make_corpus(valid), *map(make_corpus, further)]
        corpora = Corpora(train=make_corpus(proteins[:30]), valid=sets)
        return PerplexityMeter(corpora, objective, window_residues, tokens_per_pack, pool)

    return make


def test_every_figure_is_reported(meter):
    measured = meter().measure()

    assert measured.keys() == KEYS
    assert measured["valid_perplexity"] == pytest.approx(math.exp(measured["valid_loss"]))
    assert 0 <= measured["valid_accuracy"] <= 1
    assert 15 < measured["unigram_perplexity"] < 21
    assert 15 < measured["bigram_perplexity"] < 21


def test_a_model_that_knows_nothing_has_a_perplexity_of_twenty(meter, objective):
    with torch.no_grad():
        objective.encoder.embedding.weight.zero_()

    assert meter().measure()["valid_perplexity"] == pytest.approx(20)


def test_a_model_that_knows_the_composition_alone_has_the_unigrams_perplexity(meter, objective, make_corpus, proteins):
    with torch.no_grad():
        objective.encoder.embedding.weight.zero_()
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.from_numpy(Composition(make_corpus(proteins[:30])).unigram).log()

    measured = meter().measure()

    assert measured["valid_perplexity"] == pytest.approx(measured["unigram_perplexity"])


def test_the_figures_do_not_depend_on_packs_nor_on_the_order_of_proteins(meter, proteins):
    figures = [
        options.measure()
        for options in (meter(), meter(tokens_per_pack=150), meter(tokens_per_pack=1, valid=proteins[:29:-1]))
    ]

    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


def test_windows_change_what_the_model_sees_but_never_the_unigram(meter):
    whole, windows = meter().measure(), meter(window_residues=20).measure()

    assert windows["unigram_perplexity"] == whole["unigram_perplexity"]
    assert windows["valid_loss"] != whole["valid_loss"]


def test_further_sets_have_a_loss_each(meter, proteins):
    measured = meter(proteins[20:30], proteins[30:]).measure()

    assert measured.keys() == KEYS | {"valid_loss_2", "valid_loss_3"}
    assert measured["valid_loss_3"] == pytest.approx(measured["valid_loss"])
    assert measured["valid_loss_2"] != measured["valid_loss"]


def test_the_model_is_measured_as_it_stands_at_each_call(meter, objective):
    one = meter()
    before = one.measure()
    with torch.no_grad():
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)

    after = one.measure()

    assert after["valid_loss"] > before["valid_loss"] + 1
    assert after["unigram_perplexity"] == before["unigram_perplexity"]


def test_a_loss_beyond_all_measure_has_a_perplexity_that_json_can_hold(meter, objective):
    one = meter()
    with torch.no_grad():
        objective.lm_head.bias[FIRST_AMINO_ACID] = 1e6

    assert 1e100 < one.measure()["valid_perplexity"] < math.inf


def test_validation_proteins_without_a_standard_residue_are_too_few(meter):
    with pytest.raises(DataError):
        meter(valid=["XXX", "BZ"]).measure()
