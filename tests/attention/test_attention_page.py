import base64
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from protembed.attention.page import MOST_PIXELS, AttentionPage, Table, script_data

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}\u202e\u2028<!--"
# A letter that would turn the direction of reading, or end a line, is spelled out.
SHOWN = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}\\u202e\\u2028<!--"
TABLE = Table(
    title="Heads",
    header=["head", "precision", "pairs"],
    rows=[["1.2", 0.51234567, 1234], [HOSTILE, float("nan"), None], ["2.1", 1e-7, 5]],
    note="The first is the best.",
)


class Reader(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and the text of each kind of element."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self._open = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag in ("td", "th", "script"):
            self.texts.append([tag, ""])

    def handle_data(self, data):
        if self.texts and self._open in ("td", "th", "script", "button"):
            self.texts[-1][1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return [text.strip() for name, text in self.texts if name == tag]

    def data(self):
        return json.loads(self.text("script")[0])


def page_of(*proteins, statistics=None, tables=(), layers=(1, 2), heads=(1, 2, 3)):
    page = AttentionPage(layers, heads)
    for protein in proteins:
        page.add(protein)
    return page.render(statistics or {"entropy": np.ones((len(layers), len(heads)))}, tables, "1.2.3")


def pixels_of(packed):
    flat = np.frombuffer(zlib.decompress(base64.b64decode(packed["pixels"])), np.uint8)
    return flat.reshape(2 * [int(flat.size**0.5)])


def weights_of(packed):
    """The map as the page shows it."""
    return packed["peak"] * (pixels_of(packed) / (packed["levels"] - 1)) ** 2


def interval_of(packed):
    """The interval that each cell is known to lie in, before its ends are rounded."""
    levels = packed["levels"] - 1
    ends = ((pixels_of(packed) + shift).clip(0, levels) / levels for shift in (-0.5, 0.5))
    return tuple(packed["peak"] * end**2 for end in ends)


@pytest.fixture(scope="module")
def page(make_shown, make_contacts):
    return page_of(make_shown(id=HOSTILE, **make_contacts()), tables=[TABLE])


# What a page is made of


@pytest.mark.promise(17)
def test_no_word_of_the_data_becomes_an_element(page):
    read = Reader(page)

    assert read.all("img") == []
    assert len(read.all("script")) == 2
    assert read.data()["proteins"][0]["id"] == SHOWN
    assert SHOWN in read.text("td")


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "&lt;", "\u2028\u2029", "\ud800", "'\"\\"])
def test_data_of_a_script_come_back_and_hold_nothing_that_html_acts_upon(text):
    spelled = script_data({"id": text})

    assert not set(spelled) & set("<>&\u2028\u2029")
    assert json.loads(spelled) == {"id": text}


@pytest.mark.promise(17, 19)
def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(page):
    import hashlib

    (policy,) = (meta["content"] for meta in Reader(page).all("meta") if "content" in meta and "http-equiv" in meta)
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL).group(1)

    assert policy.startswith("default-src 'none';")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"url\(|@import", page)
    # The one address is the name that SVG goes by.
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}


def test_the_script_never_makes_markup_of_text(page):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)


@pytest.mark.promise(9)
def test_the_same_values_give_the_same_bytes(page, make_shown, make_contacts):
    assert page_of(make_shown(id=HOSTILE, **make_contacts()), tables=[TABLE]) == page


def test_what_is_not_defined_is_null_and_what_is_shown_is_numbered_as_in_the_model(make_shown):
    statistics = {"mean distance": np.array([[1.5, np.nan], [0.123456789, 2]])}
    shown = make_shown(num_heads=2, first_residue=101)
    data = Reader(page_of(shown, statistics=statistics, layers=[3, 6], heads=[2, 20])).data()

    assert (data["layers"], data["heads"]) == ([3, 6], [2, 20])
    assert data["statistics"] == [{"name": "mean distance", "values": [[1.5, None], [0.123457, 2.0]]}]
    assert data["proteins"][0]["first"] == 101
    assert data["proteins"][0]["contacts"] is None


def test_a_page_without_contacts_has_no_place_for_them(page, make_shown):
    assert 'id="contacts-canvas"' in page
    assert 'id="contacts-canvas"' not in page_of(make_shown())


def test_cells_of_tables_are_spelled_for_readers_and_keep_the_value_that_sorts_them(page):
    read = Reader(page)

    assert read.text("th") == TABLE.header
    assert read.text("td") == ["1.2", "0.5123", "1,234", SHOWN, "undefined", "", "2.1", "1e-07", "5"]
    values = [cell.get("data-value") for cell in read.all("td")]
    assert values == [None, "0.51234567", "1234.0", None, None, None, None, "1e-07", "5.0"]
    assert [header["aria-sort"] for header in read.all("th")] == ["none"] * 3
    assert TABLE.note in page


# Maps


def test_a_map_keeps_its_weights_but_for_a_rounding_of_their_square_roots(make_shown):
    shown = make_shown()
    maps = Reader(page_of(shown)).data()["proteins"][0]["maps"]

    for packed, weights in zip(maps, shown.maps.reshape(-1, 40, 40), strict=True):
        assert packed["peak"] == pytest.approx(weights.max(), rel=1e-3)
        step = packed["peak"] ** 0.5 / (packed["levels"] - 1)
        assert np.abs(weights_of(packed) ** 0.5 - weights**0.5).max() < 0.51 * step


