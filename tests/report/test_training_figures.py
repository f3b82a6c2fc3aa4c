import re
import xml.etree.ElementTree as ElementTree
from contextlib import contextmanager

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.training_figures import draw_training, losses_svg, rates_svg, speed_svg


def report(step, *, loss=2.9, **more):
    return {
        **{"step": step, "residues": 1000 * step, "train_loss": loss, "learning_rate": 0.001, "grad_norm": 0.5},
        **{"residues_per_second": 2000.0 + step, **more},
    }


VALIDATED = {"valid_loss": 2.8, "valid_perplexity": 16.4, "unigram_perplexity": 18.0}
COMPLETE = [report(step, loss=3 - step / 100, **(VALIDATED if step % 20 == 0 else {})) for step in range(99)]
REPORTS = {
    "complete run": COMPLETE,
    "one step": [report(1)],
    "one validated step": [report(1, **VALIDATED)],
    "some skipped steps": [report(1), report(2, loss=None, grad_norm=None), report(3)],
    "only skipped steps": [report(1, loss=None), report(2, loss=None)],
    "no step": [],
    "diverging run": [report(1), report(2, loss=3e4, grad_norm=1e30), report(3, loss=1e30, **VALIDATED)],
}
SVGS = {
    "losses": lambda reports: losses_svg(reports, {}, 20),
    "rates": lambda reports: rates_svg(reports, 1.0),
    "speed": speed_svg,
}
GAIN = MetricWithInterval(value=0.1, low=0.05, high=0.15)


def ink(path):
    """Compute the fraction of pixels that are not white; raises for an incomplete PNG."""
    return (matplotlib.image.imread(path)[..., :3] < 1).any(-1).mean()


@pytest.mark.parametrize("reports", REPORTS.values(), ids=REPORTS)
def test_training_figure_of_any_course_is_a_png(tmp_path, reports):
    draw_training(tmp_path / "training.png", reports)

    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    assert ink(tmp_path / "training.png") > 0.005


@pytest.mark.parametrize("reports", REPORTS.values(), ids=REPORTS)
@pytest.mark.parametrize("draw", SVGS.values(), ids=SVGS)
def test_figures_of_the_page_are_complete_for_any_course(draw, reports):
    assert ElementTree.fromstring(draw(reports)).tag.endswith("svg")


@pytest.fixture
def drawn(monkeypatch):
    """Draw a training, and return its figure."""
    figures = []

    @contextmanager
    def unsaved_figure(path, width, height):
        figures.append(Figure(figsize=(width, height)))
        yield figures[-1]

    monkeypatch.setattr("protembed.report.training_figures.figure_file", unsaved_figure)

    def draw(reports, *arguments, **options):
        draw_training("training.png", reports, *arguments, **options)
        return figures[-1]

    return draw


def losses_of(figure):
    return figure.axes[0]


def labels_of(axes):
    return axes.get_legend_handles_labels()[1]


def line(axes, label):
    return next(drawn for drawn in axes.get_lines() if drawn.get_label() == label)


def test_training_figure_compares_the_losses_behind_mask_tokens(drawn):
    reports = [line | {"mask_token_loss": 2.95} for line in COMPLETE]

    figure = drawn(reports, title="t4_1M, 284 proteins")

    mean = line(losses_of(figure), "training (running mean)")
    assert set(mean.get_ydata().round(6)) == {2.95}  # and not `train_loss`, which falls from 3 to 2
    assert figure.get_suptitle() == "t4_1M, 284 proteins"
    assert set(figure.axes[1].get_lines()[0].get_ydata()) == {0.001}
    assert "Both losses are over residues that the model sees as <mask>" in figure.get_supxlabel()


def test_training_figure_of_an_earlier_log_says_why_its_training_loss_is_lower(drawn):
    figure = drawn(COMPLETE)

    assert line(losses_of(figure), "training (running mean)").get_ydata()[-1] < 2.1
    assert "does not mean overfitting" in figure.get_supxlabel()


def test_training_figure_has_one_line_for_the_baselines_that_coincide(drawn):
    reports = [line | {"bigram_perplexity": 18.06, "compared_perplexity": 17.0} for line in COMPLETE]

    losses = losses_of(drawn(reports))

    assert labels_of(losses) == ["training (running mean)", "validation", "unigram model", "compared model"]


