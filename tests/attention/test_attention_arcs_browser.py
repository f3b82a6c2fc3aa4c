"""Tests of the arcs over the sequence in a real browser: Debian's chromium and chromium-driver, with selenium."""

import numpy as np
import pytest

from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.strongest_pairs import strongest_pairs

HOSTILE = "</script><img src=x onerror=alert(1)>"
# The strip is drawn again when it gets its size and when a map has been unpacked: wait until two frames show the same.
SETTLED = """
const done = arguments[0], strip = document.getElementById("arcs-strip");
const frames = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
const look = (before) => frames(() => (before && before === strip.firstChild ? done() : look(strip.firstChild)));
look(null);
"""


@pytest.fixture(scope="module")
def short(make_displayed):
    return make_displayed(id="P12345", sites={"binding": [12, 33]}, first_residue=101)


@pytest.fixture(scope="module")
def path(tmp_path_factory, make_displayed, short):
    page = AttentionPage([1, 2], [1, 2, 3])
    page.add(short)
    page.add(make_displayed(id="long", num_residues=300, seed=2))
    page.add(make_displayed(id=HOSTILE, seed=1, sites={HOSTILE: [3]}))
    page.add(make_displayed(id="tiny", num_residues=1))
    path = tmp_path_factory.mktemp("arcs") / "report.html"
    path.write_text(page.render(PageContent(title="Attention")), encoding="utf-8")
    return path


@pytest.fixture
def arcs(open_page, path):
    page = open_page(path)
    page.until(lambda: num_arcs(page) == 10)
    settle(page)
    return page


def settle(page):
    """Wait until the arcs and their lists are not drawn again."""
    page.browser.execute_async_script(SETTLED)


def pick(page, **change):
    """Choose a protein, layer, head or residue by its index, as other parts of the page do."""
    page.browser.execute_script("choose(arguments[0])", change)


def go(page, number):
    """Type the number of a residue, and wait until its lists are shown."""
    from selenium.webdriver.common.keys import Keys

    field = page.get("arcs-residue")
    field.clear()
    field.send_keys(str(number), Keys.ENTER)
    page.until(lambda: page.get("arcs-of-residue").is_displayed())
    settle(page)


def listed(page, name):
    lines = page.get(f"arcs-{name}").find_elements("tag name", "tr")
    return [[cell.text for cell in line.find_elements("tag name", "td")] for line in lines]


def num_arcs(page):
    return len(page.browser.find_elements("css selector", "#arcs-strip path"))


def scrolls(page):
    return page.browser.execute_script("return arcs.strip.scrollWidth > arcs.strip.clientWidth")


def name_of(protein, index):
    label = " (binding)" if index in protein.sites.get("binding", []) else ""
    return f"{protein.sequence[index]}{protein.first_residue + index}{label}"


def signed(offset):
    return f"+{offset}" if offset > 0 else f"−{-offset}" if offset < 0 else "0"


def interval(words):
    low, high = ("0", words.removeprefix("below ")) if words.startswith("below ") else words.split("–")
    return float(low), float(high)


@pytest.mark.parametrize("apart", [False, True], ids=["all pairs", "pairs at least 6 apart"])
def test_page_opens_with_the_strongest_pairs_by_name(arcs, short, apart):
    if apart:
        before = listed(arcs, "pairs")
        arcs.get("arcs-apart").click()
        arcs.until(lambda: listed(arcs, "pairs") != before)

    found = strongest_pairs(short.maps[0, 0])
    rows, columns, weights = (values[int(apart)].tolist() for values in (found.rows, found.columns, found.weights))
    for shown, row, column, weight in zip(listed(arcs, "pairs"), rows, columns, weights, strict=True):
        assert shown[:2] == [name_of(short, row), name_of(short, column)]
        assert float(shown[2]) == pytest.approx(weight, rel=0.005)
        assert shown[3] == signed(column - row)
    assert num_arcs(arcs) == 10
    assert not arcs.get("arcs-of-residue").is_displayed()


