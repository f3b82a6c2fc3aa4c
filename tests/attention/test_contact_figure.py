from contextlib import contextmanager

import numpy as np
import pytest
from matplotlib.figure import Figure

from protembed.attention.contact_figure import draw_contacts
from protembed.attention.contacts import ResiduePairs
from protembed.attention.ranked_contacts import CONTACT, NO_CONTACT, UNKNOWN, rank_contacts
from protembed.text import format_share

NUM_RESIDUES = 60


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Return a function that draws the contacts of a protein, and returns the axes."""

    def run(protein):
        figure = Figure()

        @contextmanager
        def unsaved(path, width, height):
            yield figure

        monkeypatch.setattr("protembed.attention.contact_figure.figure_file", unsaved)
        draw_contacts(tmp_path / "contacts.png", protein)
        return figure.axes[0]

    return run


@pytest.fixture
def structure():
    upper = np.triu(np.random.default_rng(1).random((NUM_RESIDUES, NUM_RESIDUES)) < 0.1, 6)
    is_known = np.arange(NUM_RESIDUES) != 20
    upper &= np.outer(is_known, is_known)
    return ResiduePairs.from_contact_map(upper | upper.T, np.outer(is_known, is_known), "A" * NUM_RESIDUES)


@pytest.fixture
def scores(structure):
    upper = np.triu(np.random.default_rng(2).random((NUM_RESIDUES, NUM_RESIDUES)), 1) + structure.contact_map()
    upper[20, 50] = 3
    return np.triu(upper) / 3 + np.triu(upper).T / 3


def test_right_wrong_and_unknown_pairs_are_marked_above_the_diagonal(draw, make_displayed, structure, scores):
    ranked = rank_contacts(scores, structure)
    values = {"contacts": scores, "truth": structure.contact_map(), "ranked": ranked, "first_residue": 101}
    axes = draw(make_displayed(NUM_RESIDUES, **values))

    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    assert set(lines) == {"structure", "right", "wrong", "unknown: no coordinates"}
    for state, name in ((CONTACT, "right"), (NO_CONTACT, "wrong"), (UNKNOWN, "unknown: no coordinates")):
        is_of_state = ranked["long"].state == state
        expected = np.stack([ranked["long"].second, ranked["long"].first], axis=1)[is_of_state] + 101
        assert np.array_equal(lines[name], expected)
    assert (lines["structure"][:, 0] < lines["structure"][:, 1]).all()
    precision, random = format_share(ranked["long"].precisions["L"]), format_share(ranked["long"].random)
    assert axes.get_title("left") == f"In contact: {precision} of the best long-range pairs, {random} of random ones"


def test_figure_without_a_structure_marks_nothing_and_claims_nothing(draw, make_displayed, scores):
    axes = draw(make_displayed(NUM_RESIDUES, contacts=scores, ranked=rank_contacts(scores, None)))

    assert len(axes.get_lines()) == 0
    assert axes.get_title("left") == ""
    assert axes.get_legend() is None


def test_long_name_is_shortened_and_shown_as_text(draw, make_displayed, scores):
    axes = draw(make_displayed(NUM_RESIDUES, id="$x_{" + 100 * "P", contacts=scores))

    assert axes.figure.get_suptitle() == r"\$x_{" + 53 * "P" + "..."