def test_training_figure_shows_every_validation_set_and_rings_the_kept_model(drawn):
    reports = [line | {"other/valid_loss": 2.7} if "valid_loss" in line else line for line in COMPLETE]

    losses = losses_of(drawn(reports, kept_step=40))

    assert labels_of(losses)[1:4] == ["validation", "validation on other", "kept model, step 40"]
    assert line(losses, "kept model, step 40").get_xydata().tolist() == [[40_000, 2.8]]
    assert line(losses, "validation on other").get_color() != line(losses, "validation").get_color()


def test_training_figure_names_the_gain_with_its_interval_if_there_is_one(drawn):
    unknown = MetricWithInterval(value=0.1)

    gained, without = (losses_of(drawn(COMPLETE, {"unigram": gain})) for gain in (GAIN, unknown))

    assert "unigram model, gain 0.100 (0.050 to 0.150)" in labels_of(gained)
    assert "unigram model" in labels_of(without)


def test_the_fall_from_a_random_model_leaves_room_for_what_comes_after_it(drawn):
    reports = [
        report(step, loss=9.0 if step < 5 else 2.8, **(VALIDATED if step == 400 else {})) for step in range(1000)
    ]

    losses = losses_of(drawn(reports))

    low, high = losses.get_ylim()
    assert low < 2.8 < np.log(18.0) < high < 4


def test_training_figure_is_sharp_on_a_screen_of_high_resolution(tmp_path):
    draw_training(tmp_path / "training.png", COMPLETE)

    assert matplotlib.image.imread(tmp_path / "training.png").shape[:2] == (960, 1440)


def test_figures_of_a_long_run_are_no_larger_than_those_of_one_of_a_thousand_steps():
    noise = np.random.default_rng(0).normal(3, 0.1, size=20_000)
    run = [report(step + 1, loss=float(loss)) for step, loss in enumerate(noise)]

    assert len(losses_svg(run, {}, None)) < 1.3 * len(losses_svg(run[:1000], {}, None)) < 100_000


@pytest.mark.promise(9)
def test_same_log_gives_the_same_bytes(tmp_path):
    for name in ("first.png", "second.png"):
        draw_training(tmp_path / name, COMPLETE)

    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert losses_svg(COMPLETE, {}, 20) == losses_svg(COMPLETE, {}, 20)


@pytest.mark.promise(17)
@pytest.mark.parametrize("name", ["$\\frac{", "<script>alert(1)</script>", "\x1b[2J", "a\u202eb", "蛋白质"])
def test_hostile_names_of_validation_sets_are_drawn_as_text(name):
    svg = losses_svg([report(1, **VALIDATED, **{f"{name}/valid_loss": 2.7})], {}, None)

    assert "<script" not in svg
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert re.search("[\x00-\x08\x0b-\x1f\u202e]", svg) is None


@pytest.mark.parametrize("name", ["relatives", "_relatives", "$x$"])
def test_further_validation_set_is_named_whatever_its_name(drawn, name):
    figure = drawn([report(20, **VALIDATED, **{f"{name}/valid_loss": 2.7})])

    named = [text.get_text().strip().replace(r"\$", "$") for text in losses_of(figure).get_legend().get_texts()]
    assert f"validation on {name}" in named


@pytest.mark.parametrize("losses", [(3.0, 1e9), (3.0, 8.0), (2.7, 2.9)])
def test_perplexities_beside_the_losses_are_apart(drawn, losses):
    validated = [VALIDATED | {"valid_loss": loss} for loss in losses]
    figure = drawn([report(20 * number, loss=3, **values) for number, values in enumerate(validated)])

    figure.draw_without_rendering()
    (right,) = losses_of(figure).child_axes
    low, high = losses_of(figure).get_ylim()
    ticks = [np.log(tick) for tick in right.get_yticks() if np.exp(low) <= tick <= np.exp(high)]
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert len(set(labels)) == len(labels)
    assert 3 <= len(ticks) and np.diff(ticks).min() > 0.03 * (high - low)
