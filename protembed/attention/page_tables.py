"""The tables of the page of `inspect-attention`: contacts, annotated sites, and all heads."""

from collections.abc import Mapping, Sequence

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.significance import permutation_warnings
from protembed.attention.sites import site_warnings
from protembed.attention.tables import Column as FileColumn, Evaluation
from protembed.data.alphabet import AMINO_ACIDS
from protembed.report.page import Details, Element
from protembed.report.table import Column, Prose, Table
from protembed.text import as_sentence, pluralize

_COLUMN_NOTES: Mapping[str, Prose] = {
    "entropy": (
        "How widely the head spreads its attention: 0 if each residue attends to one token only; the logarithm of the "
        "number of tokens if it attends to all alike."
    ),
    "on_cls": "The token before the first residue, which is no residue; heads often rest there.",
    "on_eos": "The token after the last residue, which is no residue; heads often rest there.",
}
_SEPARATIONS = "Distance along the chain: short is 6 to 11 residues, medium 12 to 23, long 24 and more."


def contact_elements(contacts: ContactEvaluation | None) -> list[Element]:
    """Say what the contact predictors found; empty without structures."""
    if contacts is None:
        return []
    table = [_precision_table(contacts)] if contacts.precisions else []
    return [contacts.finding, *map(as_sentence, permutation_warnings(contacts.significance)), *table]


def _precision_table(contacts: ContactEvaluation) -> Table:
    rows = [(name, row) for name, rows in contacts.precisions.items() for row in rows]
    precisions = [row.precision for _, row in rows]
    return Table(
        title="Precision of predicted contacts",
        note=(
            "Of the most likely pairs, as many as the protein has residues (L), or a half or a fifth of that, the "
            f"fraction that is in contact: means over {pluralize(contacts.num_proteins, 'protein')} with a structure, "
            "each scored by predictors that were fitted without it. Below it, its 95 % interval."
        ),
        columns=[
            Column(name="predictor", cells=[name for name, _ in rows]),
            Column(name="separation", cells=[row.range_name for _, row in rows], note=_SEPARATIONS),
            Column(name="top-scoring pairs", cells=[row.fraction_name for _, row in rows]),
            Column(name="precision (fraction of contacts)", cells=precisions, digits=2, shade="sequential"),
            Column(name="random pairs", cells=[row.random for _, row in rows], digits=2),
            Column(
                name="random pairs of the same separations", cells=[row.matched_random for _, row in rows], digits=2
            ),
            Column(name="proteins", cells=[row.num_proteins for _, row in rows]),
        ],
    )


def site_elements(evaluation: Evaluation) -> list[Element]:
    """Make the table of heads that attend to annotated sites, after what limits it; empty without sites."""
    if not evaluation.sites:
        return []
    note = (
        "Heads that attend to the labelled residues more than to other residues of the same amino acid in the same "
        "protein, and more than to residues in the same pattern elsewhere in it (q ≤ 0.05). Effect: the probability "
        "that a labelled residue receives more attention than an unlabelled one of its amino acid; 0.5 is no effect."
    )
    if unattended := [label for label, result in evaluation.sites.items() if not result.num_following]:
        names = ", ".join(map(repr, unattended))
        note += f" No head attends significantly to {names}; the row shows the most significant head."
    columns = evaluation.site_columns(only_significant=True)
    cautions = map(as_sentence, site_warnings(evaluation.sites.items()))
    return [*cautions, _table("Heads that attend to sites", columns, note, num_fixed=1)]


def head_tables(evaluation: Evaluation) -> list[Element]:
    """Make the table of all heads, and, on request, that of their attention to each amino acid."""
    columns = {column.name: column for column in evaluation.head_columns()}
    letters = [f"on_{letter}" for letter in AMINO_ACIDS]
    numbers = [columns["layer"], columns["head"]]
    note = "Means over all residues of all proteins. Fractions are of the attention that a residue gives."
    if evaluation.contacts is not None:
        note += (
            " Contact effect: the probability that a pair in contact receives more attention than another pair of the "
            "same separation, relative to the mean of their amino acids in the protein. q: p-value corrected for the "
            "number of heads."
        )
    known = [columns[name] for name in ("attends_to", "strength")]
    listed = {*letters, "layer", "head", "attends_to", "strength", "kind"}
    others = [*numbers, *known, *(column for name, column in columns.items() if name not in listed)]
    # With the name of the amino acid alone, all columns fit a sheet of paper.
    fractions = [*numbers, *(columns[name]._replace(label=columns[name].label.split(" on ")[1]) for name in letters)]
    return [
        _table("Statistics of every head", others, note, num_fixed=2),
        Details(
            title="The attention of every head to each amino acid",
            body=[
                _table(
                    "Attention to each amino acid",
                    fractions,
                    "Fraction of the attention of all residues that falls on residues of each kind.",
                    num_fixed=2,
                    shaded=letters,
                )
            ],
        ),
    ]


def _table(
    title: str, columns: Sequence[FileColumn], note: Prose, *, num_fixed: int, shaded: Sequence[str] = ()
) -> Table:
    return Table(
        title=title,
        note=note,
        num_fixed=num_fixed,
        columns=[
            Column(
                name=column.label or column.name,
                cells=list(column.values),
                note=_COLUMN_NOTES.get(column.name, ""),
                digits=2 if column.name in shaded else 3,
                shade="sequential" if column.name in shaded else "",
                shade_limit=1.0 if column.name in shaded else None,
            )
            for column in columns
        ],
    )
