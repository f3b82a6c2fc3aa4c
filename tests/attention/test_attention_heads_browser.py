"""Tests of the page in a real browser: the list of heads, means, the sequence, themes and narrow windows."""

import pytest

ESCAPED = "</script><img src=x onerror=alert(1)>\"'\\u202e"


# The list of heads


def words(page):
    return [item.find_element("class name", "word").text for item in page.items() if item.is_displayed()]


def test_heads_are_listed_in_the_order_of_interest_with_a_bar_of_their_strength(page):
    assert words(page)[:3] == ["next residue", ESCAPED, "no clear pattern"]
    widths = [item.find_element("css selector", ".strength span").rect["width"] for item in page.items()[:3]]
    assert widths[1] == pytest.approx(widths[0] * 5 / 9, abs=1)
    assert widths[2] == 0
    marks = [item.find_elements("css selector", ".strength i") for item in page.items()[:3]]
    assert [[mark.value_of_css_property("left") != "0px" for mark in each] for each in marks] == [[True], [True], []]


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
def test_mean_map_is_shown_with_intervals_that_contain_it(page, make_displayed, lists, title, mean, interval_of):
    for name, words in lists.items():
        page.choose(name, words)
    page.until(lambda: page.title() == f"P12345: {title}")
    page.hover(11, 33, 40)

    low, high = interval_of(page.text("map-pair"))
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
    marked = page.browser.find_elements("css selector", "#sequence .site")
    assert marked == [letters(page)[index] for index in (12, 33)]
    assert letters(page)[12].get_attribute("aria-label") == f"{sequence[12]}13, binding"
    sites, slanted = "Underlined: binding (2).", "Slanted: 2 residues without coordinates in the structure."
    assert page.text("sequence-sites") == f"{sites} {slanted}"
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
