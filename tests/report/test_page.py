import base64
import re
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
from markupsafe import Markup

from protembed.config.common import METRIC_NAMES, TASKS
from protembed.finetuning.comparison import Subgroup, compare
from protembed.report.page import inline_png, render_template

HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class Reader(HTMLParser):
    """Parses a page into its elements and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make_subgroup(num_proteins, metrics, intervals):
    return Subgroup(low=0.4, high=0.6, num_proteins=num_proteins, metrics=metrics, intervals=intervals)


@pytest.fixture(scope="module")
def values():
    """Return the values of a fine-tuning page, in which all names that a user may choose are hostile."""
    truth = list(map(np.array, np.random.default_rng(0).normal(size=30)))
    outputs = {"mean": [[0.0] * 30], HOSTILE: [[float(value) + 0.1 for value in truth]], "frozen": [truth]}
    comparison = compare(TASKS["regression"], truth, outputs)
    metrics = {name: score.value for name, score in comparison.model_metrics.items()}
    return {
        "version": "1.2.3",
        "target": HOSTILE,
        "summary": f"regression of {HOSTILE}",
        "comparison": comparison,
        "metrics": list(comparison.model_metrics),
        "names": METRIC_NAMES,
        "min_proteins": 10,
        "notes": [f"a note about {HOSTILE}"],
        "figures": [("Training", inline_png(PNG), f"caption of {HOSTILE}")],
        "by_similarity": [("0.4 to 0.6", make_subgroup(1234, metrics, dict.fromkeys(metrics, (0.25, 0.75))))],
        "by_length": [(HOSTILE, make_subgroup(1, dict.fromkeys(metrics), dict.fromkeys(metrics)))],
    }


@pytest.fixture(scope="module")
def page(values):
    return render_template("finetuning.html", **values)


@pytest.mark.promise(17)
def test_values_are_escaped_as_text(page):
    read = Reader(page)

    assert "<script" not in page
    assert read.all("script") == []
    # Title, heading, summary, comparison, sentence, note, caption and subgroup.
    assert read.text.count(HOSTILE) >= 8
    assert [attributes["alt"] for attributes in read.all("img")] == [f"caption of {HOSTILE}"]


def test_picture_is_embedded_in_the_page(page):
    (picture,) = Reader(page).all("img")

    kind, _, content = picture["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content, validate=True) == PNG


def test_embedded_picture_is_markup_without_escapes():
    # All bytes, so that the encoding contains + and /.
    source = inline_png(bytes(range(256)))

    assert isinstance(source, Markup)
    assert {"+", "/"} <= set(source.partition(",")[2])
    assert "&" not in source


@pytest.mark.promise(19)
def test_page_fetches_nothing(page):
    read = Reader(page)

    links = [value for _, attributes in read.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import|https?:", page)


def test_page_shows_metrics_with_intervals_and_marks_undefined_ones(page, values):
    text, figures = Reader(page).text, values["comparison"].predictors[HOSTILE]

    assert f"{figures['rmse'].value:.3f} {figures['rmse'].low:.3f} to {figures['rmse'].high:.3f}" in text
    # The correlation of the mean, and all metrics of the last subgroup.
    assert text.count("undefined") == 1 + 4
    assert "1,234" in text
    assert text.count("0.250 to 0.750") == 4
    assert "Grey: fewer than 10 proteins, too few for a 95 % interval." in text
    assert len([row for row in Reader(page).all("tr") if row.get("class") == "few"]) == 1
    assert all(METRIC_NAMES[metric] in text for metric in values["metrics"])
    assert all(sentence in text for sentence in values["comparison"].sentences())
    assert "Made by protembed 1.2.3." in text


def test_row_of_the_model_is_marked(page):
    rows = [attributes for attributes in Reader(page).all("tr") if attributes.get("class") == "model"]

    assert len(rows) == 1
    assert re.search(r'<tr class="model"><td>frozen</td>', page)


def test_missing_value_raises_an_error(values):
    rest = {name: value for name, value in values.items() if name != "summary"}

    with pytest.raises(jinja2.UndefinedError, match="summary"):
        render_template("finetuning.html", **rest)


@pytest.mark.promise(9)
def test_same_values_give_the_same_page(page, values):
    assert render_template("finetuning.html", **values) == page
