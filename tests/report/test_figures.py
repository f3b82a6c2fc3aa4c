import io
from contextlib import contextmanager

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backend_bases import MouseEvent
from matplotlib.figure import Figure

from protembed.attention.figures import draw_attention, draw_heads
from protembed.attention.pictures import DisplayedProtein
from protembed.attention.report import draw_contacts
from protembed.errors import OutputError
from protembed.report.figures import draw_confusion, draw_learning, draw_scatter

MAPS = np.random.default_rng(0).dirichlet(np.ones(12), size=(2, 3, 12)).astype(np.float32)


def report(step, *, loss=2.9, **validation):
    return {"step": step, "residues": 1000 * step, "train_loss": loss, **validation}


def ink(path):
    """Compute the fraction of pixels that are not white; raises for an incomplete PNG."""
    return (matplotlib.image.imread(path)[..., :3] < 1).any(-1).mean()


def test_attention_figure_grows_with_layers_and_heads(tmp_path):
    draw_attention(tmp_path / "all.png", MAPS, "P12345", [1, 2], [1, 2, 3])
    draw_attention(tmp_path / "single.png", MAPS[:1, :1], "P12345", [1], [1])

    whole, single = (matplotlib.image.imread(tmp_path / name) for name in ("all.png", "single.png"))
    assert ink(tmp_path / "all.png") > 0.1
    assert whole.shape[0] > single.shape[0]
    assert whole.shape[1] > single.shape[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("num_residues", [1, 12])
def test_maps_of_any_size_and_precision_are_drawn(tmp_path, dtype, num_residues):
    draw_attention(tmp_path / "x.png", MAPS[:, :, :num_residues, :num_residues].astype(dtype), "x", [1, 2], [1, 2, 3])

    assert ink(tmp_path / "x.png") > 0.1


@pytest.mark.promise(9)
def test_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("first.png", "second.png"):
        draw_attention(tmp_path / name, MAPS, "P12345", [1, 2], [1, 2, 3])

    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


HOSTILE = ["$\\frac{", "\\$x$", "$$", "^_{}\\", "x" * 5000, "\x1b[2J\n\t", "a\u202eb", "", "蛋白质", "😀"]


@pytest.mark.promise(17)
@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_are_drawn_as_text(tmp_path, title):
    draw_attention(tmp_path / "x.png", MAPS[:1, :1], title, [1], [1])

    assert ink(tmp_path / "x.png") > 0.1


def test_title_is_not_drawn_as_a_formula(tmp_path):
    for name, title in (("formula.png", "$x^2$"), ("text.png", "x^2")):
        draw_attention(tmp_path / name, MAPS[:1, :1], title, [1], [1])

    # The dollar signs are drawn, and no superscript.
    assert ink(tmp_path / "formula.png") > ink(tmp_path / "text.png")


def drawn_attention(monkeypatch, maps, title="P12345"):
    drawn = []
    monkeypatch.setattr("protembed.attention.figures.figure_file", lambda path, **size: unsaved_figure(drawn))
    draw_attention("maps.png", maps, title, range(1, 1 + len(maps)), range(1, 1 + len(maps[0])))
    return drawn[0]


def test_attention_figure_explains_its_scale(monkeypatch):
    figure = drawn_attention(monkeypatch, MAPS * np.array([1, 0.1, 0])[:, None, None])
    *maps, scale = figure.axes

    assert " ".join(scale.get_xlabel().split()).endswith("in percent of the highest in its own map")
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "5", "25", "100 %"]
    # The highest weight of a map has the full colour, and a quarter of it half of the way; also in a map of zeros.
    for axes in maps:
        (image,) = axes.get_images()
        assert image.norm(image.get_array().max()) in (0, 1)
        assert image.norm(image.norm.vmax / 4) == pytest.approx(0.5)


def test_long_title_has_four_lines_at_most(monkeypatch):
    title = drawn_attention(monkeypatch, MAPS, 100 * "long $ name ").get_suptitle()

    assert title.count("\n") == 3
    assert title.endswith("...")
    assert title.count("$") == title.count("\\$") > 4


# Figures of fine-tuning


