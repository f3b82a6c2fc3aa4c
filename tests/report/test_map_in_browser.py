"""The controls of a map in a real browser."""

import numpy as np
import pytest

from protembed.config.map import ProjectionName
from protembed.report.page import render_page
from protembed.search.annotations import Annotation
from protembed.search.map_page import make_page
from protembed.search.protein_map import ProteinMap

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

NUM_PROTEINS = 300
META = {"layer": [6], "pooling": ["mean"], "dim": 320, "model_name": "protembed_t6_8M"}
HOSTILE = '</script><img src=x onerror="document.title=1">'


def sample_map(number):
    """Make a map of three groups of proteins, whose nearest are those before them."""
    rng = np.random.default_rng(0)
    groups = np.arange(number) % 3
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=np.float32)
    points: dict[ProjectionName, np.ndarray] = {
        "pca": (rng.normal(size=(number, 2))).astype(np.float32),
        "tsne": (centres[groups] + rng.normal(size=(number, 2))).astype(np.float32),
    }
    nearest = (np.arange(number)[:, None] - np.arange(1, 6)) % number
    return ProteinMap(
        ids=[HOSTILE, *(f"protein {row}" for row in range(1, number))],
        descriptions=["", *(f"of group {group}" for group in groups[1:])],
        points=points,
        explained=[0.2, 0.1],
        colours=[
            Annotation(name="group", values=None, classes=["a", "b", "c"], codes=groups.tolist()),
            Annotation(name="length", values=[float(row) for row in range(number)]),
        ],
        neighbours=nearest,
        cosines=np.tile(np.linspace(0.9, 0.5, 5), (number, 1)),
        sequences=[f"MK{'A' * (row % 300)}" for row in range(number)],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.html"
    path.write_text(render_page(make_page(sample_map(NUM_PROTEINS), [META], "protembed map p.npy")), encoding="utf-8")
    return path


@pytest.fixture
def page(open_in_browser, path):
    return open_in_browser(path).browser


def click(page, identifier):
    page.find_element("id", identifier).click()


def place_of(page, row):
    """Return where a protein is on the canvas, from its middle, in pixels."""
    script = """
    const { width, height } = picture.size, { x, y } = projection();
    const [left, top] = picture.place(x[arguments[0]], y[arguments[0]]);
    return [left - width / 2, top - height / 2];
    """
    return [round(value) for value in page.execute_script(script, row)]


def choose_on_canvas(page, row):
    canvas = page.find_element("id", "map-canvas")
    webdriver.ActionChains(page).move_to_element_with_offset(canvas, *place_of(page, row)).click().perform()


def saved(page, button):
    """Click a button that saves a file; return the text of the file."""
    page.execute_script("window.save = (blob) => blob.text().then((text) => (window.savedText = text));")
    page.execute_script("window.savedText = null; save = window.save;")
    click(page, button)
    wait = "const done = arguments[0]; (function look() { savedText ? done(savedText) : setTimeout(look, 20); })();"
    return page.execute_async_script(wait)


def test_hovering_names_the_protein_under_the_pointer(page):
    canvas = page.find_element("id", "map-canvas")
    webdriver.ActionChains(page).move_to_element_with_offset(canvas, *place_of(page, 17)).perform()

    words = page.find_element("id", "map-words").text
    assert words.startswith("protein") and "group:" in words and "of group" in words


def test_chosen_protein_shows_its_nearest_which_can_be_chosen_in_turn(page):
    page.execute_script("choose({ protein: 17 })")
    nearest = page.find_elements("css selector", "#map-neighbours button")

    assert page.find_element("id", "map-name").text == "protein 17"
    assert [button.text.split("\n") for button in nearest][0] == ["protein 16", "0.90"]

    nearest[1].click()
    assert page.find_element("id", "map-name").text == "protein 15"


def test_click_on_a_point_chooses_it_and_escape_chooses_nothing(page):
    choose_on_canvas(page, 17)
    assert page.find_element("id", "map-name").text.startswith("protein")

    page.find_element("id", "map-canvas").send_keys("\ue00c")
    assert not page.find_element("id", "map-chosen").is_displayed()


def test_legend_switches_classes_off_and_on(page):
    before = page.execute_script("return [...data.ids.keys()].filter(isShown).length")
    page.find_elements("css selector", "#map-legend button")[0].click()
    less = page.execute_script("return [...data.ids.keys()].filter(isShown).length")
    click(page, "map-none")
    none = page.execute_script("return [...data.ids.keys()].filter(isShown).length")
    click(page, "map-all")

    assert (before, less, none) == (300, 200, 0)
    assert page.execute_script("return [...data.ids.keys()].filter(isShown).length") == 300


def test_other_colours_and_projections_can_be_chosen(page):
    page.find_element("css selector", "#map-colour option:nth-child(2)").click()
    assert page.find_element("id", "map-low").text == "6" and not page.find_element("id", "map-legend").is_displayed()

    page.find_element("css selector", "[data-projection='0']").click()
    assert "PCA" in page.find_element("id", "map-reading").text
    assert page.execute_script("return projection().name") == "pca"


def test_points_of_all_values_are_seen_on_a_light_and_a_dark_page(page):
    luminance = """
    const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const colours = THEMES[arguments[0]];
    const shades = [0, 0.5, 1].map((fraction) => luminance(shadeOf(fraction, colours).match(/\\d+/g).map(Number)));
    return [luminance(channels(colours.surface)), shades];
    """
    for name in ("light", "dark"):
        surface, shades = page.execute_script(luminance, name)
        assert all((max(shade, surface) + 0.05) / (min(shade, surface) + 0.05) > 1.5 for shade in shades), name


def test_equal_values_have_the_middle_colour(page):
    assert page.execute_script("return [fractionOf(70, 70, 70), fractionOf(1, 0, 4)]") == [0.5, 0.25]


def test_search_finds_identifiers_and_descriptions(page):
    field = page.find_element("id", "map-find")
    field.send_keys("PROTEIN 29")
    found = [button.text for button in page.find_elements("css selector", "#map-found button")]
    assert found == ["protein 29", *(f"protein 29{digit}" for digit in range(10))]

    page.find_elements("css selector", "#map-found button")[0].click()
    assert page.find_element("id", "map-name").text == "protein 29"

    field.clear()
    field.send_keys("nothing like it")
    assert page.find_element("id", "map-found").text == "No protein has these letters."


def test_wheel_and_keys_zoom_and_move_and_show_all_returns(page):
    canvas = page.find_element("id", "map-canvas")
    canvas.send_keys("+")
    zoomed = page.execute_script("return picture.zoom")
    before = page.execute_script("return picture.centre[0]")
    canvas.send_keys("\ue014")
    after = page.execute_script("return picture.centre[0]")
    click(page, "map-whole")

    assert zoomed > 1 and after > before
    assert page.execute_script("return picture.zoom") == 1


def test_lasso_selects_the_points_inside_it(page):
    click(page, "map-lasso")
    canvas = page.find_element("id", "map-canvas")
    size = page.execute_script("return picture.size")
    half = [int(size["width"] / 2) - 3, int(size["height"] / 2) - 3]
    corners = [(-half[0], -half[1]), (half[0], -half[1]), (half[0], half[1]), (-half[0], half[1])]
    chain = webdriver.ActionChains(page).move_to_element_with_offset(canvas, *corners[0]).click_and_hold()
    for corner in (*corners[1:], corners[0]):
        chain.move_to_element_with_offset(canvas, *corner)
    chain.release().perform()

    assert page.find_element("id", "map-selected").text == "300 proteins"
    click(page, "map-clear")
    assert not page.execute_script("return chosen.selected.size")


def test_selection_is_saved_as_table_and_fasta(page):
    page.execute_script("choose({ selected: new Set([2, 1]) })")

    table = saved(page, "map-tsv").splitlines()
    fasta = saved(page, "map-fasta")

    assert table[0].split("\t") == ["id", "description", "tsne_1", "tsne_2", "group", "length"]
    assert [line.split("\t")[0] for line in table[1:]] == ["protein 1", "protein 2"]
    assert fasta == ">protein 1 of group 1\nMKA\n>protein 2 of group 2\nMKAA\n"


def test_saved_table_has_the_coordinates_of_the_points(page):
    points = sample_map(NUM_PROTEINS).points["tsne"]

    rows = [line.split("\t") for line in saved(page, "map-tsv").splitlines()[1:]]

    stored = np.array([[float(row[2]), float(row[3])] for row in rows])
    np.testing.assert_allclose(stored, points, atol=1e-3)


def test_picture_is_saved_as_svg_with_a_legend(page):
    svg = saved(page, "map-svg")
    assert svg.startswith("<svg") and "300 proteins, t-SNE" in svg and ">group<" in svg
    assert svg.count("h.01") == 303  # the points, and the dots of the legend


def test_hostile_identifiers_are_text(page):
    page.execute_script("choose({ protein: 0 })")
    assert page.find_element("id", "map-name").text == HOSTILE
    assert page.title != "1"


def test_points_too_many_for_circles_are_drawn(open_in_browser, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(render_page(make_page(sample_map(20_001), [META], "protembed map p.npy")), encoding="utf-8")

    browser = open_in_browser(path).browser

    colours = """
    picture.drawNow();
    const { width, height } = picture.canvas;
    const pixels = picture.canvas.getContext("2d").getImageData(0, 0, width, height);
    return new Set(new Uint32Array(pixels.data.buffer)).size;
    """
    assert browser.execute_script("return numProteins > FEW") and browser.execute_script(colours) >= 4
