"""Tests of the arcs over the sequence in a real browser: Debian's chromium and chromium-driver, with selenium."""

import shutil
import time

import numpy as np
import pytest

from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.strongest_pairs import strongest_pairs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="there is no chromium with its driver"
)

HOSTILE = "</script><img src=x onerror=alert(1)>"
SECONDS = 10


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


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        yield browser


class Arcs:
    """Uses the arcs as a reader does."""

    def __init__(self, browser, downloads):
        self.browser, self.downloads = browser, downloads

    def get(self, id):
        return self.browser.find_element("id", id)

    def text(self, id):
        return self.get(id).text

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def choose(self, **change):
        """Choose a protein, layer, head or residue by its index, as other parts of the page do."""
        self.browser.execute_script("choose(arguments[0])", change)

    def go(self, number):
        """Type the number of a residue, and wait until its lists are shown."""
        from selenium.webdriver.common.keys import Keys

        field = self.get("arcs-residue")
        field.clear()
        field.send_keys(str(number), Keys.ENTER)
        self.until(lambda: self.get("arcs-of-residue").is_displayed())

    def rows(self, name):
        rows = self.get(f"arcs-{name}").find_elements("tag name", "tr")
        return [[cell.text for cell in row.find_elements("tag name", "td")] for row in rows]

    def num_arcs(self):
        return len(self.browser.find_elements("css selector", "#arcs-strip path"))

    def press(self, *keys):
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()


