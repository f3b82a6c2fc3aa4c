import copy
import math

import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, AMINO_ACIDS, FIRST_AMINO_ACID
from protembed.errors import DataError
from protembed.pretraining.corpus import Corpora
from protembed.pretraining.ngrams import NgramModel
from protembed.pretraining.validation import (
    ValidationSet,
    Validator,
    evaluate_by_amino_acid,
    gains_over_references,
    reference_losses,
)
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM

KEYS = {"valid_loss", "valid_perplexity", "valid_accuracy", "unigram_perplexity", "bigram_perplexity"}


@pytest.fixture
def objective(tiny_checkpoint):
    return MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head)


@pytest.fixture
def meter(make_corpus, proteins, objective, pool):
    """Measure on proteins 30 to 39, and on further sets."""

    def make(*further, window_residues=500, micro_batch_tokens=1000, valid=proteins[30:], compared=None):
        named = {"first": valid, **{f"set_{number}": part for number, part in enumerate(further, start=2)}}
        corpora = Corpora(
            train=make_corpus(proteins[:30]), valid=[make_corpus(part, name) for name, part in named.items()]
        )
        sets = [ValidationSet.from_corpus(corpus, window_residues, micro_batch_tokens) for corpus in corpora.valid]
        compute = Executor(pool=pool)
        return Validator(objective, sets, reference_losses(corpora, sets, compared, compute), compute)

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
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.from_numpy(NgramModel(make_corpus(proteins[:30])).unigram).log()

    measured = meter().measure()

    assert measured["valid_perplexity"] == pytest.approx(measured["unigram_perplexity"])


def test_the_figures_do_not_depend_on_packs_nor_on_the_order_of_proteins(meter, proteins):
    figures = [
        options.measure()
        for options in (meter(), meter(micro_batch_tokens=150), meter(micro_batch_tokens=1, valid=proteins[:29:-1]))
    ]

    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


def test_windows_change_what_the_model_sees_but_never_the_unigram(meter):
    whole, windows = meter().measure(), meter(window_residues=20).measure()

    assert windows["unigram_perplexity"] == whole["unigram_perplexity"]
    assert windows["valid_loss"] != whole["valid_loss"]


def test_further_sets_are_named_before_each_figure(meter, proteins):
    measured = meter(proteins[20:30], proteins[30:]).measure()

    assert measured.keys() == {f"{prefix}{key}" for prefix in ("", "set_2/", "set_3/") for key in KEYS}
    assert measured["set_3/valid_loss"] == pytest.approx(measured["valid_loss"])
    assert measured["set_2/valid_loss"] != measured["valid_loss"]
    assert measured["set_2/unigram_perplexity"] != measured["unigram_perplexity"]


def test_a_compared_model_is_measured_on_the_same_hidden_residues(meter, objective):
    one = meter(compared=copy.deepcopy(objective))
    before = one.measure()
    with torch.no_grad():
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)

    assert before["compared_perplexity"] == pytest.approx(before["valid_perplexity"])
    assert one.measure()["compared_perplexity"] == before["compared_perplexity"]


def test_the_amino_acids_make_up_the_whole(meter, objective, pool):
    one = meter()
    part, measured = one._sets[0], one.measure()

    figures = evaluate_by_amino_acid(objective, part, Executor(pool=pool))

    assert "".join(figure.name for figure in figures) == AMINO_ACIDS
    num_hidden = sum(figure.count for figure in figures)
    assert num_hidden == sum(len(micro_batch.targets) for micro_batch in part.micro_batches)
    loss = sum(figure.loss * figure.count for figure in figures if figure.count)
    correct = sum(figure.accuracy * figure.count for figure in figures if figure.count)
    assert loss / num_hidden == pytest.approx(measured["valid_loss"], rel=1e-5)
    assert correct / num_hidden == pytest.approx(measured["valid_accuracy"])


@pytest.mark.parametrize("window_residues", [500, 40])
def test_gains_are_the_references_losses_less_the_models_with_intervals(
    meter, objective, make_corpus, proteins, pool, window_residues
):
    other = copy.deepcopy(objective)
    with torch.no_grad():
        other.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)
    one = meter(window_residues=window_residues, compared=other)
    part, measured = one._sets[0], one.measure()

    gains = gains_over_references(objective, part, NgramModel(make_corpus(proteins[:30])), other, Executor(pool=pool))

    assert gains.keys() == {"unigram", "bigram", "compared"}
    for name, gain in gains.items():
        expected = math.log(measured[f"{name}_perplexity"]) - measured["valid_loss"]
        assert gain.value == pytest.approx(expected, abs=1e-5)
        assert gain.low < gain.value < gain.high


def test_a_model_gains_nothing_on_itself(meter, objective, make_corpus, proteins, pool):
    composition = NgramModel(make_corpus(proteins[:30]))

    gain = gains_over_references(objective, meter()._sets[0], composition, objective, Executor(pool=pool))["compared"]

    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_an_amino_acid_is_mistaken_for_what_is_guessed_in_its_place(meter, objective, pool):
    with torch.no_grad():
        objective.lm_head.bias[FIRST_AMINO_ACID] = 1e6

    leucine, *others = evaluate_by_amino_acid(objective, meter()._sets[0], Executor(pool=pool))

    assert (leucine.accuracy, leucine.top_confusion) == (1.0, None)
    assert {figure.top_confusion for figure in others if figure.count} == {"L"}


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


@pytest.mark.parametrize(("name", "num_proteins"), [("held_out", 4), ("mine", 10)])
def test_a_sample_of_held_out_proteins_is_measured_but_all_that_the_user_gave(
    make_corpus, proteins, name, num_proteins
):
    valid_set = ValidationSet.from_corpus(make_corpus(proteins[30:], name), 500, 1000, max_held_out=4)

    rows = {row for micro_batch in valid_set.micro_batches for row in micro_batch.rows.tolist()}
    assert valid_set.num_proteins == len(rows) == num_proteins
    assert max(rows) > 6
