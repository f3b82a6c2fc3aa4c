import base64
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from browser_pages import BrowserPage

from protembed.attention import maps
from protembed.attention.head_kinds import HeadKind
from protembed.attention.head_statistics import (
    ALL_STATISTICS,
    OFFSETS,
    HeadStatistics,
    HeadSums,
    amino_acid_fractions,
    head_statistics,
    offset_sums,
)
from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.pictures import MAX_PIXELS, DisplayedProtein, block_size, max_pool_blocks, predict_pixels
from protembed.attention.strongest_pairs import stack_pairs, strongest_pairs
from protembed.data.alphabet import CLS, EOS, decode, encode
from protembed.data.structures import best_chain, contact_map, distances, read_chains

STRUCTURES = sorted((Path(__file__).parents[1] / "data" / "fixtures" / "structures").glob("*.gz"))


@pytest.fixture(scope="session")
def make_displayed():
    """Return a function that makes a random protein whose heads attend to few residues, and mostly at some offset."""

    def make(num_residues=40, *, id="P12345", num_layers=2, num_heads=3, seed=0, **values):
        rng = np.random.default_rng(seed)
        shape = (num_layers, num_heads, num_residues, num_residues)
        maps = rng.gamma(0.3, size=shape) + 1e-6
        rows = np.arange(num_residues)
        for layer, head in np.ndindex(shape[:2]):
            maps[layer, head, rows, (rows + layer + head) % num_residues] += 20
        maps = values.pop("maps", (maps / maps.sum(-1, keepdims=True)).astype(np.float32))
        strongest = stack_pairs([stack_pairs([strongest_pairs(head) for head in layer]) for layer in maps])
        sequence = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), num_residues))
        block = block_size(num_residues, MAX_PIXELS)
        if block > 1:
            maps = np.array([[max_pool_blocks(head, block) for head in layer] for layer in maps])
        values = {"strongest": strongest, **values}
        return DisplayedProtein(id=id, sequence=sequence, maps=maps, block=block, **values)

    return make


@pytest.fixture(scope="session")
def make_contacts():
    """Return a function that makes random contacts and a prediction of them, (residues, residues), symmetric."""

    def make(num_residues=40):
        rng = np.random.default_rng(1)
        truth = np.triu(rng.random((num_residues, num_residues)) < 0.05, 6)
        scores = np.triu(0.9 * truth + 0.1 * rng.random(truth.shape), 1)
        return {"contacts": scores + scores.T, "truth": truth | truth.T}

    return make


@pytest.fixture(scope="session")
def make_statistics():
    """Return a function that makes the statistics of heads from their maps of one protein or several."""

    def make(maps_by_sequence):
        sums = HeadSums()
        for sequence, layers in maps_by_sequence.items():
            weights = torch.as_tensor(np.asarray(layers, np.float32))  # (layer, head, length, length)
            tokens = torch.tensor([CLS, *encode(sequence).tolist(), EOS])
            statistics = [torch.cat([head_statistics(layer), amino_acid_fractions(layer, tokens)]) for layer in weights]
            offsets = [offset_sums(layer) for layer in weights]
            sums.add(torch.stack(statistics, 1).numpy(), torch.stack(offsets, 1).numpy(), sequence)
        return sums.means()

    return make


@pytest.fixture(scope="session")
def random_statistics():
    """Return a function that makes random statistics of as many layers and heads, which follow no pattern."""

    def make(num_layers=2, num_heads=3):
        rng = np.random.default_rng(0)
        return HeadStatistics(
            means=rng.random((len(ALL_STATISTICS), num_layers, num_heads)),
            on_offset=rng.random((len(OFFSETS), num_layers, num_heads)) / len(OFFSETS),
            even_on_offset=np.full(len(OFFSETS), 0.01),
            even_entropy=5.0,
            num_letters=np.full(20, 10),
            num_residues=200,
        )

    return make


@pytest.fixture(scope="session")
def decompress():
    """Return a function that decompresses what the page stores of a picture, or of lists of pairs."""
    return lambda stored: zlib.decompress(base64.b85decode(stored["pixels"].translate(str.maketrans(",.:", "&<>"))))


@pytest.fixture(scope="session")
def decode_pixels(decompress):
    """Return a function that decodes a picture of the page to its levels, (pixels, pixels)."""

    def decode(picture):
        flat = np.frombuffer(decompress(picture), np.uint8)
        pixels = flat.reshape(2 * [int(flat.size**0.5)])
        return add_predictions(pixels) if picture.get("differences") else pixels

    return decode


def add_predictions(differences):
    """Restore levels from what `predict_pixels` leaves, pixel by pixel."""
    pixels = np.zeros_like(differences)
    for row, column in np.ndindex(pixels.shape):
        predicted = predict_pixels(pixels[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1])[-1, -1]
        pixels[row, column] = (int(differences[row, column]) + int(predicted)) % 256
    return pixels


@pytest.fixture(scope="session")
def decode_weights(decode_pixels):
    """Return a function that decodes the values that the page shows."""

    def decode(picture):
        return picture["peak"] * (decode_pixels(picture) / (picture["levels"] - 1)) ** 2

    return decode


@pytest.fixture(scope="session")
def decode_intervals(decode_pixels):
    """Return a function that decodes the interval of each cell, before its ends are rounded."""

    def decode(picture):
        levels = picture["levels"] - 1
        ends = ((decode_pixels(picture) + shift).clip(0, levels) / levels for shift in (-0.5, 0.5))
        return tuple(picture["peak"] * end**2 for end in ends)

    return decode


