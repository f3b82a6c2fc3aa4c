"""What `inspect-attention` leaves behind beside its page: tables of heads, contacts, structures and sites."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from Bio.Data.IUPACData import protein_letters_1to3
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.maps import ALL_STATISTICS
from protembed.attention.page import Table
from protembed.attention.sites import SiteResult
from protembed.attention.structure_matching import MatchedProtein
from protembed.attention.structures import CONTACT_DISTANCE, MIN_SEPARATION
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import Record
from protembed.io.text import pluralize, printable
from protembed.io.writing import atomic_file, write_table

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "entropy": "entropy (nats)",
        "mean_distance": "mean distance (residues)",
        "on_self": "share on the residue itself",
        "on_neighbours": "share on its two neighbours",
        "on_cls": "share on <cls>",
        "on_eos": "share on <eos>",
        **{f"on_{letter}": f"share on {protein_letters_1to3[letter]} ({letter})" for letter in AMINO_ACIDS},
        "long_range_p_at_l": "long-range precision at L",
        "contact_effect": "contact effect (0.5: none)",
        "contact_p": "p of contacts",
        "contact_q": "q of contacts",
        "contact_proteins": "proteins with an effect above 0.5",
        "range": "separation",
        "pairs": "pairs picked",
        "precision": "precision (share of contacts)",
        "low": "95 % interval from",
        "high": "95 % interval to",
        "random": "random pairs",
        "same_separations": "pairs of the same separations",
        "effect": "effect (0.5: none)",
        "compared_proteins": "proteins compared",
        "residues": "labelled residues",
        "compared_residues": "of these compared",
    }
)


def column_label(column: str) -> str:
    """Name a column as a reader does; one that is a word already keeps its name.

    >>> column_label("mean_distance"), column_label("head")
    ('mean distance (residues)', 'head')
    """
    return _NAMES.get(column, column)


CONTACT_COLUMNS = ("long_range_p_at_l", "contact_effect", "contact_p", "contact_q", "contact_proteins")
SITE_COLUMNS = (
    *("label", "layer", "head", "effect", "p", "q", "proteins"),
    *("compared_proteins", "residues", "compared_residues", "segments"),
)
PRECISION_COLUMNS = (
    "predictor",
    "range",
    "pairs",
    "precision",
    "low",
    "high",
    "random",
    "same_separations",
    "proteins",
)
STRUCTURE_COLUMNS = (
    *("row", "id", "structure", "chain", "identity", "coverage", "contacts", "altlocs", "insertions", "modified"),
    *("unknown", "without_place", "left_out", "atoms", "virtual_cb"),
)


def write_metrics_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a TSV of figures: numbers with six digits, what is not defined as an empty cell.

    Raises:
        OutputError: it cannot be written.
    """
    write_table(path, header, ([_spell(cell) for cell in row] for row in rows))


def head_rows(means: NDArray[np.float64], evidence: ContactEvaluation | None) -> Iterator[list[Any]]:
    """Describe each head: its statistics, (statistics, layer, head), and what it knows of contacts."""
    num_heads = means.shape[2]
    for layer, head in np.ndindex(means.shape[1:]):
        row = [layer + 1, head + 1, *means[:, layer, head].tolist()]
        if evidence is not None:
            number, found = layer * num_heads + head, evidence.significance
            row += [float(evidence.head_precisions[number]), float(found.effects[number])]
            row += [float(found.p_values[number]), float(found.q_values[number]), int(found.num_above[number])]
        yield row


def head_columns(evidence: ContactEvaluation | None) -> list[str]:
    """Name the columns of `head_rows`."""
    return ["layer", "head", *ALL_STATISTICS, *(CONTACT_COLUMNS if evidence is not None else ())]


def precision_rows(evidence: ContactEvaluation) -> Iterator[list[Any]]:
    """Describe how precise each way to predict contacts is, beside what is reached without looking."""
    for name, rows in evidence.precisions.items():
        for row in rows:
            score = row.score
            yield [
                *(name, row.range_name, row.fraction_name, score.value, score.low, score.high),
                *(row.random, row.matched, row.num_proteins),
            ]


