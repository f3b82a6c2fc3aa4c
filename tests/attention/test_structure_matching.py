from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protembed.attention.structure_matching import StructureIndex
from protembed.attention.structures import read_chains
from protembed.data.fasta import Record

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"


@pytest.fixture(scope="module")
def chains():
    return [chain for path in sorted(STRUCTURES.glob("*.gz")) for chain in read_chains(path)[:1]]


def record(identifier, sequence):
    return Record(id=identifier, description=identifier, sequence=sequence, path="x.fasta", line=1, row=0)


def test_the_first_of_several_copies_counts(chains):
    matches = StructureIndex(chains, num_held=1)

    found = [matches.find(row, record(f"p{row}", chains[row % 2].sequence)) for row in range(4)]

    assert [pairs is not None for pairs in found] == [True, True, False, False]
    assert [(one.row, one.record.id, one.match.chain.structure) for one in matches.shown] == [
        (0, "p0", chains[0].structure),
        (1, "p1", chains[1].structure),
    ]
    assert [one.num_contacts for one in matches.shown] == [int(pairs.is_contact.sum()) for pairs in found[:2]]


def test_contacts_are_held_of_what_will_be_shown(chains):
    matches = StructureIndex(chains, num_held=1)
    pairs = [matches.find(row, record(f"p{row}", chains[row].sequence)) for row in range(2)]

    assert matches.contacts.keys() == {chains[0].sequence}
    is_contact = matches.contacts[chains[0].sequence]
    assert np.array_equal(is_contact, is_contact.T)
    assert is_contact.sum() == 2 * pairs[0].is_contact.sum()


def test_a_chain_that_covers_too_little_is_not_used_and_named_with_its_coverage(chains):
    matches = StructureIndex(chains, num_held=1)
    proteins = [chains[row].sequence + "W" * 400 for row in range(len(chains))]

    assert [matches.find(row, record(f"p{row}", sequence)) for row, sequence in enumerate(proteins)] == [None] * 3
    assert matches.warnings() == [
        "not used, because at least 0.5 of a protein must be covered: 1A8O chain A covers 70 of 470 residues of 'p0' "
        "(coverage 0.15); 1S3P-A chain A covers 109 of 509 residues of 'p1' (coverage 0.21); "
        "pdb1ejg chain A covers 46 of 446 residues of 'p2' (coverage 0.10)"
    ]


def test_a_chain_that_covers_too_little_is_not_named_where_another_covers_enough(chains):
    part = replace(
        chains[1],
        name="part",
        sequence=chains[1].sequence[:40],
        coordinates=chains[1].coordinates[:40],
        breaks=chains[1].breaks[:40],
    )
    matches = StructureIndex([part, chains[1]], num_held=1)

    assert matches.find(0, record("p", chains[1].sequence)) is not None
    assert matches.warnings() == []


def test_structures_without_side_chains_and_with_repeated_atoms_are_named(chains):
    repeated = replace(chains[2].notes, num_repeated=4)
    kinds = [replace(chains[0], atoms="CA"), replace(chains[1], atoms="virtual CB"), replace(chains[2], notes=repeated)]
    matches = StructureIndex(kinds, num_held=1)

    for row, chain in enumerate(kinds):
        matches.find(row, record(f"p{row}", chain.sequence))

    assert matches.warnings() == [
        "only C-alpha atoms in the file, so contacts are between C-alpha atoms, not C-beta: 1A8O chain A",
        "no side chains in the file, so C-beta positions were computed from the backbone: 1S3P-A chain A",
        "atoms that are in one residue twice, of which the first was used: pdb1ejg chain A (4)",
    ]


def test_of_many_structures_three_are_named_and_the_others_counted(chains):
    kinds = [replace(chains[1], atoms="CA", sequence=f"{letter * 3}{chains[1].sequence[3:]}") for letter in "MKVLY"]
    matches = StructureIndex(kinds, num_held=1)

    for row, chain in enumerate(kinds):
        matches.find(row, record(f"p{row}", chain.sequence))

    assert matches.warnings()[0].endswith("C-beta: 1S3P-A chain A; 1S3P-A chain A; 1S3P-A chain A; and 2 more")


def test_without_structures_nothing_is_looked_up():
    assert StructureIndex([], num_held=5).find(0, record("p", "MKTAYIAKQR")) is None
