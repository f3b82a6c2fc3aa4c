import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from protembed.attention.head_kinds import HeadKind
from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.pictures import MAX_PIXELS

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}\u202e\u2028<!--"
# Characters that would reverse the reading direction, or end a line, are escaped.
ESCAPED = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}\\u202e\\u2028<!--"


def kind(layer, head, kind="offset", *, word="residue +2", strength=0.9, sentence="It looks back."):
    return HeadKind(layer=layer, head=head, kind=kind, word=word, sentence=sentence, strength=strength, expected=0.01)


class Reader(HTMLParser):
    """Parses a page into its elements with their attributes, and the text of scripts and table cells."""

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
        if self.texts and self._open in ("td", "th", "script"):
            self.texts[-1][1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return [text.strip() for name, text in self.texts if name == tag]

    def data(self):
        return json.loads(self.text("script")[0])


def render(*proteins, layers=(1, 2), heads=(1, 2, 3), **content):
    page = AttentionPage(layers, heads)
    for protein in proteins:
        page.add(protein)
    statistics = {"entropy": np.ones((len(layers), len(heads)))}
    return page.render(PageContent(**{"title": "Attention", "statistics": statistics} | content))


@pytest.fixture(scope="module")
def page(make_displayed, make_contacts):
    kinds = [kind(2, 3, "sites", word=HOSTILE, sentence=HOSTILE), kind(1, 1)]
    return render(make_displayed(id=HOSTILE, sites={HOSTILE: [3]}, **make_contacts()), title=HOSTILE, kinds=kinds)


# Elements and data


@pytest.mark.promise(17)
def test_text_in_the_data_never_becomes_an_element(page):
    read = Reader(page)

    assert read.all("img") == []
    assert len(read.all("script")) == 2
    assert read.data()["proteins"][0]["id"] == ESCAPED
    assert read.data()["kinds"][0]["word"] == ESCAPED


@pytest.mark.promise(17, 19)
def test_page_allows_its_script_only_and_fetches_nothing(page):
    import hashlib

    (policy,) = (meta["content"] for meta in Reader(page).all("meta") if "content" in meta and "http-equiv" in meta)
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL).group(1)

    assert policy.startswith("default-src 'none';")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"url\(|@import", page)
    # The only address is the namespace of SVG.
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}


def test_script_never_creates_markup_from_text(page):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)


@pytest.mark.promise(9)
def test_same_values_give_the_same_bytes(make_displayed, make_contacts):
    first, second = (render(make_displayed(**make_contacts()), kinds=[kind(1, 1)]) for _ in range(2))

    assert first == second


def test_undefined_values_are_null_and_layers_and_heads_keep_their_numbers(make_displayed):
    statistics = {"mean distance": np.array([[1.5, np.nan], [0.123456789, 2]])}
    protein = make_displayed(num_heads=2, first_residue=101)
    data = Reader(render(protein, statistics=statistics, layers=[3, 6], heads=[2, 20])).data()

    assert (data["layers"], data["heads"]) == ([3, 6], [2, 20])
    assert data["statistics"] == [{"name": "mean distance", "values": [[1.5, None], [0.123457, 2.0]]}]
    assert data["proteins"][0]["first"] == 101
    assert data["proteins"][0]["contacts"] is None


def test_page_without_contacts_has_no_contact_map(page, make_displayed):
    assert 'id="contacts-canvas"' in page
    assert 'id="contacts-canvas"' not in render(make_displayed())


def test_header_counts_what_is_shown(make_displayed):
    page = render(make_displayed(num_heads=1), make_displayed(num_heads=1), layers=[3, 6], heads=[2])

    assert "<dd>maps of 2 proteins, 2 layers and 1 head of each</dd>" in page


def test_page_lists_the_displayed_heads_in_the_order_of_interest(make_displayed):
    kinds = [kind(6, 2, "contacts"), kind(1, 1), kind(3, 20, strength=0.123456789), kind(3, 2, "none")]
    data = Reader(render(make_displayed(num_heads=2), kinds=kinds, layers=[3, 6], heads=[2, 20])).data()

    assert [(head["layer"], head["head"], head["kind"]) for head in data["kinds"]] == [
        (1, 0, "contacts"),
        (0, 1, "offset"),
        (0, 0, "none"),
    ]
    assert data["kinds"][1]["strength"] == 0.123457
    assert data["kindNames"] == [
        ["contacts", "contacts", 1],
        ["offset", "fixed distance", 1],
        ["none", "no clear pattern", 1],
    ]


