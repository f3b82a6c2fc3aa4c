"""Tests of the contact map in a real browser: Debian's chromium and chromium-driver, with selenium."""

import shutil
import time

import numpy as np
import pytest

from protembed.attention.contacts import ResiduePairs
from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.ranked_contacts import CONTACT, NO_CONTACT, UNKNOWN, rank_contacts

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="there is no chromium with its driver"
)

SECONDS = 10
NUM_RESIDUES = 60
OVERALL = {"long": {"L": {"value": 0.4321, "low": 0.3, "high": 0.5, "random": 0.05}}}


@pytest.fixture(scope="module")
def structure():
    """A structure in which the residues 5 to 7 lack coordinates."""
    contacts = np.triu(np.random.default_rng(1).random((NUM_RESIDUES, NUM_RESIDUES)) < 0.1, 6)
    is_known = np.ones(NUM_RESIDUES, bool)
    is_known[5:8] = False
    contacts &= np.outer(is_known, is_known)
    return ResiduePairs.from_contact_map(contacts | contacts.T, np.outer(is_known, is_known), "A" * NUM_RESIDUES)


@pytest.fixture(scope="module")
def scores(structure):
    """Scores of which some are right, some wrong, and the highest unknown."""
    upper = np.triu(0.3 * np.random.default_rng(2).random((NUM_RESIDUES, NUM_RESIDUES)) + 0.3 * structure.contact_map())
    upper[6, 50] = 0.9
    return upper + upper.T


@pytest.fixture(scope="module")
def path(tmp_path_factory, make_displayed, structure, scores):
    page = AttentionPage([1, 2], [1, 2, 3])
    truth = structure.contact_map()
    ranked = rank_contacts(scores, structure)
    page.add(make_displayed(NUM_RESIDUES, id="known", contacts=scores, truth=truth, ranked=ranked))
    page.add(make_displayed(NUM_RESIDUES, id="new", contacts=scores, ranked=rank_contacts(scores, None)))
    page.add(make_displayed(NUM_RESIDUES, id="unpredicted", truth=truth))
    page.add(make_displayed(NUM_RESIDUES, id="neither"))
    page.add(make_displayed(25, id="short", contacts=scores[:25, :25], ranked=rank_contacts(scores[:25, :25], None)))
    path = tmp_path_factory.mktemp("contacts") / "report.html"
    content = PageContent(title="Attention", precisions=OVERALL, ranking="Ranked by a head.")
    path.write_text(page.render(content), encoding="utf-8")
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


# The canvas is read from a copy, because Chromium warns of a canvas that is drawn to and read several times.
COUNT_COLOURS = """
const { canvas } = contactView, { width, height } = canvas, counts = {};
const copy = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
copy.drawImage(canvas, 0, 0);
const { data: values } = copy.getImageData(0, 0, width, height);
for (let pixel = 0; pixel < values.length; pixel += 4) {
  const colour = values.slice(pixel, pixel + 3).join();
  counts[colour] = (counts[colour] ?? 0) + 1;
}
const names = ["accent", "contrast", "fourth", "grey"];
return Object.fromEntries(names.map((name) => [name, counts[channels(THEMES.light[name]).join()] ?? 0]));
"""


class Contacts:
    """Uses the contact map as a reader does."""

    def __init__(self, browser):
        self.browser = browser

    def get(self, id):
        return self.browser.find_element("id", id)

    def text(self, id):
        return self.get(id).text

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def show(self, protein):
        self.browser.execute_script("choose(arguments[0])", {"protein": protein})

    def select(self, id, value):
        from selenium.webdriver.support.select import Select

        Select(self.get(id)).select_by_value(value)

    def rows(self):
        lines = self.get("contacts-rows").find_elements("tag name", "tr")
        return {
            line.find_element("tag name", "th").text: [cell.text for cell in line.find_elements("tag name", "td")]
            for line in lines
        }

    def legend(self):
        return self.browser.execute_script("return contactView.picture.legend.map(({ name }) => name)")

    def pair(self, row, column):
        return self.browser.execute_script("return contactView.picture.pair(arguments[0], arguments[1])", row, column)

    def colours(self):
        """Count the pixels of each colour of the drawn picture."""
        return self.browser.execute_script(COUNT_COLOURS)


@pytest.fixture
def contacts(browser, path):
    """Open the page; after the test, check that it has logged no error."""
    browser.get(path.as_uri())
    contacts = Contacts(browser)
    contacts.until(lambda: contacts.get("contacts-title").text)
    yield contacts
    assert browser.get_log("browser") == []


