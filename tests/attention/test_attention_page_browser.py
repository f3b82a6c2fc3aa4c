"""Tests of the page in a real browser: maps, zoom, the grid of heads, and files."""

import numpy as np
import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e"
ESCAPED = "</script><img src=x onerror=alert(1)>\"'\\u202e"

# The text for each pair of a map.
READ_ALL = """
const index = arguments[0];
const map = data.proteins[0].maps[index], { peak, levels } = map, top = levels - 1;
return unpack(map).then((steps) => {
  const value = (step) => peak * (clamp(step, 0, top) / top) ** 2;
  return Array.from(steps, (step) => `: ${between(value(step - 0.5), value(step + 0.5))}`);
});
"""


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


def test_pointing_at_a_pair_shows_its_residues_and_weight(page, make_displayed, interval_of):
    protein = make_displayed()
    page.hover(11, 33, 40)
    faint = page.text("map-pair")
    page.hover(12, 12, 40)

    name = f"{protein.sequence[12]}13 (binding)"
    assert faint.startswith(f"{protein.sequence[11]}12 → {protein.sequence[33]}34 (binding): ")
    assert page.text("map-pair").startswith(f"{name} → {name}: 0.")
    low, high = interval_of(page.text("map-pair"))
    assert low <= protein.maps[0, 0, 12, 12] <= high < 1.15 * low


def test_interval_of_each_pair_contains_its_value(page, make_displayed, interval_of):
    spans = page.browser.execute_script(READ_ALL, 5)

    values = make_displayed().maps[1, 2].ravel()
    assert len(spans) == len(values)
    for text, value in zip(spans, values.tolist(), strict=True):
        low, high = interval_of(text)
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


def test_pointing_at_either_triangle_shows_prediction_and_structure(page, make_contacts, interval_of):
    row, column = np.argwhere(np.triu(make_contacts()["truth"]))[0]
    page.browser.execute_script("arguments[0].scrollIntoView()", page.get("contacts"))
    texts = []
    for cell in ((row, column), (column, row)):
        page.hover(*cell, 40, figure="contacts")
        texts.append(page.text("contacts-pair"))

    assert texts[0] == texts[1]
    assert texts[0].endswith(", in contact in the structure")
    assert f"{row + 1} – " in texts[0]
    low, high = interval_of(texts[0].split(",")[0].replace("predicted ", ""))
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