@pytest.fixture
def planted_heads(monkeypatch):
    """Give five heads of every model a pattern, and return the kind of these heads by layer and head, from 1.

    Head 3 of layer 2 follows the contacts of the fixture structures, and head 1 attends to every seventh residue. The
    other heads are as they were.
    """
    chains = [read_chains(path)[0] for path in STRUCTURES]
    original = maps._ProteinAccumulator.add

    def plant(weights, tokens, layer):
        length = len(tokens)
        from_residue, to = np.mgrid[:length, :length]
        offset, noise = to - from_residue, np.random.default_rng(layer).random((length, length))
        if layer == 0:
            is_cysteine = np.array([token == encode("C")[0] for token in tokens])
            patterns = {0: offset == 4, 1: np.tile(is_cysteine, (length, 1)), 3: to == 0}
        else:
            match = best_chain(decode(tokens[1:-1]), chains)
            contacts = np.pad(contact_map(distances(match))[0], 1) if match else np.zeros_like(offset)
            patterns = {0: to % 7 == 0, 2: contacts}
        for head, pattern in patterns.items():
            planted = pattern + 0.002 * noise
            weights[head] = torch.from_numpy(planted / planted.sum(-1, keepdims=True))
        return weights

    def add(self, layer, weights):
        original(self, layer, plant(weights, self._tokens.numpy(), layer))

    monkeypatch.setattr(maps._ProteinAccumulator, "add", add)
    return {(1, 1): "offset", (1, 2): "amino acid", (1, 4): "cls", (2, 1): "sites", (2, 3): "contacts"}


# A page in a real browser: Debian's chromium and chromium-driver, with selenium

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e"
STATISTICS = {
    "entropy (nats)": np.array([[1.0, 2.0, 3.0], [4.0, 5.5, np.nan]]),
    "mean distance (residues)": np.array([[9.0, 8.0, 7.0], [6.0, 5.0, 4.0]]),
}
# The list begins with the first head of the grid, on which the page opens.
KINDS = [
    HeadKind(layer=1, head=1, kind="next", word="next residue", sentence="Forward.", strength=0.9, expected=0.1),
    HeadKind(layer=2, head=2, kind="amino acid", word=HOSTILE, sentence=HOSTILE, strength=0.5, expected=0.1),
    *(
        HeadKind(layer=layer, head=head, kind="none", word="no clear pattern", sentence="", strength=0, expected=0)
        for layer, head in ((1, 2), (1, 3), (2, 1), (2, 3))
    ),
]


@pytest.fixture(scope="session")
def page_path(tmp_path_factory, make_displayed, make_contacts):
    page = AttentionPage([1, 2], [1, 2, 3])
    page.add(make_displayed(id="P12345", sites={"binding": [12, 33]}, covered=range(38), **make_contacts()))
    page.add(make_displayed(id=HOSTILE, num_residues=30, first_residue=101, seed=1))
    page.add(make_displayed(id="long", num_residues=200, seed=2))
    page.add(make_displayed(id="known", seed=3, truth=make_contacts()["truth"]))
    path = tmp_path_factory.mktemp("page") / "report.html"
    content = PageContent(title="Attention", statistics=STATISTICS, kinds=KINDS)
    path.write_text(page.render(content), encoding="utf-8")
    return path


class AttentionPageInBrowser(BrowserPage):
    """Uses the page of attention as a reader does."""

    def title(self, figure="map"):
        return self.get(f"{figure}-canvas").get_attribute("aria-label")

    def chosen(self):
        return [self.get(id).get_attribute("value") for id in ("protein", "layer", "head")]

    def head(self, layer, head):
        return self.get("grid").find_elements("css selector", f"tbody tr:nth-child({layer}) td")[head - 1]

    def items(self):
        """List the heads in the order of interest."""
        return self.browser.find_elements("css selector", "#ranking [role=option]")

    def mouse(self, row, column, num_cells, figure="map"):
        """Compute the offset of a cell from the centre of the picture, in screen pixels."""
        canvas = self.get(f"{figure}-canvas")
        view = {"map": "mapView", "contacts": "contactView"}[figure]
        plot, width, height = self.browser.execute_script(f"return Object.values({view}.frame)")
        scale = canvas.rect["width"] / width
        offsets = (
            62 + plot * (column + 0.5) / num_cells - width / 2,
            30 + plot * (row + 0.5) / num_cells - height / 2,
        )
        return canvas, *(round(scale * offset) for offset in offsets)

    def hover(self, *cell, **figure):
        actions = self.actions()
        actions.move_to_element_with_offset(*self.mouse(*cell, **figure)).perform()

    def drag(self, start, end, num_cells):
        actions = self.actions(duration=50)
        actions.move_to_element_with_offset(*self.mouse(*start, num_cells)).click_and_hold()
        actions.move_to_element_with_offset(*self.mouse(*end, num_cells)).release().perform()


@pytest.fixture
def open_page(open_in_browser):
    """Return a function that opens a page of attention."""
    return lambda path: open_in_browser(path, AttentionPageInBrowser)


@pytest.fixture
def page(open_page, page_path):
    page = open_page(page_path)
    page.until(lambda: page.title() == "P12345: layer 1, head 1")
    return page


@pytest.fixture(scope="session")
def interval_of():
    """Return a function that parses both ends of the interval in a text."""

    def parse(text):
        words = text.split(": ")[1]
        low, high = ("0", words.removeprefix("below ")) if words.startswith("below ") else words.split("–")
        return float(low), float(high)

    return parse
