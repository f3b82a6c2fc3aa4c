import re
import xml.etree.ElementTree as ElementTree
from contextlib import contextmanager

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backend_bases import MouseEvent
from matplotlib.figure import Figure

from protembed.attention.contact_figure import draw_contacts
from protembed.attention.figures import draw_attention, draw_heads
from protembed.attention.pictures import DisplayedProtein
from protembed.errors import OutputError
from protembed.report.design import COLOURS
from protembed.report.figures import drawable, inline_svg

MAPS = np.random.default_rng(0).dirichlet(np.ones(12), size=(2, 3, 12)).astype(np.float32)


def ink(path):
    """Compute the fraction of pixels that are not white; raises for an incomplete PNG."""
    return (matplotlib.image.imread(path)[..., :3] < 1).any(-1).mean()


def test_attention_figure_grows_with_layers_and_heads(tmp_path):
    draw_attention(tmp_path / "all.png", np.tile(MAPS, (2, 2, 1, 1)), "P12345", range(1, 5), range(1, 7))
    draw_attention(tmp_path / "some.png", MAPS, "P12345", [1, 2], [1, 2, 3])

    whole, part = (matplotlib.image.imread(tmp_path / name) for name in ("all.png", "some.png"))
    assert ink(tmp_path / "all.png") > 0.1
    assert whole.shape[0] > 1.5 * part.shape[0]
    assert whole.shape[1] > 1.5 * part.shape[1]


def test_few_maps_are_drawn_large_enough_for_the_title_and_the_scale(monkeypatch):
    figure = drawn_attention(monkeypatch, MAPS[:1, :1])

    axes, scale = figure.axes
    width, height = figure.get_size_inches()
    place = axes.get_position()
    assert width * place.width == pytest.approx(2.6)
    assert height * place.height == pytest.approx(width * place.width)
    assert scale.get_xlabel().count("\n") < 3


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
    monkeypatch.setattr("protembed.attention.figures.figure_file", lambda path, **size: unsaved_figure(drawn, **size))
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
    for module in ("figures", "contact_figure"):
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
def unsaved_figure(drawn, width=6.4, height=4.8, dots_per_inch=100):
    drawn.append(Figure((width, height), dots_per_inch))
    yield drawn[-1]


def event_at(axes, x, y):
    pixel = axes.transData.transform((x, y))
    return MouseEvent("motion_notify_event", axes.figure.canvas, *pixel)


def test_figures_of_one_page_share_no_id_and_refer_only_to_their_own():
    svgs = []
    for number in (1, 2):
        with inline_svg(4, 3) as inline:
            inline.figure.subplots().plot([1, 2], [1, number], "o-")
        svgs.append(inline.markup)

    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in svgs]
    assert ids[0] and ids[0].isdisjoint(ids[1])
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) == own


@pytest.mark.parametrize("name", [COLOURS["accent"].light, 'x id="y"', "font-family: x", "a=#1&b", "url(#x)"])
def test_name_that_looks_like_style_is_shown_as_it_is(name):
    with inline_svg(4, 3) as inline:
        inline.figure.subplots().set_xlabel(drawable(name))

    texts = [text for text in ElementTree.fromstring(inline.markup).itertext() if text.strip()]
    assert name in texts