def test_right_wrong_and_unknown_pairs_are_counted_beside_random_pairs_and_all_proteins(contacts, scores, structure):
    ranked = rank_contacts(scores, structure)["long"]

    rows = contacts.rows()
    for column, name in enumerate(("L", "L/2", "L/5")):
        states = ranked.state[: ranked.num_top[name]]
        assert [rows[words][column] for words in ("right", "wrong", "unknown (without coordinates)")] == [
            str((states == state).sum()) for state in (CONTACT, NO_CONTACT, UNKNOWN)
        ]
        assert rows["precision"][column] == f"{ranked.precisions[name]:#.2g}"
        assert rows["precision of random pairs"][column] == f"{ranked.random:#.2g}"
    assert rows["mean precision of all proteins with a structure"] == ["0.43", "undefined", "undefined"]
    right = (ranked.state == CONTACT).sum()
    assert contacts.text("contacts-words").startswith(
        f"Of the 57 best long-range pairs, {right} touch in the structure"
    )


def test_marks_distinguish_right_wrong_and_unknown_pairs(contacts, scores, structure):
    assert contacts.legend() == ["right", "wrong", "unknown", "structure"]
    ranked = rank_contacts(scores, structure)["long"]
    for state, word in ((CONTACT, "right"), (NO_CONTACT, "wrong"), (UNKNOWN, "unknown")):
        index = np.flatnonzero(ranked.state == state)[0]
        assert contacts.pair(int(ranked.first[index]), int(ranked.second[index])).endswith(f", marked as {word}")
    colours = contacts.colours()
    assert min(colours["accent"], colours["contrast"], colours["fourth"], colours["grey"]) > 50


def test_downloaded_figure_has_the_marks(contacts, scores, structure):
    num_paths = contacts.browser.execute_script(
        "const frame = frameOf(FULL_WIDTH), pen = new SvgPen(frame.width, frame.height);"
        "drawPicture(pen, contactView.picture, contactView.view, frame);"
        "return pen.root.querySelectorAll('path').length"
    )

    assert num_paths == (rank_contacts(scores, structure)["long"].state != CONTACT).sum()


def test_fewer_pairs_another_distance_or_all_probabilities_can_be_chosen(contacts, scores, structure):
    marked = rank_contacts(scores, structure)
    before = contacts.colours()["contrast"]
    contacts.select("contacts-shows", "L/5")
    assert contacts.colours()["contrast"] < before
    assert contacts.text("contacts-words").startswith("Of the 11 best long-range pairs, ")
    contacts.select("contacts-range", "short")
    assert contacts.text("contacts-words").startswith("Of the 11 best short-range pairs, ")
    assert contacts.rows()["precision"][2] == f"{marked['short'].precisions['L/5']:#.2g}"
    contacts.select("contacts-shows", "all")
    assert contacts.legend() == ["structure"]
    assert contacts.browser.execute_script("return contactView.picture.scale.title") == "predicted"


def test_protein_without_a_structure_shows_its_best_pairs_and_no_precision(contacts):
    contacts.show(1)
    contacts.until(lambda: contacts.text("contacts-title").endswith("new"))

    assert contacts.legend() == ["predicted"]
    assert contacts.rows() == {
        "pairs": ["60", "30", "12"],
        "mean precision of all proteins with a structure": ["0.43", "undefined", "undefined"],
    }
    assert contacts.text("contacts-words").startswith("No structure of this protein was given")


def test_protein_without_a_prediction_shows_its_structure_only(contacts):
    contacts.show(2)
    contacts.until(lambda: not contacts.get("contacts-precision").is_displayed())

    assert contacts.legend() == ["structure"]
    assert not contacts.get("contacts-shows").is_enabled()


def test_protein_with_neither_is_said_to_have_neither(contacts):
    contacts.show(3)
    contacts.until(lambda: contacts.get("contacts-missing").is_displayed())

    assert contacts.text("contacts-missing") == "neither has neither predicted contacts nor a structure."
    assert not contacts.get("contacts").is_displayed()


def test_short_protein_says_that_it_has_too_few_pairs_at_a_distance(contacts):
    contacts.show(4)
    contacts.until(lambda: contacts.text("contacts-title").endswith("short"))

    assert contacts.text("contacts-words").startswith("The protein has too few pairs at this distance")
    contacts.select("contacts-range", "short")
    assert contacts.text("contacts-words").startswith("No structure of this protein was given")
