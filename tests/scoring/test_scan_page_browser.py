"""Tests of the page of a scan in a real browser: Debian's chromium and chromium-driver, with selenium."""

import base64
import csv
import io

import numpy as np
import pytest
from browser_pages import BrowserPage

from protembed.data.alphabet import AMINO_ACIDS
from protembed.scoring.displayed_scan import ROWS
from protembed.scoring.scan_page import ScanPage

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e"


class ScanPageInBrowser(BrowserPage):
    """Uses the page of a scan as a reader does."""

    def title(self):
        return self.get("scan-canvas").get_attribute("aria-label").removeprefix("Heat map of ")

    def region(self):
        return [self.get(f"scan-{end}").get_property("value") for end in ("from", "to")]

    def offset(self, column, row, map=0):
        """Compute the offset of a cell from the centre of the canvas, in screen pixels."""
        canvas = self.get("scan-canvas")
        code = (
            "const { plot, row, width, height } = scanView.frame, top = topOfMap(scanView.frame, arguments[0]);"
            "return [plot, row, top, width, height, scanView.columns.length]"
        )
        plot, size, top, width, height, num = self.browser.execute_script(code, map)
        scale = canvas.rect["width"] / width
        x, y = 52 + plot * (column + 0.5) / num - width / 2, top + (row + 0.5) * size - height / 2
        return canvas, round(scale * x), round(scale * y)

    def hover(self, column, row, map=0):
        self.actions().move_to_element_with_offset(*self.offset(column, row, map)).perform()
        return self.text("scan-pair")

    def drag(self, start, end):
        actions = self.actions(duration=50)
        actions.move_to_element_with_offset(*self.offset(start, 3)).click_and_hold()
        actions.move_to_element_with_offset(*self.offset(end, 3)).release().perform()


@pytest.fixture(scope="module")
def scans(make_scan):
    return [
        make_scan("MKTAXIAKQR" * 4, id="P12345", first=3, has_measurements=True),
        make_scan(id=HOSTILE, seed=1),
        make_scan(id="long", num_residues=1000, seed=2),
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory, scans, add_to_page):
    page = ScanPage()
    for scan in scans:
        add_to_page(page, scan)
    path = tmp_path_factory.mktemp("scan") / "report.html"
    path.write_text(page.render("Single mutants", {"Model": "tiny"}, 3, []), encoding="utf-8")
    return path


@pytest.fixture
def page(open_in_browser, path):
    page = open_in_browser(path, ScanPageInBrowser)
    page.until(lambda: page.title() == "P12345: T3 to R40")
    return page


def cell_of(scan, residue, letter):
    """Look up the score of a mutant; residues are numbered from 1."""
    row = scan.positions.tolist().index(residue - 1)
    return scan.scores[row, AMINO_ACIDS.index(letter)]


def number_in(words, name):
    text = words.split(f"{name} ")[1].split(";")[0].split(",")[0]
    return float(text)


def test_hovering_a_cell_names_the_mutant_its_score_and_its_probability(page, scans):
    words = page.hover(4, ROWS.index("W"))  # residue 7

    scan = scans[0]
    assert words.startswith("A7W: score ")
    assert number_in(words, "score") == pytest.approx(cell_of(scan, 7, "W"), rel=5e-3)
    row = scan.positions.tolist().index(6)
    assert number_in(words, "probability") == pytest.approx(
        np.exp(scan.log_probs[row, AMINO_ACIDS.index("W")]), rel=0.06
    )
    assert number_in(words, "mean of the position") == pytest.approx(scan.means[row], rel=5e-3)
    assert number_in(words, "measured") == pytest.approx(scan.measured[row, AMINO_ACIDS.index("W")], rel=5e-3)


def test_hovering_the_map_of_measured_values_names_the_same_mutant(page):
    assert page.hover(4, 2, map=1) == page.hover(4, 2, map=0)


def test_wild_type_and_residues_without_scores_are_named_as_such(page):
    assert page.hover(1, ROWS.index("A")).startswith("A4 is the wild type, probability ")
    assert page.hover(2, 0) == "X5 is none of the 20 amino acids, and has no scores"


def test_dragging_over_the_map_chooses_residues(page):
    page.drag(5, 24)

    assert page.region() == ["8", "27"]
    assert page.title() == "P12345: K8 to A27"


def test_typing_residues_and_buttons_choose_residues(page):
    for end, value in (("from", "11"), ("to", "30")):
        page.browser.execute_script(
            f"const box = byId('scan-{end}'); box.value = {value}; box.dispatchEvent(new Event('change'))"
        )
    assert page.region() == ["11", "30"]
    page.get("scan-in").click()
    assert page.region() == ["16", "25"]
    page.get("scan-out").click()
    assert page.region() == ["11", "30"]
    page.get("scan-whole").click()
    assert page.region() == ["3", "40"]


def test_keyboard_moves_zooms_and_shows_all(page):
    from selenium.webdriver import Keys

    page.browser.execute_script("byId('scan-canvas').focus()")
    page.press("+")
    assert page.region() == ["13", "31"]
    page.press(Keys.ARROW_LEFT)
    left = page.text("scan-pair")
    page.press(Keys.ARROW_RIGHT)
    assert left[:3] != page.text("scan-pair")[:3]
    page.press("0")
    assert page.region() == ["3", "40"]


