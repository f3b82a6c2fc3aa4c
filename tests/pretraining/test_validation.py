import copy
import math
from dataclasses import replace

import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, AMINO_ACIDS, FIRST_AMINO_ACID
from protembed.errors import DataError
from protembed.pretraining import validation
from protembed.pretraining.corpus import Corpora
from protembed.pretraining.ngrams import NgramModel
from protembed.pretraining.validation import Evaluator, ValidationSet
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM

KEYS = {"valid_loss", "valid_perplexity", "valid_accuracy", "unigram_perplexity", "bigram_perplexity"}


@pytest.fixture
def objective(tiny_checkpoint):
    return MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head)


@pytest.fixture
def make_evaluator(make_corpus, proteins, pool):
    """Make an evaluator on proteins 30 to 39, and on further sets."""

    def make(*further, window_residues=500, micro_batch_tokens=1000, valid=proteins[30:], compared=None):
        named = {"first": valid, **{f"set_{number}": some for number, some in enumerate(further, start=2)}}
        corpora = Corpora(
            train=make_corpus(proteins[:30]), valid=[make_corpus(some, name) for name, some in named.items()]
        )
        sets = [ValidationSet.from_corpus(corpus, window_residues, micro_batch_tokens) for corpus in corpora.valid]
        return Evaluator(
            train=corpora.train, valid_sets=sets, load_compared=lambda: compared, executor=Executor(pool=pool)
        )

    return make


@pytest.fixture
def measure(objective):
    """Compute the metrics of the objective and of the references."""
    return lambda evaluator: evaluator.validate(objective, evaluator.reference_losses()).metrics


def test_all_metrics_are_reported(make_evaluator, measure):
    measured = measure(make_evaluator())

    assert measured.keys() == KEYS
    assert measured["valid_perplexity"] == pytest.approx(math.exp(measured["valid_loss"]))
    assert 0 <= measured["valid_accuracy"] <= 1
    assert 15 < measured["unigram_perplexity"] < 21
    assert 15 < measured["bigram_perplexity"] < 21


def test_a_run_in_bfloat16_is_validated_in_float32_on_a_cpu(make_evaluator, measure, pool):
    evaluator = make_evaluator()

    assert measure(replace(evaluator, executor=Executor(pool=pool, precision=torch.bfloat16))) == measure(evaluator)


@pytest.mark.parametrize(
    ("device", "precision", "is_half"),
    [
        ("cuda", torch.bfloat16, True),
        ("cuda", torch.float32, False),
        ("cpu", torch.bfloat16, False),
        ("cpu", torch.float32, False),
    ],
)
def test_only_runs_in_bfloat16_on_gpus_are_validated_in_bfloat16(device, precision, is_half, pool):
    executor = Executor(pool=pool, precision=precision)

    assert validation.validates_in_bfloat16(torch.device(device), executor) == is_half


def test_an_exact_validation_is_in_float32_whatever_the_precision_of_the_run(
    make_evaluator, objective, pool, monkeypatch
):
    in_half = lambda device, executor: executor.precision == torch.bfloat16  # noqa: E731  # as on a GPU
    monkeypatch.setattr(validation, "validates_in_bfloat16", in_half)
    exact = make_evaluator()
    evaluator = replace(exact, executor=Executor(pool=pool, precision=torch.bfloat16))
    references = exact.reference_losses()

    during_run, at_end, expected = (
        evaluator.validate(objective, references).metrics,
        evaluator.validate_exactly(objective, references).metrics,
        exact.validate(objective, references).metrics,
    )

    assert at_end == expected
    assert during_run["valid_loss"] != expected["valid_loss"]
    assert during_run["valid_loss"] == pytest.approx(expected["valid_loss"], abs=0.003)


def test_a_uniform_model_has_a_perplexity_of_twenty(make_evaluator, measure, objective):
    with torch.no_grad():
        objective.encoder.embedding.weight.zero_()

    assert measure(make_evaluator())["valid_perplexity"] == pytest.approx(20)


def test_a_model_of_the_composition_has_the_perplexity_of_the_unigram(
    make_evaluator, measure, objective, make_corpus, proteins
):
    with torch.no_grad():
        objective.encoder.embedding.weight.zero_()
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.from_numpy(NgramModel(make_corpus(proteins[:30])).unigram).log()

    measured = measure(make_evaluator())

    assert measured["valid_perplexity"] == pytest.approx(measured["unigram_perplexity"])


def test_metrics_depend_neither_on_micro_batches_nor_on_the_order_of_proteins(make_evaluator, measure, proteins):
    metrics = [
        measure(evaluator)
        for evaluator in (
            make_evaluator(),
            make_evaluator(micro_batch_tokens=150),
            make_evaluator(micro_batch_tokens=1, valid=proteins[:29:-1]),
        )
    ]

    assert metrics[1] == pytest.approx(metrics[0], rel=1e-5)
    assert metrics[2] == pytest.approx(metrics[0], rel=1e-5)


def test_windows_change_the_loss_of_the_model_but_not_that_of_the_unigram(make_evaluator, measure):
    whole, windows = measure(make_evaluator()), measure(make_evaluator(window_residues=20))

    assert windows["unigram_perplexity"] == whole["unigram_perplexity"]
    assert windows["valid_loss"] != whole["valid_loss"]