def test_lists_of_a_residue_hold_what_it_attends_to_and_what_attends_to_it(arcs, short):
    pick(arcs, head=1)
    arcs.until(lambda: arcs.text("arcs-title").endswith("head 2"))
    go(arcs, 111)

    weights = short.maps[0, 1]
    names = [name_of(short, index) for index in range(40)]
    for name, values in (("gives", weights[10]), ("receives", weights[:, 10])):
        shown = listed(arcs, name)
        assert 1 <= len(shown) <= 10
        highest_unlisted = max(values[index] for index in range(40) if names[index] not in [row[0] for row in shown])
        for residue, words, distance in shown:
            index = names.index(residue)
            low, high = interval(words)
            assert low <= values[index] <= high
            assert distance == (signed(index - 10) if name == "gives" else signed(10 - index))
        assert highest_unlisted <= max(high, 0.02 * values.max() * 1.2)
    assert arcs.text("arcs-gives-title") == f"{names[10]} attends to"
    assert num_arcs(arcs) == len(listed(arcs, "gives")) + len(listed(arcs, "receives"))
    assert arcs.text("arcs-words").startswith(f"{names[10]} attends most to {names[int(weights[10].argmax())]} (")


def test_clicking_a_letter_and_a_name_choose_residues(arcs, short):
    arcs.browser.find_elements("css selector", "#arcs-strip text")[0].click()
    arcs.until(lambda: arcs.get("arcs-residue").get_attribute("value") == "101")
    settle(arcs)

    first = listed(arcs, "gives")[0][0]
    arcs.get("arcs-gives").find_element("tag name", "button").click()
    arcs.until(lambda: arcs.text("arcs-gives-title") == f"{first} attends to")


def test_keys_move_along_the_sequence_and_escape_returns_to_the_pairs(arcs, short):
    from selenium.webdriver.common.keys import Keys

    def number():
        return arcs.get("arcs-residue").get_attribute("value")

    arcs.get("arcs-strip").send_keys(Keys.HOME)
    assert number() == "101"
    arcs.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert number() == "102"
    arcs.press(Keys.END, Keys.ARROW_RIGHT)
    assert number() == "140"
    arcs.get("arcs-strip").send_keys(Keys.SHIFT, Keys.ARROW_LEFT)
    assert number() == "130"
    arcs.press(Keys.ESCAPE)
    arcs.until(lambda: arcs.get("arcs-of-pairs").is_displayed())
    assert number() == ""
    assert arcs.get("arcs-strongest").get_attribute("aria-pressed") == "true"


def test_buttons_move_and_a_number_outside_chooses_the_nearest_residue(arcs):
    go(arcs, 999)
    assert arcs.get("arcs-residue").get_attribute("value") == "140"
    arcs.get("arcs-before").click()
    assert arcs.get("arcs-residue").get_attribute("value") == "139"
    arcs.get("arcs-after").click()
    assert arcs.get("arcs-residue").get_attribute("value") == "140"
    arcs.get("arcs-strongest").click()
    arcs.until(lambda: arcs.get("arcs-of-pairs").is_displayed())


def test_pairs_of_a_long_protein_are_single_residues_and_partners_are_blocks(arcs, make_displayed):
    long = make_displayed(id="long", num_residues=300, seed=2)
    pick(arcs, protein=1)
    arcs.until(lambda: arcs.text("arcs-title").startswith("long"))

    rows, columns = long.strongest.rows[0, 0, 0], long.strongest.columns[0, 0, 0]
    expected = [[name_of(long, row), name_of(long, column)] for row, column in zip(rows, columns, strict=True)]
    assert [row[:2] for row in listed(arcs, "pairs")] == expected
    go(arcs, 200)
    letters = long.sequence
    assert arcs.text("arcs-gives-title") == f"{letters[198]}199–{letters[200]}201 attends to"
    low, high = interval(listed(arcs, "gives")[0][1])
    assert low <= long.maps[0, 0, 66].max() <= high