@pytest.mark.parametrize(
    ("first", "start"),
    [
        ("contacts", {"protein": 1, "layer": 1, "head": 2}),
        ("sites", {"protein": 2, "layer": 1, "head": 2}),
        ("offset", {"protein": 0, "layer": 1, "head": 2}),
    ],
)
def test_page_opens_on_the_most_interesting_head_and_a_protein_that_shows_it(
    make_displayed, make_contacts, first, start
):
    proteins = [make_displayed(), make_displayed(**make_contacts()), make_displayed(sites={"binding": [3]})]

    assert Reader(render(*proteins, kinds=[kind(2, 3, first), kind(1, 1)])).data()["start"] == start


# Maps


def test_map_is_encoded_as_rounded_square_roots(make_displayed, decode_weights):
    protein = make_displayed()
    maps = Reader(render(protein)).data()["proteins"][0]["maps"]

    for picture, weights in zip(maps, protein.maps.reshape(-1, 40, 40), strict=True):
        assert picture["peak"] == pytest.approx(weights.max(), rel=1e-3)
        step = picture["peak"] ** 0.5 / (picture["levels"] - 1)
        assert np.abs(decode_weights(picture) ** 0.5 - weights**0.5).max() < 0.51 * step


def test_map_of_lines_is_stored_as_differences_from_a_prediction(make_displayed, decode_pixels):
    levels = np.random.default_rng(0).integers(0, 64, 40)
    weights = np.tile((levels / 63.0) ** 2, (2, 3, 40, 1))

    for picture in Reader(render(make_displayed(maps=weights))).data()["proteins"][0]["maps"]:
        assert picture["differences"]
        assert np.array_equal(decode_pixels(picture), np.tile(np.rint(levels / levels.max() * 63), (40, 1)))
        assert len(picture["pixels"]) < 150


@pytest.mark.parametrize("num_residues", [40, 119, 203, 300])
@pytest.mark.parametrize("concentration", [0.3, 30], ids=["sparse", "diffuse"])
def test_every_value_lies_in_its_interval(make_displayed, num_residues, concentration, decode_intervals):
    weights = np.random.default_rng(0).gamma(concentration, size=(2, 3, num_residues, num_residues))
    protein = make_displayed(num_residues, maps=(weights / weights.sum(-1, keepdims=True)).astype(np.float32))

    maps = Reader(render(protein)).data()["proteins"][0]["maps"]

    for picture, blocks in zip(maps, protein.maps.reshape(6, *protein.maps.shape[2:]), strict=True):
        assert picture["levels"] >= 48
        low, high = decode_intervals(picture)
        assert (low <= blocks * (1 + 1e-6)).all()
        assert (blocks <= high * (1 + 1e-6)).all()
        # Values of at least a tenth of the maximum have an interval of less than 15 %.
        is_strong = blocks > 0.1 * blocks.max()
        assert (high / np.maximum(low, 1e-9))[is_strong].max() < 1.15


def test_means_over_heads_and_layers_are_stored_like_maps(make_displayed, decode_intervals):
    protein = make_displayed()
    *layers, everything = Reader(render(protein)).data()["proteins"][0]["means"]

    for picture, weights in zip(layers, protein.maps.mean(1), strict=True):
        low, high = decode_intervals(picture)
        assert (low <= weights * (1 + 1e-6)).all()
        assert (weights <= high * (1 + 1e-6)).all()
    low, high = decode_intervals(everything)
    assert (low <= protein.maps.mean((0, 1)) * (1 + 1e-6)).all()
    assert (protein.maps.mean((0, 1)) <= high * (1 + 1e-6)).all()


def test_single_head_has_no_mean(make_displayed):
    page = render(make_displayed(num_layers=1, num_heads=1), layers=[4], heads=[7])

    assert Reader(page).data()["proteins"][0]["means"] == []