@pytest.fixture
def arcs(browser, path, tmp_path):
    """Open the page; after the test, check that it has logged no error and created no image element."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(path.as_uri())
    arcs = Arcs(browser, tmp_path)
    arcs.until(lambda: arcs.num_arcs() == 10)
    yield arcs
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0


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
        before = arcs.rows("pairs")
        arcs.get("arcs-apart").click()
        arcs.until(lambda: arcs.rows("pairs") != before)

    found = strongest_pairs(short.maps[0, 0])
    rows, columns, weights = (values[int(apart)].tolist() for values in (found.rows, found.columns, found.weights))
    for shown, row, column, weight in zip(arcs.rows("pairs"), rows, columns, weights, strict=True):
        assert shown[:2] == [name_of(short, row), name_of(short, column)]
        assert float(shown[2]) == pytest.approx(weight, rel=0.005)
        assert shown[3] == signed(column - row)
    assert arcs.num_arcs() == 10
    assert not arcs.get("arcs-of-residue").is_displayed()


def test_lists_of_a_residue_hold_what_it_attends_to_and_what_attends_to_it(arcs, short):
    arcs.choose(head=1)
    arcs.until(lambda: arcs.text("arcs-title").endswith("head 2"))
    arcs.go(111)

    weights = short.maps[0, 1]
    names = [name_of(short, index) for index in range(40)]
    for name, values in (("gives", weights[10]), ("receives", weights[:, 10])):
        shown = arcs.rows(name)
        assert 1 <= len(shown) <= 10
        highest_unlisted = max(values[index] for index in range(40) if names[index] not in [row[0] for row in shown])
        for residue, words, distance in shown:
            index = names.index(residue)
            low, high = interval(words)
            assert low <= values[index] <= high
            assert distance == (signed(index - 10) if name == "gives" else signed(10 - index))
        assert highest_unlisted <= max(high, 0.02 * values.max() * 1.2)
    assert arcs.text("arcs-gives-title") == f"{names[10]} attends to"
    assert arcs.num_arcs() == len(arcs.rows("gives")) + len(arcs.rows("receives"))
    assert arcs.text("arcs-words").startswith(f"{names[10]} attends most to {names[int(weights[10].argmax())]} (")


def test_clicking_a_letter_and_a_name_choose_residues(arcs, short):
    letter = arcs.browser.find_elements("css selector", "#arcs-strip text")[0]
    letter.click()
    arcs.until(lambda: arcs.get("arcs-residue").get_attribute("value") == "101")

    first = arcs.rows("gives")[0][0]
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
    arcs.go(999)
    assert arcs.get("arcs-residue").get_attribute("value") == "140"
    arcs.get("arcs-before").click()
    assert arcs.get("arcs-residue").get_attribute("value") == "139"
    arcs.get("arcs-after").click()
    assert arcs.get("arcs-residue").get_attribute("value") == "140"
    arcs.get("arcs-strongest").click()
    arcs.until(lambda: arcs.get("arcs-of-pairs").is_displayed())


def test_pairs_of_a_long_protein_are_single_residues_and_partners_are_blocks(arcs, make_displayed):
    long = make_displayed(id="long", num_residues=300, seed=2)
    arcs.choose(protein=1)
    arcs.until(lambda: arcs.text("arcs-title").startswith("long"))

    rows, columns = long.strongest.rows[0, 0, 0], long.strongest.columns[0, 0, 0]
    expected = [[name_of(long, row), name_of(long, column)] for row, column in zip(rows, columns, strict=True)]
    assert [row[:2] for row in arcs.rows("pairs")] == expected
    arcs.go(200)
    letters = long.sequence
    assert arcs.text("arcs-gives-title") == f"{letters[198]}199–{letters[200]}201 attends to"
    low, high = interval(arcs.rows("gives")[0][1])
    assert low <= long.maps[0, 0, 66].max() <= high


def test_long_sequence_scrolls_to_the_chosen_residue_within_its_own_frame(arcs):
    arcs.choose(protein=1)
    arcs.until(lambda: arcs.text("arcs-title").startswith("long"))
    arcs.go(300)

    strip = arcs.browser.execute_script(
        "const { scrollLeft: x, clientWidth: w, scrollWidth: all } = arcs.strip; return [x, w, all]"
    )
    assert strip[2] > strip[1]
    assert strip[0] + strip[1] == pytest.approx(strip[2], abs=2)
    assert arcs.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_whole_protein_can_be_shown_without_letters(arcs):
    assert not arcs.get("arcs-whole").is_displayed()
    arcs.choose(protein=1)
    arcs.until(lambda: arcs.get("arcs-whole").is_displayed())
    arcs.get("arcs-whole").click()

    assert arcs.browser.execute_script("return arcs.strip.scrollWidth <= arcs.strip.clientWidth")
    assert arcs.num_arcs() == 10
    labels = [label.text for label in arcs.browser.find_elements("css selector", "#arcs-strip text")]
    assert labels == ["20", "40", "60", "80", *map(str, range(100, 301, 20))]
    arcs.get("arcs-whole").click()
    assert not arcs.browser.execute_script("return arcs.strip.scrollWidth <= arcs.strip.clientWidth")


def test_paper_shows_the_whole_protein_and_the_names_of_residues(arcs):
    arcs.choose(protein=1)
    arcs.until(lambda: arcs.get("arcs-whole").is_displayed())
    arcs.browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    arcs.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    assert arcs.browser.execute_script("return arcs.strip.scrollWidth <= arcs.strip.clientWidth")
    assert arcs.get("arcs-pairs").find_element("tag name", "button").is_displayed()
    assert not arcs.get("arcs-strongest").is_displayed()
    arcs.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    arcs.browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not arcs.browser.execute_script("return arcs.strip.scrollWidth <= arcs.strip.clientWidth")


def test_pairs_of_a_mean_are_intervals_of_the_map(arcs, short):
    arcs.choose(layer=1, head=-1)
    arcs.until(lambda: "mean of its heads" in arcs.text("arcs-title"))

    mean = short.maps[1].mean(0)
    assert len(arcs.rows("pairs")) == 10
    names = [name_of(short, index) for index in range(40)]
    for first, second, words, _ in arcs.rows("pairs"):
        low, high = interval(words)
        assert low <= mean[names.index(first), names.index(second)] <= high
        assert high >= np.sort(mean, axis=None)[-10]


def test_protein_of_one_residue_has_one_pair_and_its_arc_is_a_loop(arcs):
    arcs.choose(protein=3)
    arcs.until(lambda: arcs.text("arcs-title").startswith("tiny"))

    assert len(arcs.rows("pairs")) == arcs.num_arcs() == 1
    arcs.get("arcs-apart").click()
    arcs.until(lambda: arcs.num_arcs() == 0)
    assert arcs.get("arcs-pairs-none").is_displayed()


@pytest.mark.promise(17)
def test_hostile_identifiers_and_labels_are_shown_as_text(arcs):
    arcs.choose(protein=2)
    arcs.until(lambda: arcs.text("arcs-title").startswith(HOSTILE))
    arcs.go(4)

    assert HOSTILE in arcs.text("arcs-gives-title")


def test_arcs_can_be_downloaded_as_png_and_svg(arcs, short):
    from xml.etree import ElementTree

    arcs.go(111)
    arcs.get("arcs-png").click()
    arcs.get("arcs-svg").click()
    names = [f"P12345_layer_1_head_1_arcs_{name_of(short, 10)}.{kind}" for kind in ("png", "svg")]
    png, svg = (arcs.downloads / name for name in names)
    arcs.until(lambda: all(file.exists() and file.stat().st_size for file in (png, svg)))

    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    root = ElementTree.fromstring(svg.read_bytes())
    assert len(root.findall("{http://www.w3.org/2000/svg}path")) == arcs.num_arcs()
    assert b"var(" not in svg.read_bytes()


def test_arcs_follow_the_theme_without_being_drawn_again(arcs):
    def colour():
        return arcs.browser.find_element("css selector", "#arcs-strip path").value_of_css_property("stroke")

    light = colour()
    arcs.get("theme").click()
    assert colour() != light
