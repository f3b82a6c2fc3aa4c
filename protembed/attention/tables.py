"""Tables of heads, contacts, structures and sites: each column is described once, for files and for the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from Bio.Data.IUPACData import protein_letters_1to3
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.head_kinds import HeadKind, rank_heads
from protembed.attention.head_statistics import ALL_STATISTICS, HeadStatistics
from protembed.attention.significance import HeadTest
from protembed.attention.sites import SiteResult
from protembed.attention.structure_matching import MatchedProtein
from protembed.attention.summary import BestContactHead
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import Record
from protembed.data.structures import CONTACT_DISTANCE, MIN_SEPARATION
from protembed.io.writing import atomic_file, write_table
from protembed.text import printable

STATISTIC_LABELS: Mapping[str, str] = {
    "entropy": "entropy (nats)",
    "mean_distance": "mean distance (residues)",
    "on_self": "fraction on the residue itself",
    "on_neighbours": "fraction on its two neighbours",
    "on_cls": "fraction on <cls>",
    "on_eos": "fraction on <eos>",
    **{f"on_{letter}": f"fraction on {protein_letters_1to3[letter]} ({letter})" for letter in AMINO_ACIDS},
}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Name in files.
        values: Cell of each row.
        label: Name on the page; empty where it is the same.
    """

    name: str
    values: Sequence[Any] | NDArray[Any]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the statistics and the tests say about all heads.

    Attributes:
        statistics: Means over all residues of all proteins.
        contacts: Comparison with the contacts of structures; None without structures.
        sites: Tests on annotated residues by label; empty without sites.
    """

    statistics: HeadStatistics
    contacts: ContactEvaluation | None
    sites: Mapping[str, SiteResult]

    @cached_property
    def head_kinds(self) -> list[HeadKind]:
        """What each head is known for, the most interesting first."""
        return rank_heads(self.statistics, self.contacts, self.sites)

    @property
    def best_contact_head(self) -> BestContactHead | None:
        """The head that follows contacts best; None without structures."""
        if self.contacts is None:
            return None
        precisions, num_heads = self.contacts.head_precisions, self.statistics.means.shape[2]
        known = {(kind.layer, kind.head) for kind in self.head_kinds if kind.kind == "contacts"}
        numbers = [(index // num_heads + 1, index % num_heads + 1) for index in range(len(precisions))]
        best = max(range(len(precisions)), key=lambda index: (numbers[index] in known, precisions[index]))
        return BestContactHead(
            layer=numbers[best][0],
            head=numbers[best][1],
            precision=float(precisions[best]),
            random=self.contacts.random_precision,
            follows_contacts=numbers[best] in known,
        )

    def head_columns(self) -> list[Column]:
        """List the statistics of each head, its test on contacts, and what it is known for."""
        layers, heads = (numbers.ravel() + 1 for numbers in np.indices(self.statistics.means.shape[1:]))
        statistics = zip(ALL_STATISTICS, self.statistics.means, strict=True)
        columns = [
            Column("layer", layers),
            Column("head", heads),
            *(Column(name, values.ravel(), STATISTIC_LABELS[name]) for name, values in statistics),
        ]
        if self.contacts is not None:
            columns.append(Column("long_range_p_at_l", self.contacts.head_precisions, "long-range precision at L"))
            columns += _test_columns(self.contacts.significance, slice(None), "contact")
        return [*columns, *self._kind_columns()]

    def _kind_columns(self) -> list[Column]:
        kinds = sorted(self.head_kinds, key=lambda kind: (kind.layer, kind.head))
        return [
            Column("kind", [kind.kind for kind in kinds]),
            Column("attends_to", [kind.word for kind in kinds], "attends to"),
            Column("strength", [kind.strength for kind in kinds]),
            Column("expected", [kind.expected for kind in kinds], "strength without preference"),
        ]

    def precision_columns(self) -> list[Column]:
        """List the precision of each contact predictor, beside the precision that is expected by chance."""
        predictors = {} if self.contacts is None else self.contacts.precisions
        rows = [row for rows in predictors.values() for row in rows]
        return [
            Column("predictor", [name for name, rows in predictors.items() for _ in rows]),
            Column("range", [row.range_name for row in rows], "separation"),
            Column("pairs", [row.fraction_name for row in rows], "top-scoring pairs"),
            Column("precision", [row.precision.value for row in rows], "precision (fraction of contacts)"),
            Column("low", [row.precision.low for row in rows], "95 % interval from"),
            Column("high", [row.precision.high for row in rows], "95 % interval to"),
            Column("random", [row.random for row in rows], "random pairs"),
            Column("matched_random", [row.matched_random for row in rows], "random pairs of the same separations"),
            Column("proteins", [row.num_proteins for row in rows]),
        ]

    def site_columns(self, *, only_significant: bool = False) -> list[Column]:
        """List the test of each head on each label, the most significant first.

        Args:
            only_significant: Whether to list only heads that attend significantly, or else the most significant one.
        """
        by_label = [
            self._label_columns(label, result, max(1, result.num_following) if only_significant else None)
            for label, result in self.sites.items()
        ]
        return [
            Column(columns[0].name, list(chain(*(column.values for column in columns))), columns[0].label)
            for columns in zip(*by_label, strict=True)
        ]

    def _label_columns(self, label: str, result: SiteResult, num_listed: int | None) -> list[Column]:
        test, num_heads = result.significance, self.statistics.means.shape[2]
        order = test.ranking()[:num_listed]
        num = len(order)
        return [
            Column("label", [label] * num),
            Column("layer", order // num_heads + 1),
            Column("head", order % num_heads + 1),
            *_test_columns(test, order),
            Column("compared_proteins", [test.num_proteins] * num, "proteins compared"),
            Column("residues", [result.num_residues] * num, "labelled residues"),
            Column("compared_residues", [test.num_labelled] * num, "labelled residues compared"),
            Column("segments", [result.num_segments] * num),
        ]


def _test_columns(test: HeadTest, heads: slice | NDArray[np.int64], on: str = "") -> list[Column]:
    """List the tests of these heads; the names of the columns begin with what they are on."""
    prefix, suffix = (f"{on}_", f" of {on}s") if on else ("", "")
    return [
        Column(f"{prefix}effect", test.effects[heads], f"{on} effect (0.5: none)".lstrip()),
        Column(f"{prefix}p", test.p_values[heads], f"p{suffix}"),
        Column(f"{prefix}q", test.q_values[heads], f"q{suffix}"),
        Column(f"{prefix}proteins", test.num_above[heads], "proteins with an effect above 0.5"),
    ]


def structure_columns(proteins: Iterable[MatchedProtein]) -> list[Column]:
    """Describe the chain that matches each protein."""
    proteins = list(proteins)
    chains = [protein.match.chain for protein in proteins]
    counts = [chain.statistics for chain in chains]
    return [
        Column("row", [protein.record.row + 1 for protein in proteins]),
        Column("id", [protein.record.id for protein in proteins]),
        Column("structure", [chain.structure for chain in chains]),
        Column("chain", [chain.name for chain in chains]),
        Column("identity", [protein.match.identity for protein in proteins]),
        Column("coverage", [protein.match.coverage for protein in proteins]),
        Column("contacts", [int(protein.pairs.is_contact.sum()) for protein in proteins]),
        Column("altlocs", [count.num_altlocs for count in counts]),
        Column("insertions", [count.num_insertions for count in counts]),
        Column("modified", [count.num_modified for count in counts]),
        Column("unknown", [count.num_unknown for count in counts]),
        Column("without_place", [count.num_without_atom for count in counts]),
        Column("left_out", [count.num_waters + count.num_others + count.num_repeated for count in counts]),
        Column("atoms", [chain.atoms for chain in chains]),
        Column("virtual_cb", [count.num_virtual for count in counts]),
    ]


def write_columns(path: Path, columns: Sequence[Column]) -> None:
    """Write a TSV: numbers with six significant digits, undefined values as empty cells.

    Raises:
        OutputError: The file cannot be written.
    """
    write_table(
        path, [column.name for column in columns], ([_format_cell(cell) for cell in row] for row in rows_of(columns))
    )


def rows_of(columns: Sequence[Column]) -> Iterable[tuple[Any, ...]]:
    """Return the rows of a table."""
    return zip(*(column.values for column in columns), strict=True)


def write_contacts(path: Path, probabilities: NDArray[np.floating]) -> None:
    """Write all pairs at least 6 apart and their contact probabilities, (residues, residues), the most likely first."""
    first, second = _ranked_pairs(probabilities)
    ranked = probabilities[first, second].astype(np.float64)
    write_columns(path, [Column("i", first + 1), Column("j", second + 1), Column("probability", ranked)])


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