def test_metrics_of_further_sets_are_prefixed_with_their_name(make_evaluator, measure, proteins):
    measured = measure(make_evaluator(proteins[20:30], proteins[30:]))

    assert measured.keys() == {f"{prefix}{key}" for prefix in ("", "set_2/", "set_3/") for key in KEYS}
    assert measured["set_3/valid_loss"] == pytest.approx(measured["valid_loss"])
    assert measured["set_2/valid_loss"] != measured["valid_loss"]
    assert measured["set_2/unigram_perplexity"] != measured["unigram_perplexity"]


def test_a_compared_model_is_evaluated_on_the_same_masked_residues(make_evaluator, measure, objective):
    evaluator = make_evaluator(compared=copy.deepcopy(objective))
    before = measure(evaluator)
    with torch.no_grad():
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)

    assert before["compared_perplexity"] == pytest.approx(before["valid_perplexity"])
    assert measure(evaluator)["compared_perplexity"] == before["compared_perplexity"]


def test_metrics_by_amino_acid_add_up_to_those_of_all_residues(make_evaluator, measure, objective):
    evaluator = make_evaluator()
    valid_set, measured = evaluator.valid_sets[0], measure(evaluator)

    metrics = evaluator.by_amino_acid(objective).metrics()

    assert "".join(row.name for row in metrics) == AMINO_ACIDS
    num_masked = sum(row.count for row in metrics)
    assert num_masked == sum(len(micro_batch.targets) for micro_batch in valid_set.micro_batches)
    loss = sum(row.loss * row.count for row in metrics if row.count)
    correct = sum(row.accuracy * row.count for row in metrics if row.count)
    assert loss / num_masked == pytest.approx(measured["valid_loss"], rel=1e-5)
    assert correct / num_masked == pytest.approx(measured["valid_accuracy"])


def test_predictions_of_amino_acids_in_a_validation_are_those_of_the_first_set(make_evaluator, objective, proteins):
    evaluator = make_evaluator(proteins[20:30], micro_batch_tokens=150)

    validated = evaluator.validate(objective, evaluator.reference_losses()).amino_acids.plain()

    assert validated == evaluator.by_amino_acid(objective).plain()


@pytest.mark.parametrize("window_residues", [500, 40])
def test_gains_are_differences_of_losses_with_intervals(make_evaluator, measure, objective, window_residues):
    other = copy.deepcopy(objective)
    with torch.no_grad():
        other.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)
    evaluator = make_evaluator(window_residues=window_residues, compared=other)
    measured = measure(evaluator)

    gains = evaluator.gains(objective)

    assert gains.keys() == {"unigram", "bigram", "compared"}
    for name, gain in gains.items():
        expected = math.log(measured[f"{name}_perplexity"]) - measured["valid_loss"]
        assert gain.value == pytest.approx(expected, abs=1e-5)
        assert gain.low < gain.value < gain.high


def test_the_gain_of_a_model_over_itself_is_zero(make_evaluator, objective):
    gain = make_evaluator(compared=objective).gains(objective)["compared"]

    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_the_top_confusion_is_the_most_frequent_wrong_prediction(make_evaluator, objective):
    with torch.no_grad():
        objective.lm_head.bias[FIRST_AMINO_ACID] = 1e6

    leucine, *others = make_evaluator().by_amino_acid(objective).metrics()

    assert (leucine.accuracy, leucine.top_confusion) == (1.0, None)
    assert {row.top_confusion for row in others if row.count} == {"L"}


def test_each_call_evaluates_the_current_weights(make_evaluator, measure, objective):
    evaluator = make_evaluator()
    before = measure(evaluator)
    with torch.no_grad():
        objective.lm_head.bias[AMINO_ACID_IDS] = torch.arange(20.0)

    after = measure(evaluator)

    assert after["valid_loss"] > before["valid_loss"] + 1
    assert after["unigram_perplexity"] == before["unigram_perplexity"]


def test_the_perplexity_of_a_huge_loss_is_finite(make_evaluator, measure, objective):
    evaluator = make_evaluator()
    with torch.no_grad():
        objective.lm_head.bias[FIRST_AMINO_ACID] = 1e6

    assert 1e100 < measure(evaluator)["valid_perplexity"] < math.inf


def test_validation_proteins_without_a_standard_residue_are_refused(make_evaluator, measure):
    with pytest.raises(DataError):
        measure(make_evaluator(valid=["XXX", "BZ"]))


@pytest.mark.parametrize(("name", "num_proteins"), [("held_out", 4), ("mine", 10)])
def test_a_sample_of_held_out_proteins_is_measured_but_all_that_the_user_gave(
    make_corpus, proteins, name, num_proteins
):
    valid_set = ValidationSet.from_corpus(make_corpus(proteins[30:], name), 500, 1000, max_held_out=4)

    rows = {row for micro_batch in valid_set.micro_batches for row in micro_batch.rows.tolist()}
    assert valid_set.num_proteins == len(rows) == num_proteins
    assert max(rows) > 6
