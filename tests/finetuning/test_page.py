import re
from dataclasses import replace
from functools import cache
from html import unescape

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.comparison import compare
from protembed.finetuning.evaluation import Relatives
from protembed.finetuning.page import FinetunePage, Provenance, Training
from protembed.finetuning.page_failures import worst_section
from protembed.report.page import Details, Figure, render_page
from protembed.report.table import Table

HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}`\u202e"
NUM_PROTEINS = 60
LOG = [{"step": step, "train_loss": 1 / step, **({"valid_loss": 0.4} if step == 10 else {})} for step in range(1, 11)]
PROVENANCE = Provenance(
    command="protembed finetune signal_peptides.csv --method frozen",
    table="signal_peptides.csv",
    target="label",
    model="protembed_t6_8M",
    method="frozen",
    num_proteins={"train": 533, "valid": 67, "test": NUM_PROTEINS},
)


def targets_of(task, rng):
    """Make targets of sixty proteins, and the predictions of a good and a constant predictor."""
    lengths = rng.integers(4, 9, size=NUM_PROTEINS) if task.per_residue else np.ones(NUM_PROTEINS, int)
    if task.label_kind == "labels":
        truth = (rng.random((NUM_PROTEINS, 3)) < 0.4).astype(np.float32)
        return list(truth), list(0.3 * truth + 0.7 * rng.random((NUM_PROTEINS, 3))), [np.full(3, 0.4)] * NUM_PROTEINS
    if task.label_kind == "value":
        truth = [rng.normal(size=length) for length in lengths]
        good, constant = [values + 0.3 * rng.normal(size=len(values)) for values in truth], [0 * x for x in truth]
    else:
        truth = [rng.choice(3, size=length, p=[0.6, 0.35, 0.05]) for length in lengths]
        good = [0.4 * np.eye(3)[classes] + 0.6 * rng.dirichlet(np.ones(3), len(classes)) for classes in truth]
        constant = [np.tile([0.6, 0.35, 0.05], (len(classes), 1)) for classes in truth]
    if task.per_residue:
        return truth, good, constant
    return tuple([values[0] for values in proteins] for proteins in (truth, good, constant))


@pytest.fixture(scope="module")
def make_page(make_evaluation):
    """Make the page of a good model for a task."""

    def make(name, classes=("H", "E", "C"), **changes):
        task, rng = TASKS[name], np.random.default_rng(0)
        truth, good, constant = targets_of(task, rng)
        relatives = Relatives(similarities=np.repeat([0.2, 0.7], 30), neighbours=["", "P12345"] * 30)
        classes = None if task.label_kind == "value" else list(classes)
        evaluation = make_evaluation(name, truth, good, classes, relatives=relatives)
        baseline = "mean" if task.label_kind == "value" else "majority"
        noisy = [prediction + rng.random(prediction.shape) for prediction in constant]
        predictions = {baseline: [constant], "k-mers": [noisy], "frozen": [good]}
        return FinetunePage(
            **{
                "provenance": PROVENANCE,
                "evaluation": evaluation,
                "analysis": Analysis.from_evaluation(evaluation),
                "comparison": compare(task, truth, predictions, is_random=False),
                "training": Training(log=[], frozen_loss=None, kept_step=None),
                "notes": ["a note"],
                **changes,
            }
        ).make()

    return make


@pytest.fixture(scope="module")
def page_of(make_page):
    """Return the page of a task, which is made once, because its figures take a second."""
    return cache(make_page)


def elements(page, kind):
    """List the figures or the tables of a page."""
    return [element for section in page.sections for element in section.body if isinstance(element, kind)]


def table(page, title):
    (found,) = (element for element in elements(page, Table) if re.search(title, element.title))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_page_of_each_task_has_the_same_sections(page_of, task):
    page = page_of(task)

    titles = [section.title for section in page.sections]
    assert titles[0] == "Was it worth it?"
    assert titles[-2:] == ["Where does it fail?", "The worst predictions"]
    of_task = {"class": {"Which classes are confused?"}, "value": {"Predicted and measured values"}}
    assert of_task.get(TASKS[task].label_kind, {"How well is each label predicted?"}) <= set(titles)
    assert all(figure.description and figure.caption for figure in elements(page, Figure))
    assert len(render_page(page)) < 300_000


@pytest.mark.parametrize("task", TASKS)
def test_first_paragraph_says_what_was_found_and_whether_it_was_worth_it(page_of, task):
    first, second = page_of(task).summary

    assert re.match(r"The model gives \d+ of |The model finds \d+ of |The model's predictions for ", first)
    assert second.startswith("The language model was worth it: ")
    assert second.endswith(".")


def test_first_paragraph_counts_the_rarer_of_two_classes(make_evaluation, make_page):
    truth = [np.array(int(number < 12)) for number in range(NUM_PROTEINS)]
    predicted = [np.eye(2)[int(number < 10 or number > 57)] for number in range(NUM_PROTEINS)]
    evaluation = make_evaluation("classification", truth, predicted, ["other", "signal"])
    comparison = compare(TASKS["classification"], truth, {"majority": [predicted], "frozen": [predicted]})

    page = make_page(
        "classification",
        evaluation=evaluation,
        analysis=Analysis.from_evaluation(evaluation),
        comparison=comparison,
    )

    found, right = "The model finds 10 of the 12 test proteins", "of the 12 to which it gives this label, 10 have it."
    assert page.summary[0] == f"{found} labelled “signal”; {right}"


def test_title_and_facts_name_the_table_the_model_and_the_command(page_of):
    page = page_of("classification")

    assert page.title == "Signal peptides: protembed_t6_8M, frozen"
    assert page.facts["Command"] == "protembed finetune signal_peptides.csv --method frozen"
    assert page.facts["Input"] == "signal_peptides.csv"
    assert page.facts["Task"] == "classification of “label”, 3 classes"


def test_proteins_of_a_cross_validation_are_said_to_be_tested_in_folds(make_page):
    provenance = replace(PROVENANCE, num_proteins={"train": 54, "valid": 6, "test": 0})

    assert make_page("regression", provenance=provenance).facts["Proteins"] == "54 train, 6 valid, 60 tested in folds"


def test_title_is_the_target_if_it_has_a_name_of_its_own(make_page):
    page = make_page("regression", provenance=replace(PROVENANCE, target="melting_point", method="full"))

    assert page.title == "Melting_point: protembed_t6_8M, fine-tuned"


def test_cards_show_the_metric_the_best_baseline_and_the_difference(page_of):
    metric, baseline, difference, tested = page_of("classification").cards

    assert (metric.name, baseline.name) == ("MCC", "Best baseline")
    assert baseline.note == "k-mers: linear model of short sequence pieces"
    assert difference.value.startswith("+0.")
    assert difference.note.endswith("better than the baseline")
    assert (tested.value, tested.note) == ("60", "30 with a similarity of 0.4 or more to a training protein")


def test_row_of_the_model_is_tinted_and_the_best_value_of_each_column_is_marked(page_of):
    metrics = table(page_of("regression"), "All metrics")

    assert metrics.row_kinds == ["", "", "model"]
    assert [column.best for column in metrics.columns] == ["", "high", "low", "low", "high", ""]


def test_a_baseline_without_metric_is_named_and_not_drawn(page_of):
    page = page_of("regression")

    figure = next(iter(elements(page, Figure)))
    assert ">mean</text>" not in figure.picture
    assert ">k-mers</text>" in figure.picture
    sentence = "`mean` cannot be drawn: the Spearman correlation is undefined, because it predicts the same for all"
    assert any(isinstance(element, str) and element.startswith(sentence) for element in page.sections[0].body)


def test_a_constant_baseline_has_no_interval(page_of):
    mcc = next(column for column in table(page_of("classification"), "All metrics").columns if column.name == "MCC")

    assert (mcc.cells[0].value, mcc.cells[0].low) == (0.0, None)
    assert mcc.cells[-1].low is not None


def test_metrics_by_similarity_and_length_have_their_counts(page_of):
    page = page_of("classification")

    by_similarity, by_length = table(page, "by similarity"), table(page, "by length")
    assert by_similarity.columns[0].cells == ["below 0.4", "0.4 or more"]
    assert by_similarity.columns[1].cells == [30, 30]
    assert sum(by_length.columns[1].cells) == NUM_PROTEINS


def test_proteins_in_one_group_have_a_sentence_instead_of_a_table(make_page, make_evaluation):
    truth, good, _ = targets_of(TASKS["classification"], np.random.default_rng(0))
    evaluation = make_evaluation("classification", truth, good, ["H", "E", "C"])

    page = make_page("classification", analysis=Analysis.from_evaluation(evaluation))

    assert "By similarity, all 60 test proteins are in one group, because any other would have fewer than 10." in (
        page.sections[-2].body
    )
    assert not [element for element in elements(page, Table) if "similarity" in element.title]


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("classification", ["label", "predicted", "its probability", "that of the label"]),
        ("multilabel", ["labels missed", "labels predicted wrongly"]),
        ("regression", ["label", "predicted", "predicted minus label"]),
        ("residue-classification", ["wrong residues", "of labelled residues", "accuracy", "most frequent error"]),
        ("residue-regression", ["RMSE", "of labelled residues"]),
    ],
)
def test_worst_predictions_have_their_identifiers_and_the_nearest_training_protein(page_of, task, columns):
    worst = table(page_of(task), "worst predictions")

    names = [column.name for column in worst.columns]
    assert names == ["protein", *columns, "similarity", "nearest training protein", "residues"]
    assert all(re.fullmatch(r"p\d+", cell) for cell in worst.columns[0].cells)
    assert 0 < len(worst.columns[0].cells) <= 20


def test_training_curve_is_shown_after_a_training(make_page):
    page = make_page("classification", training=Training(log=LOG, frozen_loss=0.5, kept_step=10))

    assert page.sections[-1].title == "How did the training go?"
    assert "validation, frozen encoder" in elements(page, Figure)[-1].picture
    assert elements(page, Figure)[-1].caption.endswith("The ring marks what was kept.")


def test_training_that_improved_nothing_is_said_to_be_left_out(make_page):
    page = make_page("classification", training=Training(log=LOG, frozen_loss=0.1, kept_step=0))

    end = "No epoch was better than the frozen encoder, so the frozen encoder was kept."
    assert elements(page, Figure)[-1].caption.endswith(end)


@pytest.mark.promise(17)
def test_hostile_names_are_shown_as_text(make_page):
    provenance = replace(PROVENANCE, table=HOSTILE, target=HOSTILE, model=HOSTILE, command=HOSTILE)

    html = render_page(
        make_page("classification", (HOSTILE, f"{HOSTILE}2", "other"), provenance=provenance, notes=[HOSTILE])
    )

    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert unescape(html).count("<script>alert('x')</script>&\"{{ 7 * 7 }}") >= 10


@pytest.mark.promise(9)
@pytest.mark.parametrize("task", ["multilabel", "residue-regression"])
def test_same_result_gives_the_same_page(make_page, page_of, task):
    assert render_page(make_page(task)) == render_page(page_of(task))


def test_notes_and_comparisons_are_sentences_on_the_page(make_page):
    page = make_page("classification", notes=["no validation split: a tenth is held out"])

    (words,) = (element for element in elements(page, Details) if element.title == "In words")
    assert page.notes == ["No validation split: a tenth is held out."]
    assert all(sentence[0] != sentence[0].lower() or not sentence[0].isalpha() for sentence in words.body)
    assert all(sentence.endswith(".") for sentence in words.body)


@pytest.mark.parametrize(
    ("number", "title"),
    [(1, "The worst prediction"), (2, "The 2 test proteins with the worst predictions")],
)
def test_table_of_the_worst_predictions_counts_them(number, title):
    row = {"id": "p1", "num_residues": 9, "similarity": 0.2, "nearest_training_protein": "", "error": 1.0}

    (worst,) = worst_section([row] * number, TASKS["regression"]).body

    assert worst.title == title