def test_long_sequence_scrolls_to_the_chosen_residue_within_its_own_frame(arcs):
    pick(arcs, protein=1)
    arcs.until(lambda: arcs.text("arcs-title").startswith("long"))
    go(arcs, 300)

    strip = arcs.browser.execute_script(
        "const { scrollLeft: x, clientWidth: w, scrollWidth: all } = arcs.strip; return [x, w, all]"
    )
    assert strip[2] > strip[1]
    assert strip[0] + strip[1] == pytest.approx(strip[2], abs=2)
    assert arcs.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_whole_protein_can_be_shown_without_letters(arcs):
    assert not arcs.get("arcs-whole").is_displayed()
    pick(arcs, protein=1)
    arcs.until(lambda: arcs.get("arcs-whole").is_displayed())
    arcs.get("arcs-whole").click()

    assert not scrolls(arcs)
    assert num_arcs(arcs) == 10
    labels = [label.text for label in arcs.browser.find_elements("css selector", "#arcs-strip text")]
    assert labels == ["20", "40", "60", "80", *map(str, range(100, 301, 20))]
    arcs.get("arcs-whole").click()
    assert scrolls(arcs)


def test_paper_shows_the_whole_protein_and_the_names_of_residues(arcs):
    pick(arcs, protein=1)
    arcs.until(lambda: arcs.get("arcs-whole").is_displayed())
    arcs.browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    arcs.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    assert not scrolls(arcs)
    assert arcs.get("arcs-pairs").find_element("tag name", "button").is_displayed()
    assert not arcs.get("arcs-strongest").is_displayed()
    arcs.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    arcs.browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert scrolls(arcs)


def test_pairs_of_a_mean_are_intervals_of_the_map(arcs, short):
    pick(arcs, layer=1, head=-1)
    arcs.until(lambda: "mean of its heads" in arcs.text("arcs-title"))

    mean = short.maps[1].mean(0)
    assert len(listed(arcs, "pairs")) == 10
    names = [name_of(short, index) for index in range(40)]
    for first, second, words, _ in listed(arcs, "pairs"):
        low, high = interval(words)
        assert low <= mean[names.index(first), names.index(second)] <= high
        assert high >= np.sort(mean, axis=None)[-10]


def test_protein_of_one_residue_has_one_pair_and_its_arc_is_a_loop(arcs):
    pick(arcs, protein=3)
    arcs.until(lambda: arcs.text("arcs-title").startswith("tiny"))

    assert len(listed(arcs, "pairs")) == num_arcs(arcs) == 1
    arcs.get("arcs-apart").click()
    arcs.until(lambda: num_arcs(arcs) == 0)
    assert arcs.get("arcs-pairs-none").is_displayed()


@pytest.mark.promise(17)
def test_hostile_identifiers_and_labels_are_shown_as_text(arcs):
    pick(arcs, protein=2)
    arcs.until(lambda: arcs.text("arcs-title").startswith(HOSTILE))
    go(arcs, 4)

    assert HOSTILE in arcs.text("arcs-gives-title")


def test_arcs_can_be_downloaded_as_png_and_svg(arcs, short):
    from xml.etree import ElementTree

    go(arcs, 111)
    names = [f"P12345_layer_1_head_1_arcs_{name_of(short, 10)}.{kind}" for kind in ("png", "svg")]
    png, svg = (arcs.download(f"arcs-{kind}", name) for kind, name in zip(("png", "svg"), names, strict=True))

    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    root = ElementTree.fromstring(svg)
    assert len(root.findall("{http://www.w3.org/2000/svg}path")) == num_arcs(arcs)
    assert b"var(" not in svg


def test_arcs_follow_the_theme_without_being_drawn_again(arcs):
    def colour():
        # In one step, because the arcs are drawn again when a map has been unpacked.
        return arcs.browser.execute_script("return getComputedStyle(document.querySelector('#arcs-strip path')).stroke")

    light = colour()
    arcs.get("theme").click()
    assert colour() != light
