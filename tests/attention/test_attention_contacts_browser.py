"""Tests of the contact map in a real browser: Debian's chromium and chromium-driver, with selenium."""

import numpy as np
import pytest

from protembed.attention.contacts import ResiduePairs
from protembed.attention.page import AttentionPage, PageContent
from protembed.attention.ranked_contacts import CONTACT, NO_CONTACT, UNKNOWN, rank_contacts

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


@pytest.fixture
def contacts(open_page, path):
    page = open_page(path)
    page.until(lambda: page.text("contacts-title"))
    return page


def show(page, protein):
    page.browser.execute_script("choose(arguments[0])", {"protein": protein})


def select(page, id, value):
    from selenium.webdriver.support.select import Select

    Select(page.get(id)).select_by_value(value)


def table(page):
    """Read the cells of each row by its name."""
    lines = page.get("contacts-rows").find_elements("tag name", "tr")
    return {
        line.find_element("tag name", "th").text: [cell.text for cell in line.find_elements("tag name", "td")]
        for line in lines
    }


def legend(page):
    return page.browser.execute_script("return contactView.picture.legend.map(({ name }) => name)")


def pair(page, row, column):
    return page.browser.execute_script("return contactView.picture.pair(arguments[0], arguments[1])", row, column)


def colours(page):
    """Count the pixels of each colour of the drawn picture."""
    return page.browser.execute_script(COUNT_COLOURS)


def test_right_wrong_and_unknown_pairs_are_counted_beside_random_pairs_and_all_proteins(contacts, scores, structure):
    ranked = rank_contacts(scores, structure)["long"]

    rows = table(contacts)
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
    assert legend(contacts) == ["right", "wrong", "unknown", "structure"]
    ranked = rank_contacts(scores, structure)["long"]
    for state, word in ((CONTACT, "right"), (NO_CONTACT, "wrong"), (UNKNOWN, "unknown")):
        index = np.flatnonzero(ranked.state == state)[0]
        assert pair(contacts, int(ranked.first[index]), int(ranked.second[index])).endswith(f", marked as {word}")
    counts = colours(contacts)
    assert min(counts["accent"], counts["contrast"], counts["fourth"], counts["grey"]) > 50


def test_downloaded_figure_has_the_marks(contacts, scores, structure):
    num_paths = contacts.browser.execute_script(
        "const frame = frameOf(FULL_WIDTH), pen = new SvgPen(frame.width, frame.height);"
        "drawPicture(pen, contactView.picture, contactView.view, frame);"
        "return pen.root.querySelectorAll('path').length"
    )

    assert num_paths == (rank_contacts(scores, structure)["long"].state != CONTACT).sum()


def test_fewer_pairs_another_distance_or_all_probabilities_can_be_chosen(contacts, scores, structure):
    marked = rank_contacts(scores, structure)
    before = colours(contacts)["contrast"]
    select(contacts, "contacts-shows", "L/5")
    assert colours(contacts)["contrast"] < before
    assert contacts.text("contacts-words").startswith("Of the 11 best long-range pairs, ")
    select(contacts, "contacts-range", "short")
    assert contacts.text("contacts-words").startswith("Of the 11 best short-range pairs, ")
    assert table(contacts)["precision"][2] == f"{marked['short'].precisions['L/5']:#.2g}"
    select(contacts, "contacts-shows", "all")
    assert legend(contacts) == ["structure"]
    assert contacts.browser.execute_script("return contactView.picture.scale.title") == "predicted"


def test_protein_without_a_structure_shows_its_best_pairs_and_no_precision(contacts):
    show(contacts, 1)
    contacts.until(lambda: contacts.text("contacts-title").endswith("new"))

    assert legend(contacts) == ["predicted"]
    assert table(contacts) == {
        "pairs": ["60", "30", "12"],
        "mean precision of all proteins with a structure": ["0.43", "undefined", "undefined"],
    }
    assert contacts.text("contacts-words").startswith("No structure of this protein was given")
    assert contacts.text("contacts-meaning").endswith(" that are predicted to be in contact.")


def test_protein_without_a_prediction_shows_its_structure_only(contacts):
    show(contacts, 2)
    contacts.until(lambda: not contacts.get("contacts-precision").is_displayed())

    assert legend(contacts) == ["structure"]
    assert contacts.text("contacts-meaning") == "Below the diagonal are the contacts of the structure."
    assert not contacts.get("contacts-shows").is_enabled()


def test_protein_with_neither_is_said_to_have_neither(contacts):
    show(contacts, 3)
    contacts.until(lambda: contacts.get("contacts-missing").is_displayed())

    assert contacts.text("contacts-missing") == "neither has neither predicted contacts nor a structure."
    assert not contacts.get("contacts").is_displayed()


def test_short_protein_says_that_it_has_too_few_pairs_at_a_distance(contacts):
    show(contacts, 4)
    contacts.until(lambda: contacts.text("contacts-title").endswith("short"))

    assert contacts.text("contacts-words").startswith("The protein has too few pairs at this distance")
    select(contacts, "contacts-range", "short")
    assert contacts.text("contacts-words").startswith("No structure of this protein was given")