def site_rows(results: Mapping[str, SiteResult], num_heads: int) -> Iterator[list[Any]]:
    """Describe how each head attends to each kind of site, the most significant first."""
    for label, result in results.items():
        found = result.significance
        for number in found.ranking().tolist():
            yield [
                *(label, number // num_heads + 1, number % num_heads + 1, float(found.effects[number])),
                *(float(found.p_values[number]), float(found.q_values[number]), int(found.num_above[number])),
                *(found.num_proteins, result.num_residues, found.num_marks, result.num_segments),
            ]


def structure_row(shown: MatchedProtein) -> list[Any]:
    """Say which chain a protein was compared with, and what was met in it."""
    match, notes = shown.match, shown.match.chain.notes
    return [
        *(shown.row + 1, shown.record.id, match.chain.structure, match.chain.name, match.identity, match.coverage),
        *(shown.num_contacts, notes.num_altlocs, notes.num_insertions, notes.num_modified, notes.num_unknown),
        *(notes.num_without_place, notes.num_waters + notes.num_others + notes.num_repeated),
        *(match.chain.atoms, notes.num_virtual),
    ]


def page_tables(
    means: NDArray[np.float64], evidence: ContactEvaluation | None, sites: Mapping[str, SiteResult]
) -> list[Table]:
    """Make the tables of the page: heads that attend to sites, how precisely contacts are predicted, and every head."""
    tables = [_sites_table(sites, means.shape[2])] if sites else []
    if evidence is not None:
        tables += _contact_tables(evidence)
    return [*tables, _heads_table(means, evidence)]


def _sites_table(sites: Mapping[str, SiteResult], num_heads: int) -> Table:
    """List, for each label, the heads that attend to its residues, or else the one that comes nearest."""
    following = {label: max(1, result.num_following) for label, result in sites.items()}
    rows = [
        row for label, result in sites.items() for row in [*site_rows({label: result}, num_heads)][: following[label]]
    ]
    note = (
        "Heads whose attention to the labelled residues exceeds that to other residues of the same amino acid in the "
        "same protein, and that to residues in the same pattern elsewhere in it (q of at most 0.05). Effect: the "
        "chance that a labelled residue receives more attention than an unlabelled one of its amino acid; 0.5 is none."
    )
    if nothing := [label for label, result in sites.items() if not result.num_following]:
        note += f" No head attends to {', '.join(map(repr, nothing))}: the row shows the head that comes nearest."
    # "proteins" means something else in the table of contacts.
    header = [column_label("contact_proteins" if column == "proteins" else column) for column in SITE_COLUMNS]
    return Table(title="Heads that attend to sites", header=header, rows=rows, note=note)


def _heads_table(means: NDArray[np.float64], evidence: ContactEvaluation | None) -> Table:
    header = [column_label(column) for column in head_columns(evidence)]
    note = "Means over all residues of all proteins; shares are of the attention that a residue gives."
    if evidence is not None:
        note += (
            " Contact effect: the chance that a pair in contact gets more than another pair of the same separation,"
            " beyond what their amino acids receive elsewhere in the protein; q: its p, corrected for the number of"
            " heads."
        )
    return Table(title="Statistics of every head", header=header, rows=list(head_rows(means, evidence)), note=note)


def _contact_tables(evidence: ContactEvaluation) -> list[Table]:
    header = [column_label(column) for column in PRECISION_COLUMNS]
    rows = list(precision_rows(evidence))
    if not rows:  # one protein alone, and no contact head
        return []
    note = (
        f"{pluralize(evidence.num_proteins, 'protein')} with a structure, each predicted by what was made without it."
    )
    if "regression" not in evidence.precisions and evidence.num_proteins > 1:
        note += " The regression over all heads selected no heads: it predicts nothing, and is not listed."
    return [Table(title="Precision of predicted contacts", header=header, rows=rows, note=note)]


def write_contacts(path: Path, probabilities: NDArray[np.floating], first_residue: int = 1) -> None:
    """Write all pairs at least 6 apart and their probabilities, the likeliest first.

    Args:
        path: of the TSV.
        probabilities: (residues, residues).
        first_residue: the number of the first residue.
    """
    pairs = zip(*_ranked(probabilities), strict=True)
    rows = ([i + first_residue, j + first_residue, float(probabilities[i, j])] for i, j in pairs)
    write_metrics_table(path, ["i", "j", "probability"], rows)


def write_casp(path: Path, record: Record, probabilities: NDArray[np.floating]) -> None:
    """Write predicted contacts as CASP's RR file: the likeliest five for each residue.

    Source: https://predictioncenter.org/casprol/index.cgi?page=format, "RR format".
    """
    sequence = record.sequence
    lines = ["PFRMAT RR", f"TARGET {printable(record.id).encode('ascii', 'replace').decode()}", "MODEL 1"]
    lines += [sequence[start : start + 50] for start in range(0, len(sequence), 50)]
    for i, j in zip(*(places[: 5 * len(sequence)] for places in _ranked(probabilities)), strict=True):
        lines.append(f"{i + 1} {j + 1} 0 {CONTACT_DISTANCE:g} {probabilities[i, j]:.6f}")
    with atomic_file(path) as stream:
        stream.write(("\n".join([*lines, "END"]) + "\n").encode())


def _ranked(probabilities: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = np.triu_indices(len(probabilities), MIN_SEPARATION)
    order = np.argsort(-probabilities[first, second], kind="stable")
    return first[order], second[order]


def _spell(cell: Any) -> Any:
    if not isinstance(cell, float):
        return cell
    return None if np.isnan(cell) else f"{cell:.6g}"
