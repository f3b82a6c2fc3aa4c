"""Matches of proteins to structures, and the attention features of their residue pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor, evaluate_contacts
from protembed.attention.contacts import ResiduePairs
from protembed.data.fasta import Record
from protembed.data.structures import MIN_COVERAGE, Chain, ChainAlignment, best_chain, contact_map, distances
from protembed.text import pluralize, printable

_MAX_LISTED = 3


@dataclass(kw_only=True)
class MatchedProtein:
    """A protein that matches a structure.

    Attributes:
        pairs: Residue pairs whose contact state is known.
        features: Features of these pairs, (heads, pairs); None before they are computed.
        held_out: Scores of these pairs, (pairs,), by the regression over the heads when fitted without this protein;
            None if there is no such regression, or if the model predicts contacts itself.
    """

    record: Record
    match: ChainAlignment
    pairs: ResiduePairs
    features: NDArray[np.float32] | None = None
    held_out: NDArray[np.float64] | None = None


class StructureIndex:
    """The proteins of an input that match a structure; copies of a protein count once.

    Attributes:
        matched: Matched proteins by sequence, in the order of the input.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = chains
        self.matched: dict[str, MatchedProtein] = {}
        self._seen: set[str] = set()
        self._partial: list[tuple[Record, ChainAlignment]] = []  # proteins with insufficient coverage

    def match(self, record: Record) -> ResiduePairs | None:
        """Match a protein to the structures.

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
        pairs = ResiduePairs.from_contact_map(*contact_map(distances(match)), record.sequence)
        self.matched[record.sequence] = MatchedProtein(record=record, match=match, pairs=pairs)
        return pairs

    def of(self, record: Record) -> MatchedProtein | None:
        """Return the match of a protein or of its earlier copy; None without a structure."""
        return self.matched.get(record.sequence)

    def warnings(self) -> list[str]:
        """List the structures with unusual atoms, and those that cover too little of a protein."""
        chains = [protein.match.chain for protein in self.matched.values()]
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

    def add(self, record: Record, features: NDArray[np.float32]) -> None:
        """Add the features of a matched protein's pairs, (heads, pairs)."""
        self.matched[record.sequence].features = features

    def evaluate(self, model_head: ContactPredictor | None, *, num_permutations: int, seed: int) -> ContactEvaluation:
        """Evaluate heads and predictors on the matched proteins with `evaluate_contacts`."""
        matched = self.matched.values()
        features = [protein.features for protein in matched if protein.features is not None]
        pairs = [protein.pairs for protein in matched]
        evaluation = evaluate_contacts(features, pairs, model_head, num_permutations=num_permutations, seed=seed)
        if model_head is None:
            for protein in matched:
                protein.held_out = evaluation.held_out.get(protein.record.sequence)
        return evaluation


def _chain_name(chain: Chain) -> str:
    name = printable(chain.structure)
    return f"{name} chain {printable(chain.name)}" if chain.name else name


def _join_items(items: Sequence[str]) -> str:
    more = len(items) - _MAX_LISTED
    return "; ".join([*items[:_MAX_LISTED], *([f"and {more:,} more"] if more > 0 else [])])
