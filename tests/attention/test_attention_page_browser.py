"""Tests of the page in a real browser, from disk: Debian's chromium and chromium-driver, with selenium."""

import shutil
import time

import numpy as np
import pytest

from protembed.attention.head_kinds import HeadKind
from protembed.attention.page import AttentionPage, PageContent

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="there is no chromium with its driver"
)

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e"
ESCAPED = "</script><img src=x onerror=alert(1)>\"'\\u202e"
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
SECONDS = 10


@pytest.fixture(scope="module")
def path(tmp_path_factory, make_displayed, make_contacts):
    page = AttentionPage([1, 2], [1, 2, 3])
    page.add(make_displayed(id="P12345", sites={"binding": [12, 33]}, covered=range(38), **make_contacts()))
    page.add(make_displayed(id=HOSTILE, num_residues=30, first_residue=101, seed=1))
    page.add(make_displayed(id="long", num_residues=200, seed=2))
    page.add(make_displayed(id="known", seed=3, truth=make_contacts()["truth"]))
    path = tmp_path_factory.mktemp("page") / "report.html"
    content = PageContent(title="Attention", statistics=STATISTICS, kinds=KINDS)
    path.write_text(page.render(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # A window that shows each picture as a whole, because offsets are relative to the centre of its visible part.
    # Containers have neither the sandbox's rights nor much shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as browser:
        yield browser


# The text for each pair of a map.
READ_ALL = """
const index = arguments[0];
const map = data.proteins[0].maps[index], { peak, levels } = map, top = levels - 1;
return unpack(map).then((steps) => {
  const value = (step) => peak * (clamp(step, 0, top) / top) ** 2;
  return Array.from(steps, (step) => `: ${between(value(step - 0.5), value(step + 0.5))}`);
});
"""


def interval(text):
    """Parse both ends of the interval in a text."""
    words = text.split(": ")[1]
    low, high = ("0", words.removeprefix("below ")) if words.startswith("below ") else words.split("–")
    return float(low), float(high)


class Page:
    """Uses the page as a reader does."""

    def __init__(self, browser, downloads):
        self.browser, self.downloads = browser, downloads

    def get(self, id):
        return self.browser.find_element("id", id)

    def text(self, id):
        return self.get(id).text

    def title(self, figure="map"):
        return self.get(f"{figure}-canvas").get_attribute("aria-label")

    def choose(self, id, text):
        from selenium.webdriver.support.select import Select

        Select(self.get(id)).select_by_visible_text(text)

    def chosen(self):
        return [self.get(id).get_attribute("value") for id in ("protein", "layer", "head")]

    def head(self, layer, head):
        return self.get("grid").find_elements("css selector", f"tbody tr:nth-child({layer}) td")[head - 1]

    def items(self):
        """List the heads in the order of interest."""
        return self.browser.find_elements("css selector", "#ranking [role=option]")

    def press(self, *keys):
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

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
        actions = webdriver.ActionChains(self.browser, duration=0)
        actions.move_to_element_with_offset(*self.mouse(*cell, **figure)).perform()

    def drag(self, start, end, num_cells):
        actions = webdriver.ActionChains(self.browser, duration=50)
        actions.move_to_element_with_offset(*self.mouse(*start, num_cells)).click_and_hold()
        actions.move_to_element_with_offset(*self.mouse(*end, num_cells)).release().perform()

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def download(self, id, name):
        self.get(id).click()
        file = self.downloads / name
        self.until(lambda: file.exists() and file.stat().st_size > 0)
        return file.read_bytes()


@pytest.fixture
def page(browser, path, tmp_path):
    """Open the page; after the test, check that it has logged no error and created no image element."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(path.as_uri())
    page = Page(browser, tmp_path)
    page.until(lambda: page.title() == "P12345: layer 1, head 1")
    yield page
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0


def test_protein_layer_and_head_can_be_selected_from_lists(page):
    page.choose("layer", "2")
    page.choose("head", "3")
    page.until(lambda: page.title() == "P12345: layer 2, head 3")
    page.choose("protein", "long")
    page.until(lambda: page.title() == "long: layer 2, head 3")

    assert page.text("about-title") == "Layer 2, head 3"
    page.browser.find_element("css selector", "details.numbers summary").click()
    assert page.text("about").split("\n") == ["entropy (nats)", "undefined", "mean distance (residues)", "4"]
    assert page.head(2, 3).get_attribute("aria-selected") == "true"


@pytest.mark.promise(17)
def test_hostile_identifier_is_shown_as_text(page):
    page.choose("protein", ESCAPED)

    page.until(lambda: page.title() == f"{ESCAPED}: layer 1, head 1")
    assert page.items()[1].text.split("\n") == [ESCAPED[:60], "Layer 2, head 2", ESCAPED]


def test_clicking_the_grid_shows_the_head(page):
    page.head(2, 2).click()

    page.until(lambda: page.title() == "P12345: layer 2, head 2")
    assert page.chosen() == ["0", "1", "1"]
    assert page.text("grid-head") == "layer 2, head 2: entropy (nats) 5.5"


def test_arrow_keys_move_over_the_grid_and_enter_shows_the_head(page):
    from selenium.webdriver.common.keys import Keys

    page.get("grid-svg").send_keys(Keys.TAB)
    assert page.browser.switch_to.active_element == page.head(1, 1)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert page.chosen() == ["0", "0", "0"]
    assert page.browser.switch_to.active_element == page.head(2, 2)
    assert page.head(2, 2).value_of_css_property("outline-style") == "solid"
    page.press(Keys.ENTER)

    page.until(lambda: page.title() == "P12345: layer 2, head 2")
    assert page.browser.switch_to.active_element == page.head(2, 2)


def test_grid_is_coloured_by_the_selected_statistic(page):
    def colours():
        return [page.head(layer, head).value_of_css_property("background-color") for layer, head in ((1, 1), (2, 3))]

    lowest, undefined = colours()
    assert (page.text("low"), page.text("high")) == ("1", "5.5")
    page.choose("statistic", "mean distance (residues)")

    assert (page.text("low"), page.text("high")) == ("4", "9")
    assert colours()[1] == lowest
    assert undefined == "rgba(220, 222, 227, 1)"


def test_pointing_at_a_pair_shows_its_residues_and_weight(page, make_displayed):
    protein = make_displayed()
    page.hover(11, 33, 40)
    faint = page.text("map-pair")
    page.hover(12, 12, 40)

    name = f"{protein.sequence[12]}13 (binding)"
    assert faint.startswith(f"{protein.sequence[11]}12 → {protein.sequence[33]}34 (binding): ")
    assert page.text("map-pair").startswith(f"{name} → {name}: 0.")
    low, high = interval(page.text("map-pair"))
    assert low <= protein.maps[0, 0, 12, 12] <= high < 1.15 * low


def test_interval_of_each_pair_contains_its_value(page, make_displayed):
    spans = page.browser.execute_script(READ_ALL, 5)

    values = make_displayed().maps[1, 2].ravel()
    assert len(spans) == len(values)
    for text, value in zip(spans, values.tolist(), strict=True):
        low, high = interval(text)
        assert low <= value <= high


def test_labelled_residues_are_listed_in_the_caption(page):
    assert page.text("map-sites").startswith("Marks at the edges: binding (")
    page.choose("protein", "long")
    page.until(lambda: page.title().startswith("long"))
    assert page.text("map-sites") == ""


def test_contact_map_without_a_prediction_shows_the_structure_only(page):
    page.choose("protein", "known")
    page.until(lambda: page.title("contacts") == "known: contacts in the structure")

    assert not page.get("contacts-precision").is_displayed()
    svg = page.download("contacts-svg", "known_contacts.svg")
    assert b">structure<" in svg
    assert b">predicted<" not in svg
    page.choose("protein", "P12345")
    page.until(lambda: page.title("contacts") == "P12345: contacts")


def test_residue_numbers_begin_at_the_region(page):
    page.choose("protein", ESCAPED)
    page.until(lambda: page.title().startswith(ESCAPED))
    page.hover(0, 29, 30)

    assert "101 → " in page.text("map-pair")
    assert "130: " in page.text("map-pair")


def test_blocks_of_a_long_protein_are_named_by_first_and_last_residue(page, make_displayed):
    page.choose("protein", "long")
    page.until(lambda: page.title().startswith("long"))
    page.hover(0, 99, 100)

    letters = make_displayed(num_residues=200, seed=2).sequence
    assert page.text("map-pair").startswith(f"{letters[0]}1–{letters[1]}2 → {letters[198]}199–{letters[199]}200: ")
    assert page.text("map-pair").endswith(", the maximum of the block")
    assert (
        page.text("map-caption")
        == f"Rows {letters[0]}1 to {letters[199]}200, columns {letters[0]}1 to {letters[199]}200."
    )


def test_caption_describes_the_blocks_of_a_long_protein(page):
    assert page.text("map-blocks") == ""
    page.choose("protein", "long")
    page.until(lambda: page.title().startswith("long"))

    note = "Each cell shows the maximum of a block of 2 × 2 residues; the protein has 200 residues."
    assert page.text("map-blocks") == note
    page.choose("protein", "P12345")
    page.until(lambda: page.title().startswith("P12345") and page.text("map-blocks") == "")


def test_dragging_zooms_and_double_clicking_shows_all(page, make_displayed):
    letters, whole = make_displayed().sequence, page.text("map-caption")
    page.drag((10, 20), (19, 29), 40)

    columns = f"{letters[20]}21 to {letters[29]}30"
    assert page.text("map-caption") == f"Rows {letters[10]}11 to {letters[19]}20, columns {columns}."
    page.hover(0, 9, 10)
    assert page.text("map-pair").startswith(f"{letters[10]}11 → {letters[29]}30: ")
    page.choose("head", "2")  # the next head is shown at the same zoom
    page.until(lambda: page.title() == "P12345: layer 1, head 2")
    assert columns in page.text("map-caption")
    webdriver.ActionChains(page.browser).double_click(page.get("map-canvas")).perform()
    assert page.text("map-caption") == whole


def test_buttons_zoom_and_show_all(page):
    whole, before = page.text("map-caption"), page.get("map-canvas").screenshot_as_png
    page.get("map-in").click()
    once = page.text("map-caption")
    page.get("map-in").click()

    assert len({whole, once, page.text("map-caption")}) == 3
    assert page.get("map-canvas").screenshot_as_png != before
    page.get("map-out").click()
    assert page.text("map-caption") == once
    page.get("map-whole").click()
    assert page.text("map-caption") == whole


def test_keys_move_zoom_and_show_all(page, make_displayed):
    from selenium.webdriver.common.keys import Keys

    letters, whole = make_displayed().sequence, page.text("map-caption")
    page.get("map-canvas").send_keys(Keys.ARROW_UP)
    assert page.text("map-pair").startswith(f"{letters[19]}20 → {letters[20]}21: ")
    page.press("++")
    assert page.text("map-caption") != whole
    page.get("map-canvas").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)  # out of the visible part
    assert page.text("map-pair").startswith(f"{letters[29]}30 → {letters[30]}31: ")
    assert f"{letters[30]}31." in page.text("map-caption")
    page.press("-")
    page.press("0")
    assert page.text("map-caption") == whole


def test_pointing_at_either_triangle_shows_prediction_and_structure(page, make_contacts):
    row, column = np.argwhere(np.triu(make_contacts()["truth"]))[0]
    page.browser.execute_script("arguments[0].scrollIntoView()", page.get("contacts"))
    texts = []
    for cell in ((row, column), (column, row)):
        page.hover(*cell, 40, figure="contacts")
        texts.append(page.text("contacts-pair"))

    assert texts[0] == texts[1]
    assert texts[0].endswith(", in contact in the structure")
    assert f"{row + 1} – " in texts[0]
    low, high = interval(texts[0].split(",")[0].replace("predicted ", ""))
    assert low <= make_contacts()["contacts"][row, column] <= high
    page.choose("protein", "long")  # without contacts
    page.until(lambda: not page.get("contacts").is_displayed())
    page.choose("protein", "P12345")
    page.until(lambda: page.get("contacts").is_displayed())


@pytest.mark.parametrize(
    ("figure", "name", "words"),
    [
        ("map", "P12345_layer_1_head_1", ["P12345: layer 1, head 1", "residue that it attends to"]),
        ("contacts", "P12345_contacts", ["P12345: contacts", "structure"]),
        ("grid", "heads_by_entropy", ["entropy (nats)", "5.5"]),
    ],
)
def test_figures_can_be_downloaded_as_png_and_svg(page, figure, name, words):
    from xml.etree import ElementTree

    png, svg = page.download(f"{figure}-png", f"{name}.png"), page.download(f"{figure}-svg", f"{name}.svg")

    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert svg.startswith(b'<svg xmlns="http://www.w3.org/2000/svg"')
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert set(words) <= set(texts)
    assert (b"data:image/png;base64," in svg) == (figure != "grid")


@pytest.mark.promise(17)
def test_figure_of_a_hostile_identifier_has_a_safe_file_name(page):
    page.choose("protein", ESCAPED)
    page.until(lambda: page.title().startswith(ESCAPED))

    svg = page.download("map-svg", "_script_img_src_x_onerror_alert_1_u202e_layer_1_head_1.svg")
    assert b"<img" not in svg
    assert b"&lt;img src=x" in svg


# The list of heads


def words(page):
    return [item.find_element("class name", "word").text for item in page.items() if item.is_displayed()]


def test_heads_are_listed_in_the_order_of_interest_with_a_bar_of_their_strength(page):
    assert words(page)[:3] == ["next residue", ESCAPED[:59] + "…" if len(ESCAPED) > 60 else ESCAPED, "no clear pattern"]
    widths = [item.find_element("css selector", ".strength span").rect["width"] for item in page.items()[:3]]
    assert widths[1] == pytest.approx(widths[0] * 5 / 9, abs=1)
    assert widths[2] == 0


def test_buttons_list_the_heads_of_one_kind(page):
    buttons = page.browser.find_elements("css selector", "#kinds button")
    assert [button.text for button in buttons] == ["all 6", "next residue 1", "amino acids 1", "no clear pattern 4"]
    buttons[3].click()

    assert words(page) == 4 * ["no clear pattern"]
    assert buttons[3].get_attribute("aria-pressed") == "true"
    assert page.title() == "P12345: layer 1, head 1"
    buttons[0].click()
    assert len(words(page)) == 6


def test_arrow_keys_show_the_next_listed_head(page):
    from selenium.webdriver.common.keys import Keys

    page.browser.execute_script("arguments[0].focus()", page.items()[0])
    page.press(Keys.ARROW_DOWN)
    page.until(lambda: page.title() == "P12345: layer 2, head 2")
    assert page.browser.switch_to.active_element == page.items()[1]
    page.press(Keys.END)

    page.until(lambda: page.title() == "P12345: layer 2, head 3")
    assert page.items()[5].get_attribute("aria-selected") == "true"
    assert page.browser.execute_script("return document.querySelectorAll('#ranking [tabindex=\"0\"]').length") == 1


def test_each_listed_head_has_a_picture_of_the_chosen_protein(page):
    def picture():
        return page.browser.execute_script("return arguments[0].firstChild.toDataURL()", page.items()[1])

    page.until(lambda: page.items()[1].get_attribute("data-drawn") == "0 light")
    first = picture()
    page.choose("protein", "known")
    page.until(lambda: page.items()[1].get_attribute("data-drawn") == "3 light" and picture() != first)


@pytest.mark.parametrize(
    ("lists", "title", "mean"),
    [
        ({"head": "mean of the layer", "layer": "2"}, "layer 2, mean of its heads", lambda maps: maps[1].mean(0)),
        ({"layer": "mean of all heads"}, "mean of all heads", lambda maps: maps.mean((0, 1))),
    ],
    ids=["layer", "all"],
)
def test_mean_map_is_shown_with_intervals_that_contain_it(page, make_displayed, lists, title, mean):
    for name, words in lists.items():
        page.choose(name, words)
    page.until(lambda: page.title() == f"P12345: {title}")
    page.hover(11, 33, 40)

    low, high = interval(page.text("map-pair"))
    assert low <= mean(make_displayed().maps)[11, 33] <= high
    assert page.text("about-title") == title[0].upper() + title[1:]
    page.choose("layer", "1")
    page.until(lambda: page.title().startswith("P12345: layer 1, "))


# The sequence


def letters(page):
    return page.browser.find_elements("css selector", "#sequence [role=option]")


def shades(page):
    return [letter.value_of_css_property("background-color") for letter in letters(page)]


def test_sequence_marks_sites_and_residues_without_structure(page, make_displayed):
    sequence = make_displayed().sequence

    assert "".join(letter.text for letter in letters(page)) == sequence
    marked = page.browser.execute_script(
        "return letters.flatMap((each, i) => each.classList.contains('site') ? [i] : [])"
    )
    assert marked == [12, 33]
    assert letters(page)[12].get_attribute("aria-label") == f"{sequence[12]}13, binding"
    assert (
        page.text("sequence-sites") == "Underlined: binding (2). Grey: 2 residues without coordinates in the structure."
    )
    page.choose("protein", ESCAPED)
    assert [number.text for number in page.browser.find_elements("css selector", "#sequence .number")] == [
        "101",
        "111",
        "121",
    ]


def test_choosing_a_residue_shades_what_it_attends_to(page, make_displayed):
    assert len(set(shades(page))) == 1
    letters(page)[7].click()
    page.until(lambda: len(set(shades(page))) > 1)

    row = make_displayed().maps[0, 0, 7]
    darkest = min(shades(page), key=lambda colour: sum(map(int, colour.strip("rgba()").split(",")[:3])))
    assert shades(page)[int(row.argmax())] == darkest
    assert letters(page)[7].get_attribute("aria-selected") == "true"
    letters(page)[7].click()
    page.until(lambda: len(set(shades(page))) == 1)


def test_keys_move_over_the_sequence_and_choose_a_residue(page):
    from selenium.webdriver.common.keys import Keys

    page.browser.execute_script("arguments[0].focus()", letters(page)[0])
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ENTER)

    page.until(lambda: page.browser.execute_script("return chosen.residue") == 11)
    assert page.browser.switch_to.active_element == letters(page)[11]


# Light and dark, and narrow windows


def test_drawings_follow_the_theme_and_files_are_light(page):
    corner = """
        const copy = element("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
        copy.drawImage(byId("map-canvas"), 0, 0);
        return [...copy.getImageData(0, 0, 1, 1).data];
    """
    assert page.browser.execute_script(corner) == [255, 255, 255, 255]
    page.get("theme").click()

    page.until(lambda: page.browser.execute_script(corner) == [0x16, 0x17, 0x1A, 255])
    assert b'fill="#ffffff"' in page.download("map-svg", "P12345_layer_1_head_1.svg")


def test_map_keeps_the_size_of_its_text_in_a_narrow_window(page):
    wide = page.browser.execute_script("return mapView.frame.width")
    size = {"width": 400, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.until(lambda: page.browser.execute_script("return mapView.frame.width") < 0.7 * wide)
        width = page.get("map-canvas").rect["width"]
        assert width == pytest.approx(page.browser.execute_script("return mapView.frame.width"), abs=1)
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
