import re

import numpy as np
import pytest

from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.comparison_figures import (
    IntervalRow,
    draw_comparison,
    draw_confusion,
    draw_intervals,
    draw_learning,
    draw_scatter,
    shorten,
)

HOSTILE = "<script>alert('x')</script>$\\frac{1}{2}$\u202e{{ 7 * 7 }}"
VALUES = np.random.default_rng(0).normal(size=(2, 300))


def metric(value, width=0.1):
    return MetricWithInterval(value=value, low=value - width, high=value + width)


def rows(num=3):
    differences = [metric(0.1 * number) for number in range(num - 1)]
    return [
        *(
            IntervalRow(name=f"baseline {number}", metric=metric(0.2), difference=differences[number])
            for number in range(num - 1)
        ),
        IntervalRow(name="frozen", metric=metric(0.8), is_model=True),
    ]


def report(step, **values):
    return {"step": step, "train_loss": 1 / step, **values}


LEARNED = [
    report(step, **({"valid_loss": abs(step - 20) / 40 + 0.3} if step % 10 == 0 else {})) for step in range(1, 41)
]
COUNTS = np.array([[50, 6, 0], [3, 20, 0], [0, 0, 0]])
DRAWN = {
    "comparison": lambda: draw_comparison(rows(), "MCC", "frozen"),
    "intervals": lambda: draw_intervals(rows(), "MCC", overall=0.7),
    "confusion": lambda: draw_confusion(COUNTS, ["H", "E", "C"]),
    "scatter": lambda: draw_scatter(*VALUES, [(0.0, metric(0.1)), (1.0, MetricWithInterval(value=0.9))]),
    "density": lambda: draw_scatter(*np.random.default_rng(0).normal(size=(2, 5000))),
    "learning": lambda: draw_learning(LEARNED, frozen_loss=0.5, kept_step=20),
}


