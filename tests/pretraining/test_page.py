import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from protembed.config.pretrain import PretrainOptions
from protembed.pretraining import page_sections
from protembed.pretraining.page import pretraining_page
from protembed.report.page import render_page
from protembed.report.table import Table
from protembed.training.checkpoints import TrainingProgress

HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}$x_{"


class Reader(HTMLParser):
    """Parses a page into its elements and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def real_figures():
    """Let a test draw the figures, which takes a second."""


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    if "real_figures" not in request.fixturenames:
        for name in ("losses_svg", "rates_svg", "speed_svg", "draw_intervals"):
            monkeypatch.setattr(page_sections, name, lambda *arguments, **options: Markup("<svg></svg>"))


def summary_of(run):
    return " ".join(pretraining_page(run).summary)


def tables_of(run):
    """All tables of a page that are not collapsed, by their titles."""
    return {
        element.title: element
        for section in pretraining_page(run).sections
        for element in section.body
        if isinstance(element, Table)
    }


def cells(table, name):
    return list(next(column for column in table.columns if column.name == name).cells)


def test_page_begins_with_the_finding_in_three_sentences(make_run_record):
    summary = pretraining_page(make_run_record()).summary

    assert summary == [
        "The model has learned more than how frequent each amino acid is.",
        "A masked amino acid leaves it as uncertain as a choice among 14.88 equally likely ones (its perplexity); the "
        "frequencies alone, among 17.99.",
        "It names 82.8 % of the masked amino acids correctly (2,000 in 16 proteins that it was not trained on); "
        "always naming K, the most frequent one, would be right for 6.0 %.",
    ]


@pytest.mark.parametrize(
    ("gain", "begin"),
    [
        ((0.1, 0.2), "The model has learned more than how frequent each amino acid is"),
        ((-0.1, 0.2), "It is not certain that the model has learned more than how frequent each amino acid is"),
        ((-0.2, -0.1), "The model predicts amino acids worse than their frequencies do"),
    ],
)
def test_verdict_follows_from_the_interval_of_the_gain(make_run_record, gain, begin):
    assert summary_of(make_run_record(gain=gain)).startswith(begin)


@pytest.mark.parametrize(
    ("loss", "found"), [(2.7, "predicts amino acids better than"), (3.0, "does not predict amino acids better than")]
)
def test_page_of_an_unfinished_run_compares_without_an_interval(make_run_record, loss, found):
    run = make_run_record(step=50, loss=loss)

    assert summary_of(run).startswith(f"After 50 of 100 steps, the model {found} their frequencies do")
    assert "without an interval" in cells(tables_of(run)["This model and its baselines"], "verdict")[1]
    assert pretraining_page(run).facts["State"] == "not finished: 50 of 100 steps; the same command resumes it"


def test_page_shows_what_the_log_of_an_earlier_version_has(make_run_record, real_figures):
    run = make_run_record(sets=["held_out", "relatives"])
    needed = ("step", "residues", "train_loss", "learning_rate", "valid_loss")
    older = replace(run, log=[{name: line[name] for name in needed if name in line} for line in run.log])

    page = Reader(render_page(pretraining_page(older)))

    assert "Validations" in page.text
    assert cells(tables_of(older)["Validations"], "named correctly, %") == [None] * 5


@pytest.mark.parametrize("step", [50, 100])
def test_page_of_a_run_that_diverged_says_so(make_run_record, step):
    run = make_run_record(step=step)
    diverged = replace(run, log=run.log[:-1])  # the step at which the loss was not finite is not logged

    assert summary_of(diverged).startswith(
        f"The training diverged at step {step} of 100: its loss was no longer finite"
    )
    assert pretraining_page(run).facts["State"].startswith("not finished" if step < 100 else "finished")
    assert pretraining_page(diverged).facts["State"] == (
        f"diverged: the loss was not finite at step {step} of 100; start over with a lower `--learning-rate`"
    )


def test_page_of_a_run_with_too_few_validation_proteins_for_an_interval_says_so(make_run_record):
    run = make_run_record(gain=(None, None))
    page = pretraining_page(run)

    assert page.summary[0].startswith(
        "On too few validation proteins to be certain, the model predicts amino acids better than their frequencies do"
    )
    assert "too few proteins for an interval" in page.cards[1].note
    assert "Gain over each baseline" not in str(page.sections[1])


def test_gains_are_drawn_with_their_intervals_once_the_run_is_finished(make_run_record):
    finished, unfinished = (str(pretraining_page(make_run_record(step=step)).sections[1]) for step in (100, 80))

    assert "Gains in nats with 95 % intervals: 0.190 [0.150, 0.210] over unigram; 0.180 [0.150, 0.210]" in finished
    assert "Gain over each baseline" not in unfinished


def test_page_before_the_first_validation_says_when_it_comes(make_run_record):
    page = pretraining_page(make_run_record(step=10))

    assert "every 20 steps" in page.summary[1]
    assert [card.value for card in page.cards] == ["10 steps"]
    assert render_page(page)


def test_page_of_a_run_that_patience_ended_says_so(make_run_record):
    run = make_run_record(step=60, patience=2)
    ended = replace(run, progress=replace(run.progress, num_worse=2))

    assert pretraining_page(ended).facts["State"] == (
        "finished after 60 of 100 steps, because 2 validations brought no lower loss"
    )


def test_confusions_are_drawn_only_if_the_model_has_learned_anything(make_run_record):
    skilled, useless = tables_of(make_run_record()), tables_of(make_run_record(gain=(-0.1, 0.2)))

    matrix = skilled["Which amino acids the model confuses"]
    assert len(matrix.columns) == 21
    diagonal = [cells(matrix, letter)[row] for row, letter in enumerate(cells(matrix, "masked"))]
    assert min(diagonal) > 0.8
    assert "Which amino acids the model confuses" not in useless
    assert "no better than their frequencies" in str(pretraining_page(make_run_record(gain=(-0.1, 0.2))))


def test_page_of_a_model_that_has_learned_nothing_says_what_helps(make_run_record):
    useless, skilled = (
        " ".join(pretraining_page(make_run_record(gain=gain)).notes) for gain in ((-0.1, 0.2), (0.1, 0.2))
    )

    assert "`--init-from protembed_t6_8M` continues with the bundled model" in useless
    assert "--init-from" not in skilled


def test_amino_acids_are_ordered_by_gain_and_rare_ones_are_grey(make_run_record):
    run = make_run_record()
    rare = replace(run.amino_acids, counts=run.amino_acids.counts // 8)

    table = tables_of(replace(run, amino_acids=rare))["How well each amino acid is predicted"]

    gains = cells(table, "gain, nats")
    assert gains == sorted(gains, reverse=True)
    kinds = dict(zip(cells(table, "masked"), table.row_kinds, strict=True))
    assert set(kinds.values()) == {"few"}
    assert set(tables_of(run)["How well each amino acid is predicted"].row_kinds) == {""}


def test_page_shows_all_validation_sets_and_marks_the_kept_model(make_run_record):
    tables = tables_of(make_run_record(sets=("general", "enzymes")))

    assert cells(tables["Validations"], "loss on enzymes") == pytest.approx([2.74, 2.73, 2.72, 2.71, 2.7])
    assert tables["Validations"].row_kinds == ["", "", "", "", "model"]
    assert cells(tables["The other validation sets"], "set") == ["enzymes"]


def test_many_validations_are_thinned_and_the_kept_one_stays(make_run_record):
    run = make_run_record()
    lines = [run.validated[0] | {"step": step, "residues": step} for step in range(1, 1001)]

    table = tables_of(replace(run, log=lines, progress=TrainingProgress(step=1000, best_loss=2.7, best_step=777)))

    steps = cells(table["Validations"], "step")
    assert len(steps) <= 41
    assert {1, 777, 1000} <= set(steps)
    assert "of 1,000 validations" in table["Validations"].note


def test_adjusted_number_of_steps_is_beside_the_first_plan(make_run_record):
    run = make_run_record(first_num_steps=67)

    assert "100 (at first 67, adjusted to the time)" in cells(
        tables_of(run)["What was planned and what was done"], "planned"
    )


def test_page_names_the_model_that_a_run_started_from(make_run_record, tiny_model):
    page = pretraining_page(make_run_record(options=PretrainOptions.from_values(init_from=tiny_model)))

    assert page.title == "tiny, trained on proteins.fasta"
    assert page.facts["Model"].endswith("from tiny")


@pytest.mark.promise(9)
def test_same_log_gives_the_same_page_and_speed_alone_changes_its_figure_alone(make_run_record, real_figures):
    run = make_run_record()
    slower = [line | {"residues_per_second": line["residues_per_second"] / 3} for line in run.log]

    page, again, other = (
        render_page(pretraining_page(record)) for record in (run, make_run_record(), replace(run, log=slower))
    )

    def without_speed(html):
        return re.sub("<h3>Speed</h3>.*?</figure>", "", html, flags=re.DOTALL)

    assert page == again != other
    assert without_speed(page) == without_speed(other)
    assert "secret" not in page
    assert "/data" not in page


@pytest.mark.promise(17)
def test_hostile_names_are_shown_as_text(make_run_record, real_figures):
    html = render_page(pretraining_page(make_run_record(sets=("a", HOSTILE), fasta=(HOSTILE.replace("/", "_"),))))
    read = Reader(html)

    assert read.tags.count("script") == 1
    assert read.text.count(HOSTILE) >= 2
    assert read.text.count(HOSTILE.replace("/", "_")) >= 2


def test_page_of_a_long_run_stays_small(make_run_record, real_figures):
    run = make_run_record()
    log = [run.log[step % 100] | {"step": step, "residues": 4000 * step} for step in range(1, 20_001)]

    assert len(render_page(pretraining_page(replace(run, log=log)))) < 600_000
