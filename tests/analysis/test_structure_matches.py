from pathlib import Path

import numpy as np
import pytest

from protembed.analysis.structure_matches import StructureMatches
from protembed.data.fasta import Record
from protembed.data.structures import read_chains

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"


@pytest.fixture(scope="module")
def chains():
    return [chain for path in sorted(STRUCTURES.glob("*.gz")) for chain in read_chains(path)[:1]]


def record(identifier, sequence):
    return Record(id=identifier, description=identifier, sequence=sequence, path="x.fasta", line=1, row=0)


def test_the_first_of_several_copies_counts(chains):
    matches = StructureMatches(chains, num_held=1)

    found = [matches.find(row, record(f"p{row}", chains[row % 2].sequence)) for row in range(4)]

    assert [pairs is not None for pairs in found] == [True, True, False, False]
    assert [(one.row, one.record.id, one.match.chain.structure) for one in matches.shown] == [
        (0, "p0", chains[0].structure),
        (1, "p1", chains[1].structure),
    ]
    assert [one.num_contacts for one in matches.shown] == [int(pairs.is_contact.sum()) for pairs in found[:2]]


def test_contacts_are_held_of_what_will_be_shown(chains):
    matches = StructureMatches(chains, num_held=1)
    pairs = [matches.find(row, record(f"p{row}", chains[row].sequence)) for row in range(2)]

    assert matches.contacts.keys() == {chains[0].sequence}
    is_contact = matches.contacts[chains[0].sequence]
    assert np.array_equal(is_contact, is_contact.T)
    assert is_contact.sum() == 2 * pairs[0].is_contact.sum()


def test_without_structures_nothing_is_looked_up():
    assert StructureMatches([], num_held=5).find(0, record("p", "MKTAYIAKQR")) is None