def texts(svg):
    """Read the texts of a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", str(svg))


def num_lines(svg, colour):
    return len(re.findall(rf"stroke: var\(--{colour}\)", str(svg)))


@pytest.mark.promise(9)
@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figure_is_the_same_svg_each_time_and_its_colours_follow_the_page(draw):
    svg = draw()

    assert svg.startswith("<svg")
    assert svg == draw()
    assert "var(--" in svg
    assert len(svg) < 100_000


# Points with intervals


def test_each_row_has_its_name_and_value():
    shown = texts(draw_comparison(rows(), "MCC", "frozen"))

    assert {"baseline 0", "baseline 1", "frozen", "0.200", "0.800", "MCC", "frozen minus baseline"} <= set(shown)
    assert {"+0.000", "+0.100"} <= set(shown)


def test_a_value_without_interval_is_an_open_circle():
    closed, open_ = (
        draw_intervals([IntervalRow(name="a", metric=MetricWithInterval(value=0.5, low=low, high=high))], "MCC")
        for low, high in ((0.4, 0.6), (None, None))
    )

    assert "fill: var(--muted); stroke: var(--muted)" in closed
    assert "fill-opacity: 0; stroke: var(--muted)" in open_


@pytest.mark.parametrize("num", [1, 2, 30])
def test_figures_of_any_number_of_rows_are_drawn(num):
    assert len(texts(draw_intervals(rows(num), "F1"))) >= 2 * num


def test_the_row_of_the_model_is_tinted():
    assert "fill: var(--tint)" in draw_comparison(rows(), "MCC", "frozen")
    assert "fill: var(--tint)" not in draw_intervals(rows()[:2], "MCC")


@pytest.mark.promise(17)
@pytest.mark.parametrize(
    "draw",
    [
        lambda name: draw_intervals([IntervalRow(name=name, metric=metric(0.5))], "MCC"),
        lambda name: draw_confusion(COUNTS[:2, :2], [name, "other"]),
    ],
    ids=["intervals", "confusion"],
)
@pytest.mark.parametrize("name", [HOSTILE, "$x_{", "<b>", "$" * 40, "\x1b[2J", "Größe_µ", "膜" * 30])
def test_hostile_names_are_drawn_as_text(draw, name):
    svg = str(draw(name))

    assert "<script" not in svg
    assert "<b>" not in svg
    assert "\u202e" not in svg
    assert "\x1b" not in svg


def test_letters_of_the_font_are_drawn_as_they_are():
    shown = texts(draw_intervals([IntervalRow(name="Größe_µ", metric=metric(0.5))], "MCC"))

    assert "Größe_µ" in shown


# Confusions


def test_cells_of_a_small_confusion_matrix_have_counts_and_shares():
    shown = texts(draw_confusion(COUNTS, ["H", "E", "C"]))

    assert {"50", "89 %", "6", "11 %", "H (n = 56)", "C (n = 0)"} <= set(shown)


def test_right_and_wrong_predictions_have_different_colours():
    svg = draw_confusion(COUNTS, ["H", "E", "C"])

    assert svg.count("fill: var(--more)") == 2
    assert svg.count("fill: var(--less)") == 2


def test_a_class_without_test_members_is_grey():
    svg = str(draw_confusion(COUNTS, ["H", "E", "C"]))

    assert re.search(r'<text style="[^"]*fill: var\(--muted\)[^"]*"[^>]*>C \(n = 0\)', svg)


@pytest.mark.parametrize("num_classes", [2, 7, 16, 30])
def test_confusion_matrix_of_up_to_thirty_classes_fits_on_a_page(num_classes):
    counts = np.random.default_rng(0).integers(2000, size=(num_classes, num_classes))
    names = [f"Cytoplasm and cytosol (soluble) {number}" for number in range(num_classes)]

    svg = draw_confusion(counts, names)

    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) < 13 * 72
    assert any(name.endswith("…") for name in texts(svg))
    assert f"{counts[0, 0]:,}" in texts(svg)


def test_a_long_name_is_shortened_with_an_ellipsis():
    assert shorten("Cytoplasm and cytosol", 10) == "Cytoplasm…"
    assert shorten("Cytoplasm", 9) == "Cytoplasm"


# Values


@pytest.mark.parametrize(
    "values",
    [[[1.0], [2.0]], [[1.0, 1.0], [1.0, 1.0]], [[-1e30, 1e30], [0.0, 1e-30]], [[1.0] * 3000, [2.0] * 3000]],
    ids=["one", "equal", "huge", "many equal"],
)
def test_values_of_any_size_and_number_are_drawn(values):
    assert "predicted" in texts(draw_scatter(*np.array(values)))


def test_many_points_are_drawn_as_their_density():
    few, many = (draw_scatter(*np.random.default_rng(0).normal(size=(2, num))) for num in (2_000, 200_000))

    assert few.count("<use") > 2_000
    assert many.count("<use") < 100
    assert many.count("fill: var(--accent)") == 8


# Training


@pytest.mark.parametrize(
    "reports",
    [LEARNED, LEARNED[:1], LEARNED[:10], [{"step": 1, "train_loss": None}], []],
    ids=lambda reports: str(len(reports)),
)
def test_learning_curve_of_any_length_is_drawn(reports):
    assert "step of the training" in texts(draw_learning(reports))


def test_learning_curve_shows_the_frozen_encoder_and_what_was_kept():
    whole = texts(draw_learning(LEARNED, frozen_loss=0.5, kept_step=20))

    assert {"validation, frozen encoder", "kept"} <= set(whole)
    assert not {"validation, frozen encoder", "kept"} & set(texts(draw_learning(LEARNED)))


def test_the_ring_is_at_the_frozen_encoder_if_no_epoch_was_better():
    kept, unknown = (texts(draw_learning(LEARNED, frozen_loss=loss, kept_step=0)) for loss in (0.1, None))

    assert "kept" in kept
    assert "kept" not in unknown


def test_the_curve_of_a_long_training_is_thinned():
    reports = [report(step) for step in range(1, 50_001)]

    assert len(draw_learning(reports)) < 150_000
