import re
from html.parser import HTMLParser

import numpy as np
import pytest

from protembed._version import __version__
from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.design import COLOURS, SCALES, scale_colours
from protembed.report.figures import inline_svg
from protembed.report.page import Card, Details, Figure, Page, Section, render_page
from protembed.report.table import Column, Table

HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}\u202e"
ESCAPED = HOSTILE.replace("\u202e", "\\u202e")


class Reader(HTMLParser):
    """Parses a page into its elements and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self._inside = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside[-1:]):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def content():
    """Return a page in which all names that a user may choose are hostile."""
    with inline_svg(4, 3) as inline:
        inline.figure.subplots().plot([1, 2, 3], label=HOSTILE)
    metric = MetricWithInterval(value=0.5, low=0.25, high=0.75)
    table = Table(
        title=HOSTILE,
        note=f"{HOSTILE} `--region`",
        columns=[
            Column(name=HOSTILE, cells=[HOSTILE, "frozen"], note=HOSTILE),
            Column(name="MCC", cells=[metric, 1.0], best="high", shade="sequential"),
        ],
        row_kinds=["few", "model"],
    )
    figure = Figure(picture=inline.markup, caption=HOSTILE, description=HOSTILE, title=HOSTILE)
    return Page(
        title=HOSTILE,
        command="finetune",
        facts={"Command": HOSTILE, HOSTILE: HOSTILE},
        summary=[f"It finds {HOSTILE}.", "See `--help`."],
        cards=[Card(name=HOSTILE, value=HOSTILE, note=HOSTILE)],
        sections=[
            Section(title=HOSTILE, body=[HOSTILE, figure]),
            Section(title="Tables", body=[table, Details(title=HOSTILE, body=[HOSTILE])]),
        ],
        notes=[HOSTILE],
        data={"id": HOSTILE},
    )


@pytest.fixture(scope="module")
def page(content):
    return render_page(content)


@pytest.mark.promise(17)
def test_values_are_escaped_as_text(page):
    read = Reader(page)

    # The data, which is no code, and the script of the page.
    assert [attributes.get("type") for attributes in read.all("script")] == ["application/json", None]
    assert "<script>alert" not in page
    # Title twice, lede, card, facts, contents, headings, prose, figure, table, details, notes.
    assert read.text.count(ESCAPED) >= 18
    assert "\u202e" not in page
    assert "49" not in read.text


@pytest.mark.promise(19)
def test_page_fetches_nothing_and_runs_one_script(page):
    read = Reader(page)

    links = [value for _, attributes in read.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|https?:(?!//www\.w3\.org/)", page)
    (policy,) = (attributes["content"] for attributes in read.all("meta") if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_header_names_command_version_and_documentation(page):
    text = Reader(page).text

    assert f"protembed {__version__}; docs/finetune.md explains all files and numbers" in text
    assert "See --help." in text


def test_table_of_contents_leads_to_each_section(page):
    read = Reader(page)

    ids = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    links = [attributes["href"][1:] for attributes in read.all("a")]
    assert len(links) == 3  # and the link that skips the header
    assert set(links) <= ids


def test_cells_carry_all_digits_and_the_best_is_marked(page):
    cells = {cell.get("data-values"): cell for cell in Reader(page).all("td")}

    assert set(cells) == {"0.5 0.25 0.75", "1"}
    assert cells["1"]["class"] == "best"
    assert cells["0.5 0.25 0.75"]["style"] == "--more-share: 50%"
    assert [row.get("class") for row in Reader(page).all("tr")] == [None, "few", "model"]


@pytest.mark.promise(9)
def test_same_values_give_the_same_page(page, content):
    assert render_page(content) == page


# The design


def luminance(colour):
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("behind", ["surface", "raised", "tint"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "contrast", "third", "fourth"])
def test_text_can_be_read_on_every_background(name, behind, theme):
    assert contrast(getattr(COLOURS[name], theme), getattr(COLOURS[behind], theme)) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("end", ["more", "less"])
def test_ink_can_be_read_on_the_full_shade_of_a_table(end, theme):
    assert contrast(getattr(COLOURS["ink"], theme), getattr(COLOURS[end], theme)) >= 4.5


def test_each_colour_of_the_light_theme_is_unique():
    # Inline figures recognise a colour by its value.
    assert len({colour.light for colour in COLOURS.values()}) == len(COLOURS)


@pytest.mark.parametrize("use", SCALES)
def test_scales_have_a_colour_for_each_step_in_both_themes(use):
    light, dark = scale_colours(use).values()

    assert len(light) == len(dark) == 17
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in light + dark)
    brightness = np.array([luminance(colour) for colour in light])
    assert (np.diff(brightness) > 0).all() or (np.diff(brightness) < 0).all()


# Inline figures


def test_inline_figure_takes_its_colours_and_its_font_from_the_page():
    with inline_svg(4, 3) as inline:
        axes = inline.figure.subplots()
        axes.plot([1, 2], color=COLOURS["contrast"].light, label="validation")
        axes.legend()

    assert inline.markup.startswith("<svg") and inline.markup.strip().endswith("</svg>")
    assert "var(--contrast)" in inline.markup and COLOURS["contrast"].light not in inline.markup
    assert ">validation</text>" in inline.markup
    assert "DejaVu" not in inline.markup
    assert not re.search("<style|<metadata|<script", inline.markup)


@pytest.mark.promise(9)
def test_same_inline_figure_has_the_same_markup():
    def draw():
        with inline_svg(4, 3) as inline:
            inline.figure.subplots().plot([1, 2, 3], "o")
        return inline.markup

    assert draw() == draw()


def test_inline_figure_shrinks_to_four_fifths_of_its_width_so_that_its_text_can_be_read():
    with inline_svg(5, 3) as inline:
        inline.figure.subplots()

    assert re.match(r'<svg [^>]*width="360pt" style="min-width: 288pt"', inline.markup)
