from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protembed.attention.structure_matching import StructureIndex
from protembed.data.fasta import Record
from protembed.data.structures import best_chain, contact_map, distances, read_chains

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"


@pytest.fixture(scope="module")
def chains():
    return [chain for path in sorted(STRUCTURES.glob("*.gz")) for chain in read_chains(path)[:1]]


def record(row, sequence):
    return Record(id=f"p{row}", description=f"p{row}", sequence=sequence, path="x.fasta", line=1, row=row)


def test_copies_of_a_protein_are_matched_once(chains):
    index = StructureIndex(chains)

    pairs_by_row = [index.match(record(row, chains[row % 2].sequence)) for row in range(4)]

    assert [pairs is not None for pairs in pairs_by_row] == [True, True, False, False]
    assert [(protein.record.id, protein.match.chain.structure) for protein in index.matched.values()] == [
        ("p0", chains[0].structure),
        ("p1", chains[1].structure),
    ]


def test_contacts_of_a_matched_protein_and_its_copies_are_those_of_the_structure(chains):
    index = StructureIndex(chains[:1])
    index.match(record(0, chains[0].sequence))

    expected, _ = contact_map(distances(best_chain(chains[0].sequence, chains)))
    assert np.array_equal(index.of(record(7, chains[0].sequence)).pairs.contact_map(), expected)
    assert index.of(record(1, chains[1].sequence)) is None


def test_warning_names_chains_with_insufficient_coverage(chains):
    index = StructureIndex(chains)
    proteins = [chains[row].sequence + "W" * 400 for row in range(len(chains))]

    assert [index.match(record(row, sequence)) for row, sequence in enumerate(proteins)] == [None] * 3
    assert index.warnings() == [
        "not used, because a structure must cover at least 0.5 of a protein: "
        "1A8O chain A covers 70 of 470 residues of 'p0' (coverage 0.15); "
        "1S3P-A chain A covers 109 of 509 residues of 'p1' (coverage 0.21); "
        "pdb1ejg chain A covers 46 of 446 residues of 'p2' (coverage 0.10)"
    ]


def test_chain_with_insufficient_coverage_is_not_named_if_another_suffices(chains):
    part = replace(
        chains[1],
        name="part",
        sequence=chains[1].sequence[:40],
        coordinates=chains[1].coordinates[:40],
        breaks=chains[1].breaks[:40],
    )
    index = StructureIndex([part, chains[1]])

    assert index.match(record(0, chains[1].sequence)) is not None
    assert index.warnings() == []


def test_warnings_name_structures_without_side_chains_or_with_duplicate_atoms(chains):
    repeated = replace(chains[2].statistics, num_repeated=4)
    kinds = [
        replace(chains[0], atoms="CA"),
        replace(chains[1], atoms="virtual CB"),
        replace(chains[2], statistics=repeated),
    ]
    index = StructureIndex(kinds)

    for row, chain in enumerate(kinds):
        index.match(record(row, chain.sequence))

    assert index.warnings() == [
        "only C-alpha atoms in the file, so contacts are between C-alpha atoms, not C-beta: 1A8O chain A",
        "no side chains in the file, so C-beta positions are computed from the backbone: 1S3P-A chain A",
        "duplicate atoms in a residue, of which the first is used: pdb1ejg chain A (4)",
    ]


def test_warning_names_three_structures_and_counts_the_others(chains):
    kinds = [replace(chains[1], atoms="CA", sequence=f"{letter * 3}{chains[1].sequence[3:]}") for letter in "MKVLY"]
    index = StructureIndex(kinds)

    for row, chain in enumerate(kinds):
        index.match(record(row, chain.sequence))

    assert index.warnings()[0].endswith("C-beta: 1S3P-A chain A; 1S3P-A chain A; 1S3P-A chain A; and 2 more")


def test_nothing_is_matched_without_structures():
    assert StructureIndex([]).match(record(0, "MKTAYIAKQR")) is None