def test_page_data_contain_labelled_residues(make_displayed):
    protein = Reader(render(make_displayed(sites={"binding \u202e": [3, 7], "empty": []}))).data()["proteins"][0]

    assert protein["sites"] == [{"label": "binding \\u202e", "residues": [3, 7]}]


@pytest.mark.parametrize("num_residues", [1, 2, MAX_PIXELS, MAX_PIXELS + 1, 300])
def test_only_long_proteins_are_shown_in_blocks(make_displayed, num_residues, decode_pixels):
    protein = Reader(render(make_displayed(num_residues))).data()["proteins"][0]

    side = len(decode_pixels(protein["maps"][0]))
    assert side <= MAX_PIXELS
    assert (side - 1) * protein["block"] < num_residues <= side * protein["block"]
    assert (protein["block"] == 1) == (num_residues <= MAX_PIXELS)


def test_single_strong_pair_is_visible_in_its_block(make_displayed, decode_weights):
    maps = np.full((2, 3, 400, 400), 1 / 400, np.float16)
    maps[1, 2, 399, 17] = 0.75
    protein = Reader(render(make_displayed(400, maps=maps))).data()["proteins"][0]

    weights = decode_weights(protein["maps"][-1])
    assert weights[399 // protein["block"], 17 // protein["block"]] == pytest.approx(0.75)
    assert (weights > 0.1).sum() == 1


def test_head_without_attention_to_residues_has_an_empty_map(make_displayed, decode_pixels):
    picture = Reader(render(make_displayed(maps=np.zeros((2, 3, 40, 40))))).data()["proteins"][0]["maps"][0]

    assert picture["peak"] == 0
    assert not decode_pixels(picture).any()


@pytest.mark.parametrize("concentration", [0.3, 1, 30], ids=["sparse", "uneven", "diffuse"])
def test_page_of_ten_proteins_of_300_residues_is_smaller_than_ten_megabytes(make_displayed, concentration):
    rng, page = np.random.default_rng(0), AttentionPage(range(1, 7), range(1, 21))
    layer = rng.gamma(concentration, size=(1, 20, 300, 300)).astype(np.float32)
    protein = make_displayed(300, maps=np.repeat(layer / layer.sum(-1, keepdims=True), 6, axis=0))

    page.add(protein)
    of_one = len(page.render(PageContent(title="Attention")))
    page.add(protein)
    of_two = len(page.render(PageContent(title="Attention")))

    assert of_one + 9 * (of_two - of_one) < 10e6


# Contacts


def test_prediction_is_above_the_diagonal_and_structure_below(make_displayed, make_contacts, decode_pixels):
    contacts = make_contacts()
    picture = Reader(render(make_displayed(**contacts))).data()["proteins"][0]["contacts"]

    pixels = decode_pixels(picture)
    scores = np.triu(pixels, 1) / (picture["levels"] - 1)
    assert np.abs(scores - np.triu(contacts["contacts"], 1)).max() < 0.01
    assert np.array_equal(np.tril(pixels, -1), np.tril(contacts["truth"], -1))
    assert picture["predicted"]
    assert picture["known"]


@pytest.mark.parametrize("missing", ["contacts", "truth"])
def test_prediction_or_structure_may_be_missing(make_displayed, make_contacts, missing, decode_pixels):
    picture = Reader(render(make_displayed(**make_contacts() | {missing: None}))).data()["proteins"][0]["contacts"]

    pixels = decode_pixels(picture)
    assert np.triu(pixels, 1).any() == picture["predicted"] == (missing != "contacts")
    assert np.tril(pixels, -1).any() == picture["known"] == (missing != "truth")


def test_contacts_of_long_proteins_are_kept_in_blocks(make_displayed, decode_pixels):
    truth = np.zeros((900, 900), bool)
    truth[[3, 880], [880, 3]] = True
    maps = np.zeros((1, 1, 900, 900), np.float16)
    page = render(make_displayed(900, maps=maps, truth=truth), layers=[1], heads=[1])

    picture = Reader(page).data()["proteins"][0]["contacts"]
    assert np.argwhere(decode_pixels(picture)).tolist() == [[880 // picture["block"], 3 // picture["block"]]]