def test_overview_moves_the_chosen_residues(page):
    page.choose("scan-protein", "long")
    page.until(lambda: page.title().startswith("long: "))
    page.browser.execute_script("showRegion(0, 50)")
    overview = page.get("scan-overview")
    page.actions().move_to_element_with_offset(overview, 0, 0).click().perform()

    first, last = map(int, page.region())
    assert last - first == 49
    assert 400 < first < 600


@pytest.mark.parametrize(
    ("order", "key"), [("by mean score, the lowest first", "mean"), ("by best mutant, the best first", "best")]
)
def test_positions_are_sorted_by_their_effect(page, scans, order, key):
    page.choose("scan-order", order)

    columns = page.browser.execute_script("return scanView.columns")
    scan = scans[0]
    best = np.where(scan.scores == 0, -np.inf, scan.scores).max(1)
    ranks = np.argsort(scan.means if key == "mean" else -best, kind="stable")
    scored = [column for column in columns if "MKTAXIAKQR"[(column + 2) % 10] != "X"]
    assert columns[: len(scored)] == scored  # residues without scores are the last
    assert [column + 2 for column in scored] == scan.positions[ranks].tolist()


def test_amino_acids_are_sorted_by_letter_and_by_effect(page, scans):
    page.choose("scan-rows", "by letter")
    assert page.browser.execute_script("return scanView.rows") == "ACDEFGHIKLMNPQRSTVWY"

    page.choose("scan-rows", "by mean score, the best first")
    order = [AMINO_ACIDS[column] for column in np.argsort(-scans[0].scores.sum(0))]
    assert list(page.browser.execute_script("return scanView.rows")) == order


def test_caption_describes_the_chosen_residues(page, scans):
    scan = scans[0]
    assert f"{scan.num_favoured} of {scan.num_mutants} mutants score above the wild type" in page.text("scan-caption")
    assert str(scan.best(1)[0].mutation) in page.text("scan-caption")


def test_table_of_the_chosen_residues_has_the_numbers_of_the_scan(page, scans):
    page.browser.execute_script("showRegion(0, 12)")

    text = page.download("scan-tsv", "P12345_3-14_scan.tsv").decode()

    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    expected = [(str(mutation), score) for mutation, score in scans[0].mutants() if mutation.position <= 14]
    assert [row["mutant"] for row in rows] == [name for name, _ in expected]
    assert [row["score"] for row in rows] == [str(float(f"{score:.7g}")).removesuffix(".0") for _, score in expected]
    measured = {row["mutant"]: row["measured"] for row in rows}
    assert sum(value == "" for value in measured.values()) == 3 * 19


def test_pictures_are_saved_as_png_and_svg(page):
    assert page.download("scan-png", "P12345_3-40_scan.png")[:4] == b"\x89PNG"
    svg = page.download("scan-svg", "P12345_3-40_scan.svg").decode()
    assert svg.count("<image") == 2
    assert "P12345: T3 to R40" in svg
    assert page.download("scatter-png", "P12345_measured.png")[:4] == b"\x89PNG"
    assert "Spearman" in page.download("scatter-svg", "P12345_measured.svg").decode()


def test_scatter_plot_names_the_mutant_under_the_pointer(page, scans):
    x, y = page.browser.execute_script(
        "const { x, y } = scatter.points[40], place = scatterPlaces(); return [place.x(x), place.y(y)]"
    )
    canvas = page.get("scatter-canvas")
    scale = canvas.rect["width"] / 520
    page.actions().move_to_element_with_offset(canvas, round(scale * (x - 260)), round(scale * (y - 210))).perform()

    words = page.text("scatter-pair")
    name = words.split(":")[0]
    assert number_in(words, "score") == pytest.approx(cell_of(scans[0], int(name[1:-1]), name[-1]), rel=5e-3)


def test_protein_without_measurements_has_no_scatter_plot(page):
    page.choose("scan-protein", "long")
    page.until(lambda: page.title() == "long: " + page.title().removeprefix("long: "))

    assert page.text("scatter-missing") == "No mutant of long was measured."
    assert not page.get("scatter").is_displayed()


def test_hostile_identifier_is_shown_as_text_and_names_no_path(page, tmp_path):
    page.browser.execute_script("showProtein(1)")
    page.until(lambda: page.title().startswith("</script><img"))

    page.get("scan-tsv").click()
    page.until(lambda: list(tmp_path.glob("*.tsv")))
    (file,) = tmp_path.glob("*.tsv")
    assert "/" not in file.name
    assert "<" not in file.name


def test_theme_changes_the_colours_of_the_map(page):
    picture = "return byId('scan-canvas').toDataURL()"
    light = page.browser.execute_script(picture)

    page.get("theme").click()

    assert page.browser.execute_script(picture) != light
    page.get("theme").click()
    assert page.browser.execute_script(picture) == light


@pytest.mark.parametrize("width", [1400, 900, 400])
def test_page_fits_windows_of_any_width(page, width):
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        page.until(lambda: page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"))
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_shows_all_residues_in_lines_of_a_hundred(page):
    page.choose("scan-protein", "long")
    page.until(lambda: page.title().startswith("long: "))
    page.browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")

    assert page.browser.execute_script("return document.querySelectorAll('#scan-paper canvas').length") == 10
    page.browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert page.browser.execute_script("return document.querySelectorAll('#scan-paper canvas').length") == 0
    pdf = page.browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(base64.b64decode(pdf["data"])) > 10_000
