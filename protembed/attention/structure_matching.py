"""Matches of proteins to structures, and the attention features of their residue pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor, evaluate_contacts
from protembed.attention.contacts import ResiduePairs
from protembed.attention.structures import MIN_COVERAGE, Chain, ChainAlignment, best_chain, contact_map, distances
from protembed.data.fasta import Record
from protembed.text import pluralize, printable

_MAX_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class MatchedProtein:
    """A protein that matches a structure.

    Attributes:
        row: Row of the record in the input, from 0.
        match: Alignment to the best chain.
        num_contacts: Number of pairs in contact, at least 6 apart.
    """

    row: int
    record: Record
    match: ChainAlignment
    num_contacts: int


class StructureIndex:
    """The proteins of an input that match a structure; copies of a protein are ignored.

    Args:
        chains: Chains of all structures.
        num_displayed: Number of first records whose contacts are held for display.

    Attributes:
        matched: Matched proteins in the order of the input.
        contacts: Contacts of displayed proteins by sequence, (residues, residues), bool.
    """

    def __init__(self, chains: Sequence[Chain], num_displayed: int) -> None:
        self._chains, self._num_held = chains, num_displayed
        self.matched: list[MatchedProtein] = []
        self.contacts: dict[str, NDArray[np.bool_]] = {}
        self._seen: set[str] = set()
        self._partial: list[tuple[Record, ChainAlignment]] = []  # proteins with insufficient coverage
        self._features: list[NDArray[np.float32]] = []
        self._pairs: list[ResiduePairs] = []

    def match(self, row: int, record: Record) -> ResiduePairs | None:
        """Match a protein to the structures.

        Args:
            row: Row of the record in the input, from 0.
            record: Protein to match.

        Returns:
            The residue pairs whose contact state is known; None if no structure matches, or for a copy.
        """
        if not self._chains or record.sequence in self._seen:
            return None
        self._seen.add(record.sequence)
        match = best_chain(record.sequence, self._chains)
        if match is None:
            return None
        if not match.is_sufficient:
            self._partial.append((record, match))
            return None
        is_contact, is_known = contact_map(distances(match))
        pairs = ResiduePairs.from_contact_map(is_contact, is_known, record.sequence)
        if row < self._num_held:
            self.contacts[record.sequence] = is_contact
        num_contacts = int(pairs.is_contact.sum())
        self.matched.append(MatchedProtein(row=row, record=record, match=match, num_contacts=num_contacts))
        return pairs

    def warnings(self) -> list[str]:
        """List the structures with unusual atoms, and those that cover too little of a protein."""
        chains = [protein.match.chain for protein in self.matched]
        alpha = [_chain_name(chain) for chain in chains if chain.atoms == "CA"]
        virtual = [_chain_name(chain) for chain in chains if chain.atoms == "virtual CB"]
        repeated = [
            f"{_chain_name(chain)} ({chain.statistics.num_repeated:,})"
            for chain in chains
            if chain.statistics.num_repeated
        ]
        partial = [
            f"{_chain_name(match.chain)} covers {int(match.coverage * len(record.sequence) + 0.5):,} of "
            f"{pluralize(len(record.sequence), 'residue')} of {record.id!r} (coverage {match.coverage:.2f})"
            for record, match in self._partial
        ]
        sentences = {
            "only C-alpha atoms in the file, so contacts are between C-alpha atoms, not C-beta": alpha,
            "no side chains in the file, so C-beta positions are computed from the backbone": virtual,
            "duplicate atoms in a residue, of which the first is used": repeated,
            f"not used, because a structure must cover at least {MIN_COVERAGE:g} of a protein": partial,
        }
        return [f"{sentence}: {_join_items(items)}" for sentence, items in sentences.items() if items]

    def add(self, pairs: ResiduePairs, features: NDArray[np.float32]) -> None:
        """Add the features of a protein's pairs, (heads, pairs)."""
        self._pairs.append(pairs)
        self._features.append(features)

    def evaluate(self, model_head: ContactPredictor | None, *, num_permutations: int, seed: int) -> ContactEvaluation:
        """Evaluate heads and predictors on the added proteins with `evaluate_contacts`."""
        return evaluate_contacts(self._features, self._pairs, model_head, num_permutations=num_permutations, seed=seed)


def _chain_name(chain: Chain) -> str:
    name = printable(chain.structure)
    return f"{name} chain {printable(chain.name)}" if chain.name else name


def _join_items(items: Sequence[str]) -> str:
    more = len(items) - _MAX_LISTED
    return "; ".join([*items[:_MAX_LISTED], *([f"and {more:,} more"] if more > 0 else [])])