@pytest.mark.parametrize("num_residues", [40, 119, 203, 300])
@pytest.mark.parametrize("concentration", [0.3, 30], ids=["sparse", "diffuse"])
def test_every_value_lies_in_the_interval_that_is_read_out_for_it(make_shown, num_residues, concentration):
    weights = np.random.default_rng(0).gamma(concentration, size=(2, 3, num_residues, num_residues))
    shown = make_shown(num_residues, maps=(weights / weights.sum(-1, keepdims=True)).astype(np.float32))

    maps = Reader(page_of(shown)).data()["proteins"][0]["maps"]

    for packed, blocks in zip(maps, shown.maps.reshape(6, *shown.maps.shape[2:]), strict=True):
        assert packed["levels"] >= 48
        low, high = interval_of(packed)
        assert (low <= blocks * (1 + 1e-6)).all()
        assert (blocks <= high * (1 + 1e-6)).all()
        # A tenth of the highest value and more is known to 15 %.
        is_strong = blocks > 0.1 * blocks.max()
        assert (high / np.maximum(low, 1e-9))[is_strong].max() < 1.15


def test_labelled_residues_are_on_the_page_with_their_labels(make_shown):
    protein = Reader(page_of(make_shown(sites={"binding \u202e": [3, 7], "elsewhere": []}))).data()["proteins"][0]

    assert protein["sites"] == [{"label": "binding \\u202e", "at": [3, 7]}]


@pytest.mark.parametrize("num_residues", [1, 2, MOST_PIXELS, MOST_PIXELS + 1, 300])
def test_long_proteins_are_shown_in_blocks_and_short_ones_residue_by_residue(make_shown, num_residues):
    protein = Reader(page_of(make_shown(num_residues))).data()["proteins"][0]

    side = len(pixels_of(protein["maps"][0]))
    assert side <= MOST_PIXELS
    assert (side - 1) * protein["block"] < num_residues <= side * protein["block"]
    assert (protein["block"] == 1) == (num_residues <= MOST_PIXELS)


def test_a_single_strong_pair_is_seen_in_a_block_of_weak_ones(make_shown):
    maps = np.full((2, 3, 400, 400), 1 / 400, np.float16)
    maps[1, 2, 399, 17] = 0.75
    protein = Reader(page_of(make_shown(400, maps=maps))).data()["proteins"][0]

    shown = weights_of(protein["maps"][-1])
    assert shown[399 // protein["block"], 17 // protein["block"]] == pytest.approx(0.75)
    assert (shown > 0.1).sum() == 1


def test_a_head_that_attends_to_no_residue_is_an_empty_map(make_shown):
    packed = Reader(page_of(make_shown(maps=np.zeros((2, 3, 40, 40))))).data()["proteins"][0]["maps"][0]

    assert packed["peak"] == 0
    assert not pixels_of(packed).any()


@pytest.mark.parametrize("concentration", [0.3, 1, 30], ids=["sparse", "uneven", "diffuse"])
def test_ten_proteins_of_300_residues_stay_within_eleven_megabytes_whatever_their_heads_do(make_shown, concentration):
    rng, page = np.random.default_rng(0), AttentionPage(range(1, 7), range(1, 21))
    one_layer = rng.gamma(concentration, size=(1, 20, 300, 300)).astype(np.float32)

    page.add(make_shown(300, maps=np.repeat(one_layer / one_layer.sum(-1, keepdims=True), 6, axis=0)))

    assert 10 * page.num_bytes < 11e6


# Contacts


def test_the_prediction_is_above_the_diagonal_and_the_structure_below(make_shown, make_contacts):
    contacts = make_contacts()
    packed = Reader(page_of(make_shown(**contacts))).data()["proteins"][0]["contacts"]

    pixels = pixels_of(packed)
    scores = np.triu(pixels, 1) / (packed["levels"] - 1)
    assert np.abs(scores - np.triu(contacts["contacts"], 1)).max() < 0.01
    assert np.array_equal(np.tril(pixels, -1), np.tril(contacts["truth"], -1))
    assert packed["predicted"]
    assert packed["known"]


@pytest.mark.parametrize("missing", ["contacts", "truth"])
def test_either_half_may_be_missing(make_shown, make_contacts, missing):
    packed = Reader(page_of(make_shown(**make_contacts() | {missing: None}))).data()["proteins"][0]["contacts"]

    pixels = pixels_of(packed)
    assert np.triu(pixels, 1).any() == packed["predicted"] == (missing != "contacts")
    assert np.tril(pixels, -1).any() == packed["known"] == (missing != "truth")


def test_contacts_of_long_proteins_are_shown_in_blocks_and_none_is_lost(make_shown):
    truth = np.zeros((900, 900), bool)
    truth[[3, 880], [880, 3]] = True
    maps = np.zeros((1, 1, 900, 900), np.float16)
    page = page_of(make_shown(900, maps=maps, truth=truth), layers=[1], heads=[1])

    packed = Reader(page).data()["proteins"][0]["contacts"]
    assert np.argwhere(pixels_of(packed)).tolist() == [[880 // packed["block"], 3 // packed["block"]]]
