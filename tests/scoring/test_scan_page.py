import numpy as np
import pytest
from markupsafe import escape

from protembed.scoring import displayed_scan
from protembed.scoring.displayed_scan import ROWS, DisplayedScan, Scale
from protembed.scoring.scan_figures import draw_scan
from protembed.scoring.scan_page import ScanPage

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e"


def render(page, num_proteins=1, notes=()):
    return page.render("Single mutants", {"Command": "protembed score a.fasta --scan"}, num_proteins, notes)


def test_displayed_residues_span_from_the_first_scanned_to_the_last(make_scan):
    shown = DisplayedScan.from_scan(make_scan("MKTXYIAX", first=3))

    assert (shown.first, shown.sequence, shown.is_cut) == (3, "TXYIA", False)
    assert np.isnan(shown.scores).all(1).tolist() == [False, True, False, False, False]
    assert np.isnan(shown.means).tolist() == [False, True, False, False, False]


def test_residues_beyond_the_most_are_not_displayed(make_scan, monkeypatch):
    monkeypatch.setattr(displayed_scan, "MAX_RESIDUES", 25)

    shown = DisplayedScan.from_scan(make_scan(num_residues=40))

    assert (len(shown.sequence), shown.scores.shape, shown.is_cut) == (25, (25, 20), True)


def test_mean_is_that_of_the_nineteen_substitutions(make_scan):
    scan = make_scan("MKT")

    others = [row[row != 0] for row in scan.scores]
    assert [len(row) for row in others] == [19, 19, 19]
    np.testing.assert_allclose(scan.means, [row.mean() for row in others])


def test_scale_is_centred_and_holds_nearly_all_values():
    values = np.array([-1.0] * 50 + [2.0] * 49 + [100.0, np.nan])

    assert Scale.around(0.0, values).limit == pytest.approx(2.0)
    assert Scale.around(1.0, np.array([np.nan])) == (1.0, 1.0)


def test_measured_scale_is_centred_on_the_wild_type_or_else_the_median(make_scan):
    scan = make_scan(has_measurements=True)

    with_wild_type, without = DisplayedScan.from_scan(scan, 0.75), DisplayedScan.from_scan(scan)

    assert (with_wild_type.measured_scale.centre, with_wild_type.measured_centre) == (0.75, "wild type")
    assert (without.measured_scale.centre, without.measured_centre) == (np.nanmedian(scan.measured), "median")


def test_rows_are_the_twenty_amino_acids_and_mark_the_wild_type(make_scan):
    assert sorted(ROWS) == sorted("ACDEFGHIKLMNPQRSTVWY")

    residues, rows = DisplayedScan.from_scan(make_scan("MXK")).wild_type_cells()

    assert (residues.tolist(), [ROWS[row] for row in rows]) == ([0, 2], ["M", "K"])


@pytest.mark.parametrize(("num_residues", "num_lines"), [(1, 1), (100, 1), (101, 2), (300, 3)])
def test_figure_has_a_line_for_each_hundred_residues(make_scan, tmp_path, num_residues, num_lines):
    from matplotlib.image import imread

    shown = DisplayedScan.from_scan(make_scan(num_residues=num_residues))

    draw_scan(tmp_path / "scan.png", shown)

    height = imread(tmp_path / "scan.png").shape[0] / 144
    assert height == pytest.approx(0.62 + 0.85 + num_lines * (22 * 0.095 + 0.4), abs=0.02)


def test_figure_of_a_hostile_identifier_and_measured_values_is_drawn(make_scan, tmp_path):
    draw_scan(tmp_path / "scan.png", DisplayedScan.from_scan(make_scan(id=f"$a_{HOSTILE}" * 9, has_measurements=True)))

    assert (tmp_path / "scan.png").stat().st_size > 1000


def test_page_needs_no_network_and_shows_hostile_identifiers_as_text(make_scan, add_to_page):
    page = ScanPage()
    add_to_page(page, make_scan(id=HOSTILE, has_measurements=True))

    html = render(page)

    assert "<img" not in html
    assert "\u202e" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert str(escape(HOSTILE.replace("\u202e", "\\u202e"))) in html


def test_page_says_which_proteins_and_residues_it_shows(make_scan, add_to_page, monkeypatch):
    monkeypatch.setattr(displayed_scan, "MAX_RESIDUES", 30)
    page = ScanPage()
    add_to_page(page, make_scan())

    html = render(page, num_proteins=1234)

    assert "the first 1 of 1,234 proteins" in html
    assert "of each at most 2,000 residues, and <code>--region</code> shows others" in html
    assert "single mutants of the proteins below" in html


def test_page_lists_the_ten_best_mutants(make_scan, add_to_page):
    page, scan = ScanPage(), make_scan()
    add_to_page(page, scan)

    html = render(page)

    for mutation, score in scan.best(10):
        assert f">{mutation}<" in html
        assert f">{score:.3f}<" in html
    assert f">{scan.best(11)[10].mutation}<" not in html


def test_page_is_the_same_for_the_same_scan(make_scan, add_to_page):
    pages = [ScanPage(), ScanPage()]
    for page in pages:
        add_to_page(page, make_scan(has_measurements=True))

    assert render(pages[0]) == render(pages[1])


def test_page_without_measurements_has_no_comparison(make_scan, add_to_page):
    page = ScanPage()
    add_to_page(page, make_scan())

    assert "Compared with measurements" not in render(page)


def test_page_of_many_long_proteins_is_small_enough_to_send(make_scan, add_to_page):
    page = ScanPage()
    for number in range(5):
        add_to_page(page, make_scan(num_residues=2000, seed=number))

    assert len(render(page)) < 5 * 210_000 + 100_000
