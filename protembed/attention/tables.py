"""The tables of `inspect-attention`: heads, contacts, structures and sites, as files and on the page."""

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
from protembed.io.writing import atomic_file, write_table
from protembed.text import pluralize, printable

CONTACT_COLUMNS = ("long_range_p_at_l", "contact_effect", "contact_p", "contact_q", "contact_proteins")
SITE_COLUMNS = (
    *("label", "layer", "head", "effect", "p", "q", "proteins"),
    *("compared_proteins", "residues", "compared_residues", "segments"),
)
PRECISION_COLUMNS = (
    *("predictor", "range", "pairs", "precision", "low", "high", "random", "matched_random", "proteins"),
)
STRUCTURE_COLUMNS = (
    *("row", "id", "structure", "chain", "identity", "coverage", "contacts", "altlocs", "insertions", "modified"),
    *("unknown", "without_place", "left_out", "atoms", "virtual_cb"),
)
_COLUMN_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "entropy": "entropy (nats)",
        "mean_distance": "mean distance (residues)",
        "on_self": "fraction on the residue itself",
        "on_neighbours": "fraction on its two neighbours",
        "on_cls": "fraction on <cls>",
        "on_eos": "fraction on <eos>",
        **{f"on_{letter}": f"fraction on {protein_letters_1to3[letter]} ({letter})" for letter in AMINO_ACIDS},
        "long_range_p_at_l": "long-range precision at L",
        "contact_effect": "contact effect (0.5: none)",
        "contact_p": "p of contacts",
        "contact_q": "q of contacts",
        "contact_proteins": "proteins with an effect above 0.5",
        "range": "separation",
        "pairs": "top-scoring pairs",
        "precision": "precision (fraction of contacts)",
        "low": "95 % interval from",
        "high": "95 % interval to",
        "random": "random pairs",
        "matched_random": "random pairs of the same separations",
        "effect": "effect (0.5: none)",
        "compared_proteins": "proteins compared",
        "residues": "labelled residues",
        "compared_residues": "labelled residues compared",
    }
)


def column_label(column: str) -> str:
    """Return the label of a column for readers; a column without one keeps its name.

    >>> column_label("mean_distance"), column_label("head")
    ('mean distance (residues)', 'head')
    """
    return _COLUMN_LABELS.get(column, column)