def pixels(png):
    """Read the colours of a PNG, (rows, columns, 3); raises for an incomplete one."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def make_predictions(num_classes, num_residues=200):
    """Make random classes, and probabilities that are right more often than not."""
    rng = np.random.default_rng(0)
    truth = rng.integers(num_classes, size=num_residues)
    return truth, np.eye(num_classes)[truth] + rng.dirichlet(np.ones(num_classes), size=num_residues)


VALUES = np.random.default_rng(0).normal(size=(2, 300))
LEARNED = [report(step, loss=1 / step, **({"valid_loss": 0.5} if step % 10 == 0 else {})) for step in range(1, 41)]
DRAWN = {
    "learning": lambda: draw_learning(LEARNED),
    "confusion": lambda: draw_confusion(*make_predictions(3), ["H", "E", "C"]),
    "scatter": lambda: draw_scatter(*VALUES),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figure_is_a_reproducible_png(draw):
    png = draw()

    assert png.startswith(b"\x89PNG")
    assert (pixels(png) < 1).any(-1).mean() > 0.005
    assert png == draw()


@pytest.mark.parametrize(
    "reports", [LEARNED, LEARNED[:1], LEARNED[:10], [report(1, loss=None)], []], ids=lambda reports: str(len(reports))
)
def test_learning_curve_of_any_length_is_drawn(reports):
    assert (pixels(draw_learning(reports)) < 1).any(-1).mean() > 0.005


def test_learning_curve_shows_the_validation():
    without = [{name: value for name, value in line.items() if name != "valid_loss"} for line in LEARNED]

    assert draw_learning(LEARNED) != draw_learning(without)


def test_learning_curve_marks_the_lowest_validation_loss(monkeypatch):
    figures = []
    monkeypatch.setattr("protembed.report.figures._as_png", figures.append)
    reports = [report(step, loss=1 / step, valid_loss=loss) for step, loss in ((10, 0.5), (20, 0.3), (30, 0.4))]

    draw_learning(reports)

    lines = {line.get_label(): line for line in figures[0].axes[0].get_lines()}
    assert lines["lowest"].get_xydata().tolist() == [[20, 0.3]]
    assert lines["training (running mean)"].get_xdata().tolist() == [10, 20, 30]


def test_class_that_is_always_right_is_darker_than_one_that_is_always_wrong():
    truth = np.array([0, 0, 1, 1])
    right, wrong = (draw_confusion(truth, np.eye(2)[predicted], ["a", "b"]) for predicted in (truth, 1 - truth))

    # The upper left corner shows the first row and column of the matrix.
    corner = [pixels(png)[60:120, 90:150].mean() for png in (right, wrong)]
    assert corner[0] < corner[1] - 0.3


def test_class_that_never_occurs_is_drawn_empty():
    assert pixels(draw_confusion(np.array([0, 0]), np.eye(3)[[0, 1]], ["a", "b", "c"])).min() < 0.5


@pytest.mark.parametrize("num_classes", [12, 13, 60])
def test_figure_of_many_classes_has_a_limited_size(num_classes):
    drawn = pixels(draw_confusion(*make_predictions(num_classes), [f"class {number}" for number in range(num_classes)]))

    assert max(drawn.shape) <= 12.6 * 192


@pytest.mark.promise(17)
@pytest.mark.parametrize("name", [*HOSTILE, "$x_{", "<b>", "<script>alert(1)</script>", "$" * 40])
def test_hostile_names_of_classes_are_drawn_as_text(name):
    png = draw_confusion(*make_predictions(2), [name, "other"])

    assert (pixels(png) < 1).any(-1).mean() > 0.05


def test_class_name_is_not_drawn_as_a_formula():
    formula, text = (draw_confusion(*make_predictions(2), [name, "other"]) for name in ("$x^2$", "x^2"))

    assert formula != text


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1.0, 1.0], [1.0, 1.0]], [[-1e30, 1e30], [0.0, 1e-30]]])
def test_values_of_any_size_and_number_are_drawn(values):
    assert (pixels(draw_scatter(*np.array(values))) < 1).any(-1).mean() > 0.005


def test_figure_that_cannot_be_written_raises_an_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError):
        draw_heads(tmp_path / "file" / "x.png", {"entropy": np.eye(2)})


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_of_contacts_and_heads_are_reproducible(tmp_path, suffix):
    probabilities = np.random.default_rng(0).random((30, 30))
    truth = probabilities + probabilities.T > 1.7
    protein = DisplayedProtein(id="<b>$x_{", sequence=30 * "A", maps=MAPS, contacts=probabilities, truth=truth)
    for name in ("first", "second"):
        draw_contacts(tmp_path / name / f"c.{suffix}", protein)
        draw_heads(tmp_path / name / f"h.{suffix}", {"entropy": probabilities[:6], "on_self": probabilities[:6] / 2})

    for figure in ("c", "h"):
        first, second = ((tmp_path / name / f"{figure}.{suffix}").read_bytes() for name in ("first", "second"))
        assert first == second
        assert first.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_heads_layers_and_residues_are_numbered_from_one(tmp_path, monkeypatch):
    drawn = []
    for module in ("figures", "report"):
        monkeypatch.setattr(f"protembed.attention.{module}.figure_file", lambda path, **size: unsaved_figure(drawn))

    draw_heads(tmp_path / "heads.png", {"entropy": np.arange(120.0).reshape(6, 20)})
    truth = np.eye(30, k=-7, dtype=bool)
    draw_contacts(
        tmp_path / "contacts.png",
        DisplayedProtein(id="x", sequence=30 * "A", maps=MAPS, contacts=np.eye(30), truth=truth, first_residue=101),
    )

    heads, contacts = (figure.axes[0] for figure in drawn)
    assert heads.get_xticks().tolist() == list(range(1, 21, 2))
    assert heads.get_yticks().tolist() == list(range(1, 7))
    (image,) = heads.get_images()
    # The cell that is centred on layer 2 and head 16 has the value of that head.
    assert image.get_cursor_data(event_at(heads, 16, 2)) == 1 * 20 + 15
    assert contacts.get_images()[0].get_extent() == [100.5, 130.5, 130.5, 100.5]
    (points,) = contacts.get_lines()
    assert points.get_xydata()[0].tolist() == [101, 108]


@contextmanager
def unsaved_figure(drawn):
    drawn.append(Figure())
    yield drawn[-1]


def event_at(axes, x, y):
    pixel = axes.transData.transform((x, y))
    return MouseEvent("motion_notify_event", axes.figure.canvas, *pixel)
