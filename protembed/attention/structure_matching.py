"""Which structures show which proteins, and what heads give to the pairs of residues that are seen there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor, evaluate_contacts
from protembed.attention.contacts import ResiduePairs, pairs_of
from protembed.attention.structures import MIN_COVERAGE, Chain, ChainAlignment, best_chain, contact_map, distances
from protembed.data.fasta import Record
from protembed.io.text import pluralize, printable

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class MatchedProtein:
    """A protein that a structure shows.

    Attributes:
        row: of the record, from 0.
        record: the protein.
        match: the chain that shows it best.
        num_contacts: pairs in contact, at least 6 apart.
    """

    row: int
    record: Record
    match: ChainAlignment
    num_contacts: int


class StructureIndex:
    """The proteins of an input that structures show; of copies of a protein the first alone counts.

    Args:
        chains: of all structures.
        num_held: of the first so many records the contacts are held, to be shown.

    Attributes:
        shown: the proteins, in the order of the input.
        contacts: (residues, residues), bool, by sequence, of those that are held.
    """

    def __init__(self, chains: Sequence[Chain], num_held: int) -> None:
        self._chains, self._num_held = chains, num_held
        self.shown: list[MatchedProtein] = []
        self.contacts: dict[str, NDArray[np.bool_]] = {}
        self._seen: set[str] = set()
        self._partial: list[tuple[Record, ChainAlignment]] = []  # of proteins of which too little is observed
        self._features: list[NDArray[np.float32]] = []
        self._pairs: list[ResiduePairs] = []

    def find(self, row: int, record: Record) -> ResiduePairs | None:
        """List the pairs of residues that a structure shows; None where none does, or a copy has been looked up.

        Args:
            row: of the record, from 0.
            record: the protein.
        """
        if not self._chains or record.sequence in self._seen:
            return None
        self._seen.add(record.sequence)
        match = best_chain(record.sequence, self._chains)
        if match is None:
            return None
        if not match.is_enough:
            self._partial.append((record, match))
            return None
        is_contact, is_known = contact_map(distances(match))
        pairs = pairs_of(is_contact, is_known, record.sequence)
        if row < self._num_held:
            self.contacts[record.sequence] = is_contact
        num_contacts = int(pairs.is_contact.sum())
        self.shown.append(MatchedProtein(row=row, record=record, match=match, num_contacts=num_contacts))
        return pairs

    def warnings(self) -> list[str]:
        """Say which structures are not of the usual kind, and which cover too little of a protein to be used."""
        notes = [(shown.match.chain, shown.match.chain.notes) for shown in self.shown]
        alpha = [_named(chain) for chain, _ in notes if chain.atoms == "CA"]
        virtual = [_named(chain) for chain, _ in notes if chain.atoms == "virtual CB"]
        repeated = [f"{_named(chain)} ({found.num_repeated:,})" for chain, found in notes if found.num_repeated]
        partial = [
            f"{_named(match.chain)} covers {int(match.coverage * len(record.sequence) + 0.5):,} of "
            f"{pluralize(len(record.sequence), 'residue')} of {record.id!r} (coverage {match.coverage:.2f})"
            for record, match in self._partial
        ]
        sentences = {
            "only C-alpha atoms in the file, so contacts are between C-alpha atoms, not C-beta": alpha,
            "no side chains in the file, so C-beta positions were computed from the backbone": virtual,
            "atoms that are in one residue twice, of which the first was used": repeated,
            f"not used, because at least {MIN_COVERAGE:g} of a protein must be covered": partial,
        }
        return [f"{sentence}: {_listed(items)}" for sentence, items in sentences.items() if items]

    def take(self, pairs: ResiduePairs, features: NDArray[np.float32]) -> None:
        """Take in what the heads give to the pairs of a protein, (heads, pairs)."""
        self._pairs.append(pairs)
        self._features.append(features)

    def weigh(self, own: ContactPredictor | None, *, num_permutations: int, seed: int) -> ContactEvaluation:
        """Weigh what was taken in; see `evaluate_contacts`."""
        return evaluate_contacts(self._features, self._pairs, own, num_permutations=num_permutations, seed=seed)


def _named(chain: Chain) -> str:
    name = printable(chain.structure)
    return f"{name} chain {printable(chain.name)}" if chain.name else name


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _MOST_NAMED
    return "; ".join([*items[:_MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])])