def write_metrics_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a TSV of metrics: numbers with six significant digits, undefined values as empty cells.

    Raises:
        OutputError: The file cannot be written.
    """
    write_table(path, header, ([_format_cell(cell) for cell in row] for row in rows))


def head_rows(means: NDArray[np.float64], evaluation: ContactEvaluation | None) -> Iterator[list[Any]]:
    """Yield a row for each head with its mean statistics, (statistics, layer, head), and its test on contacts."""
    num_heads = means.shape[2]
    for layer, head in np.ndindex(means.shape[1:]):
        row = [layer + 1, head + 1, *means[:, layer, head].tolist()]
        if evaluation is not None:
            number, test = layer * num_heads + head, evaluation.significance
            row += [float(evaluation.head_precisions[number]), float(test.effects[number])]
            row += [float(test.p_values[number]), float(test.q_values[number]), int(test.num_above[number])]
        yield row


def head_columns(evaluation: ContactEvaluation | None) -> list[str]:
    """Name the columns of `head_rows`."""
    return ["layer", "head", *ALL_STATISTICS, *(CONTACT_COLUMNS if evaluation is not None else ())]


def precision_rows(evaluation: ContactEvaluation) -> Iterator[list[Any]]:
    """Yield the precision of each contact predictor, beside the precision that is expected by chance."""
    for name, rows in evaluation.precisions.items():
        for row in rows:
            precision = row.precision
            yield [
                *(name, row.range_name, row.fraction_name, precision.value, precision.low, precision.high),
                *(row.random, row.matched_random, row.num_proteins),
            ]


def site_rows(results: Mapping[str, SiteResult], num_heads: int) -> Iterator[list[Any]]:
    """Yield the test of each head on each label, the most significant first."""
    for label, result in results.items():
        test = result.significance
        for number in test.ranking().tolist():
            yield [
                *(label, number // num_heads + 1, number % num_heads + 1, float(test.effects[number])),
                *(float(test.p_values[number]), float(test.q_values[number]), int(test.num_above[number])),
                *(test.num_proteins, result.num_residues, test.num_labelled, result.num_segments),
            ]


def structure_row(protein: MatchedProtein) -> list[Any]:
    """Make the row of the chain that matches a protein."""
    match, chain, counts = protein.match, protein.match.chain, protein.match.chain.statistics
    return [
        *(protein.row + 1, protein.record.id, chain.structure, chain.name, match.identity, match.coverage),
        *(protein.num_contacts, counts.num_altlocs, counts.num_insertions, counts.num_modified, counts.num_unknown),
        *(counts.num_without_atom, counts.num_waters + counts.num_others + counts.num_repeated),
        *(chain.atoms, counts.num_virtual),
    ]


def page_tables(
    means: NDArray[np.float64], evaluation: ContactEvaluation | None, sites: Mapping[str, SiteResult]
) -> list[Table]:
    """Make the tables of the page: heads that attend to sites, how precisely contacts are predicted, and every head."""
    tables = [_sites_table(sites, means.shape[2])] if sites else []
    if evaluation is not None:
        tables += _contact_tables(evaluation)
    return [*tables, _heads_table(means, evaluation)]


def _sites_table(sites: Mapping[str, SiteResult], num_heads: int) -> Table:
    """List, for each label, the heads that attend significantly to its residues, or else the most significant head."""
    following = {label: max(1, result.num_following) for label, result in sites.items()}
    rows = [
        row for label, result in sites.items() for row in [*site_rows({label: result}, num_heads)][: following[label]]
    ]
    note = (
        "Heads that attend to the labelled residues more than to other residues of the same amino acid in the same "
        "protein, and more than to residues in the same pattern elsewhere in it (q ≤ 0.05). Effect: the probability "
        "that a labelled residue receives more attention than an unlabelled one of its amino acid; 0.5 is no effect."
    )
    if unattended := [label for label, result in sites.items() if not result.num_following]:
        names = ", ".join(map(repr, unattended))
        note += f" No head attends significantly to {names}; the row shows the most significant head."
    # "proteins" has another meaning in the table of contacts.
    header = [column_label("contact_proteins" if column == "proteins" else column) for column in SITE_COLUMNS]
    return Table(title="Heads that attend to sites", header=header, rows=rows, note=note)


def _heads_table(means: NDArray[np.float64], evaluation: ContactEvaluation | None) -> Table:
    header = [column_label(column) for column in head_columns(evaluation)]
    note = "Means over all residues of all proteins. Fractions are of the attention that a residue gives."
    if evaluation is not None:
        note += (
            " Contact effect: the probability that a pair in contact receives more attention than another pair of the"
            " same separation, relative to the mean of their amino acids in the protein. q: p-value corrected for the"
            " number of heads."
        )
    return Table(title="Statistics of every head", header=header, rows=list(head_rows(means, evaluation)), note=note)


def _contact_tables(evaluation: ContactEvaluation) -> list[Table]:
    header = [column_label(column) for column in PRECISION_COLUMNS]
    rows = list(precision_rows(evaluation))
    if not rows:  # a single protein, and no contact head
        return []
    proteins = pluralize(evaluation.num_proteins, "protein")
    note = f"{proteins} with a structure, each scored by predictors that were fitted without it."
    if "regression" not in evaluation.precisions and evaluation.num_proteins > 1:
        note += " The regression selected no heads, and is not listed."
    return [Table(title="Precision of predicted contacts", header=header, rows=rows, note=note)]


def write_contacts(path: Path, probabilities: NDArray[np.floating], first_residue: int = 1) -> None:
    """Write all pairs at least 6 apart and their probabilities, the most likely first.

    Args:
        path: TSV file to write.
        probabilities: Contact probabilities, (residues, residues).
        first_residue: Number of the first residue.
    """
    pairs = zip(*_ranked_pairs(probabilities), strict=True)
    rows = ([i + first_residue, j + first_residue, float(probabilities[i, j])] for i, j in pairs)
    write_metrics_table(path, ["i", "j", "probability"], rows)


def write_casp(path: Path, record: Record, probabilities: NDArray[np.floating]) -> None:
    """Write predicted contacts as CASP's RR file, with five pairs for each residue, the most likely first.

    Source: https://predictioncenter.org/casprol/index.cgi?page=format, "RR format".
    """
    sequence = record.sequence
    lines = ["PFRMAT RR", f"TARGET {printable(record.id).encode('ascii', 'replace').decode()}", "MODEL 1"]
    lines += [sequence[start : start + 50] for start in range(0, len(sequence), 50)]
    for i, j in zip(*(residues[: 5 * len(sequence)] for residues in _ranked_pairs(probabilities)), strict=True):
        lines.append(f"{i + 1} {j + 1} 0 {CONTACT_DISTANCE:g} {probabilities[i, j]:.6f}")
    with atomic_file(path) as stream:
        stream.write(("\n".join([*lines, "END"]) + "\n").encode())


def _ranked_pairs(probabilities: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = np.triu_indices(len(probabilities), MIN_SEPARATION)
    order = np.argsort(-probabilities[first, second], kind="stable")
    return first[order], second[order]


def _format_cell(cell: Any) -> Any:
    if not isinstance(cell, float):
        return cell
    return None if np.isnan(cell) else f"{cell:.6g}"
