"""Which structures show which proteins, and what heads give to the pairs of residues that are seen there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.contact_heads import Combination
from protembed.analysis.contacts import Pairs, pairs_of
from protembed.analysis.evidence import ContactEvidence, weigh_contacts
from protembed.data.fasta import Record
from protembed.data.structures import Chain, Match, contact_map, distances, match_chain


@dataclass(frozen=True, kw_only=True)
class ShownByStructure:
    """A protein that a structure shows.

    Attributes:
        row: of the record, from 0.
        record: the protein.
        match: the chain that shows it best.
        num_contacts: pairs in contact, at least 6 apart.
    """

    row: int
    record: Record
    match: Match
    num_contacts: int


class StructureMatches:
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
        self.shown: list[ShownByStructure] = []
        self.contacts: dict[str, NDArray[np.bool_]] = {}
        self._seen: set[str] = set()
        self._features: list[NDArray[np.float32]] = []
        self._pairs: list[Pairs] = []

    def find(self, row: int, record: Record) -> Pairs | None:
        """List the pairs of residues that a structure shows; None where none does, or a copy has been looked up.

        Args:
            row: of the record, from 0.
            record: the protein.
        """
        if not self._chains or record.sequence in self._seen:
            return None
        self._seen.add(record.sequence)
        match = match_chain(record.sequence, self._chains)
        if match is None:
            return None
        is_contact, is_known = contact_map(distances(match))
        pairs = pairs_of(is_contact, is_known)
        if row < self._num_held:
            self.contacts[record.sequence] = is_contact
        num_contacts = int(pairs.is_contact.sum())
        self.shown.append(ShownByStructure(row=row, record=record, match=match, num_contacts=num_contacts))
        return pairs

    def take(self, pairs: Pairs, features: NDArray[np.float32]) -> None:
        """Take in what the heads give to the pairs of a protein, (heads, pairs)."""
        self._pairs.append(pairs)
        self._features.append(features)

    def weigh(self, own: Combination | None, *, num_permutations: int, seed: int) -> ContactEvidence:
        """Weigh what was taken in; see `weigh_contacts`."""
        return weigh_contacts(self._features, self._pairs, own, num_permutations=num_permutations, seed=seed)
