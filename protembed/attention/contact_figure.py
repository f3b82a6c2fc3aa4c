"""The figure of a protein's contacts: predicted above the diagonal, and those of its structure below it."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from protembed.attention.pictures import DisplayedProtein
from protembed.attention.ranked_contacts import CONTACT, NO_CONTACT, UNKNOWN
from protembed.report.design import COLOURS, SCALES, TYPE
from protembed.report.figures import drawable, figure_file
from protembed.text import format_share, printable

# Name, colour and marker of the best pairs by their state; colours and shapes differ, so that either suffices.
_STATES = {
    CONTACT: ("right", COLOURS["accent"].light, "s"),
    NO_CONTACT: ("wrong", COLOURS["contrast"].light, "x"),
    UNKNOWN: ("unknown: no coordinates", COLOURS["fourth"].light, "o"),
}
_MAX_MARK, _MIN_MARK = 5.0, 2.0
_PLOT_POINTS = 300
_MAX_NAME = 60


def draw_contacts(path: Path, protein: DisplayedProtein) -> None:
    """Draw the predicted contacts of a protein, which of the best are right, and the contacts of its structure.

    Marked are the best long-range pairs, as many as the protein has residues; without a structure, none.
    """
    assert protein.contacts is not None, "the protein has predicted contacts"
    num_residues = len(protein.contacts)
    first, last = protein.first_residue - 0.5, protein.first_residue + num_residues - 0.5
    with figure_file(path, width=6.4, height=5.4) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            np.ma.masked_array(protein.contacts, np.tri(num_residues, dtype=np.bool_)),
            cmap=SCALES["contact"][0],
            vmin=0,
            interpolation="nearest",
            extent=(first, last, last, first),
        )
        if protein.truth is not None:
            _draw_structure(axes, protein)
        axes.set(xlabel="residue", ylabel="residue", xlim=(first, last), ylim=(last, first))
        figure.suptitle(_name(protein), x=0.02, ha="left", fontsize=TYPE["title"], fontweight="bold")
        axes.set_title(_finding(protein), loc="left", fontsize=TYPE["small"], fontweight="normal")
        bar = figure.colorbar(image, shrink=0.6, label="predicted probability of a contact")
        bar.outline.set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=4, fontsize=TYPE["small"], frameon=False)


def _draw_structure(axes: Axes, protein: DisplayedProtein) -> None:
    """Draw the contacts of the structure below the diagonal, and above it which of the best pairs are right."""
    assert protein.truth is not None
    size = min(_MAX_MARK, max(_MIN_MARK, _PLOT_POINTS / len(protein.truth)))
    rows, columns = (residues + protein.first_residue for residues in np.nonzero(np.tril(protein.truth)))
    axes.plot(columns, rows, "s", color=COLOURS["grey"].light, markersize=size, label="structure")
    ranked = protein.ranked.get("long")
    if ranked is None or "L" not in ranked.num_top:
        return
    state = ranked.state[: ranked.num_top["L"]]
    for value, (name, colour, marker) in _STATES.items():
        (pairs,) = np.nonzero(state == value)
        if len(pairs):
            upper = ranked.second[pairs] + protein.first_residue, ranked.first[pairs] + protein.first_residue
            axes.plot(
                *upper, marker, color=colour, markersize=size, fillstyle="none" if marker == "o" else None, label=name
            )


def _name(protein: DisplayedProtein) -> str:
    name = printable(protein.id)
    return drawable(name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}...")


def _finding(protein: DisplayedProtein) -> str:
    """Describe how many of the best pairs are right; empty where this is unknown."""
    ranked = protein.ranked.get("long")
    if ranked is None or ranked.random is None or "L" not in ranked.precisions:
        return ""
    precision, random = format_share(ranked.precisions["L"]), format_share(ranked.random)
    return f"In contact: {precision} of the best long-range pairs, {random} of random ones"
