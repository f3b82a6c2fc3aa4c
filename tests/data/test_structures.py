import gzip
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from protembed.data.structures import (
    CONTACT_DISTANCE,
    MIN_SEPARATION,
    Chain,
    ChainAlignment,
    ChainStatistics,
    best_chain,
    contact_map,
    distances,
    read_chains,
    read_structures,
    structure_files,
)
from protembed.errors import StructureError

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"
NO_SPECIAL_CASES = {field: 0 for field in ChainStatistics.__dataclass_fields__}
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"


def special_cases(chain):
    return {name: count for name, count in vars(chain.statistics).items() if count}


def make_chain(sequence, *, breaks_after=(), name="A"):
    """Make a chain with residues 3.7 Å apart on a line, as if it had been read."""
    coordinates = np.zeros((len(sequence), 3))
    coordinates[:, 0] = 3.7 * np.arange(len(sequence))
    breaks = np.zeros(len(sequence), dtype=bool)
    breaks[list(breaks_after)] = True
    return Chain(
        name=name,
        structure="1abc",
        sequence=sequence,
        atoms="CB",
        coordinates=coordinates,
        numbers=[str(row) for row in range(len(sequence))],
        breaks=breaks,
        statistics=ChainStatistics(**NO_SPECIAL_CASES),
    )


# Real structures


# Observed residues, contacts 24 and more apart, contacts 6 and more apart, as counted by another program.
REAL = {
    "1A8O.cif.gz": ((70, 35, 77), {"num_modified": 4, "num_waters": 88}),
    "1S3P-A.pdb.gz": ((109, 87, 166), {}),
    # Two of the residues have two names.
    "pdb1ejg.pdb.gz": ((46, 36, 67), {"num_altlocs": 17}),
}


@pytest.mark.parametrize(("file", "counts", "special"), [(file, *known) for file, known in REAL.items()], ids=REAL)
def test_contacts_of_real_structures_equal_the_counts_of_another_program(file, counts, special):
    (chain,) = read_chains(STRUCTURES / file)
    match = best_chain(chain.sequence, [chain])

    is_contact, is_known = contact_map(distances(match))
    first, second = np.nonzero(np.triu(is_contact))

    assert (len(chain.sequence), np.sum(second - first >= 24), len(first)) == counts
    assert (chain.name, chain.structure) == ("A", file.split(".")[0])
    assert is_known.all()
    assert special_cases(chain) == special
    assert (match.identity, match.coverage) == (1, 1)
    assert not chain.breaks.any()


def test_real_chain_with_unobserved_loops_aligns_to_the_whole_protein():
    (chain,) = read_chains(STRUCTURES / "1S3P-A.pdb.gz")
    observed = np.r_[3:40, 52:100]
    partial = replace(
        chain,
        sequence="".join(chain.sequence[row] for row in observed),
        coordinates=chain.coordinates[observed],
        breaks=np.diff(observed, append=observed[-1] + 1) > 1,
    )

    whole = distances(best_chain(chain.sequence, [chain]))
    match = best_chain(chain.sequence, [partial])
    measured = distances(match)

    assert np.flatnonzero(match.indices >= 0).tolist() == observed.tolist()
    assert match.coverage == len(observed) / 109
    assert np.array_equal(measured[np.ix_(observed, observed)], whole[np.ix_(observed, observed)])
    assert np.isnan(measured[40:52]).all()
    assert np.isnan(measured[:, :3]).all()


# Alignments


@pytest.mark.parametrize(("left", "right"), [("MKTAG", "SWYLVE"), ("MKTA", "GSWYLVE")])
def test_ambiguous_gap_is_placed_where_the_chain_is_interrupted(left, right):
    chain = make_chain(left + right, breaks_after=[len(left) - 1])

    match = best_chain("MKTAGTGSWYLVE", [chain])

    assert match.indices[: len(left)].tolist() == list(range(len(left)))
    assert match.indices[len(left) : len(left) + 2].tolist() == [-1, -1]
    assert match.indices[len(left) + 2 :].tolist() == list(range(len(left), 11))


def test_unambiguous_gap_stays_in_place_despite_a_nearby_interruption():
    chain = make_chain("MKTAG" + "SWYLVE", breaks_after=[2, 8])

    assert best_chain("MKTAGTQSWYLVE", [chain]).indices.tolist() == [0, 1, 2, 3, 4, -1, -1, 5, 6, 7, 8, 9, 10]


def test_gap_near_the_first_residue_is_not_moved_beyond_it():
    chain = make_chain("MKT" + "GSWYLVED", breaks_after=[8])

    assert best_chain("MKTAGSWYLVED", [chain]).indices.tolist() == [0, 1, 2, -1, 3, 4, 5, 6, 7, 8, 9, 10]


def test_short_segment_behind_a_long_loop_is_aligned():
    sequence = SEQUENCE * 3

    match = best_chain(sequence + "W" * 90 + "CDPGN", [make_chain(sequence + "CDPGN", breaks_after=[95])])

    assert match.indices[-5:].tolist() == [96, 97, 98, 99, 100]


def test_different_residues_at_the_end_are_not_aligned():
    match = best_chain(SEQUENCE, [make_chain("GSHW" + SEQUENCE[4:])])

    assert match.indices.tolist() == [-1] * 4 + list(range(4, 32))


def test_gaps_within_repeats_are_placed_at_the_interruptions():
    sequence = "MKTLWYHHHHHHHHDEFPGSGSGSGSGSVLNQ"
    observed = np.r_[0:7, 10:20, 24:32]
    chain = make_chain("".join(sequence[row] for row in observed), breaks_after=[6, 16])

    assert np.flatnonzero(best_chain(sequence, [chain]).indices >= 0).tolist() == observed.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_random_unobserved_loops_are_located_exactly(seed):
    rng = random.Random(seed)
    sequence = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=200))
    cuts = sorted(rng.sample(range(10, 190, 10), 4))
    loops = {row for cut in cuts for row in range(cut, cut + rng.randint(1, 9))}
    observed = [row for row in range(rng.randint(0, 5), 200) if row not in loops]
    breaks = [row for row, (residue, following) in enumerate(pairwise(observed)) if following - residue > 1]
    chain = make_chain("".join(sequence[row] for row in observed), breaks_after=breaks)

    match = best_chain(sequence, [chain])

    assert np.flatnonzero(match.indices >= 0).tolist() == observed
    assert match.indices[observed].tolist() == list(range(len(observed)))


def test_mutations_are_accepted_up_to_a_tenth_and_tags_are_ignored():
    protein_40 = SEQUENCE + "GDTQWAVC"
    mutate = {4: str.maketrans("Q", "P"), 5: str.maketrans("QW", "PP")}  # four letters Q, and one W

    match = best_chain(protein_40, [make_chain("GSHHHHHH" + protein_40.translate(mutate[4]) + "LEHHHH")])

    assert match.indices.tolist() == list(range(8, 48))
    assert (match.identity, match.coverage) == (36 / 40, 1)
    assert best_chain(protein_40, [make_chain(protein_40.translate(mutate[5]))]) is None


def test_chain_with_less_than_half_of_the_protein_is_a_partial_match():
    assert best_chain(SEQUENCE, [make_chain(SEQUENCE[:16])]).is_sufficient
    assert best_chain(SEQUENCE, [make_chain(SEQUENCE[:15])]) is None  # fifteen residues may belong to another protein

    match = best_chain(SEQUENCE * 3, [make_chain(SEQUENCE[:20]), make_chain(SEQUENCE, name="part")])
    assert (match.chain.name, match.is_sufficient, match.coverage) == ("part", False, 1 / 3)


def test_aligned_residues_without_coordinates_do_not_count_as_covered():
    chain = make_chain(SEQUENCE)
    chain.coordinates[:17] = np.nan

    match = best_chain(SEQUENCE, [chain])
    assert (match.identity, match.coverage, match.is_sufficient) == (1, 15 / 32, False)


@pytest.mark.parametrize("seed", range(5))
def test_random_proteins_are_no_partial_matches(seed):
    rng = random.Random(seed)
    long, short = ("".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=length)) for length in (600, 120))

    assert best_chain(long, [make_chain(short)]) is None


def test_unknown_residues_align_but_do_not_count_as_identical():
    half_known = make_chain(SEQUENCE[:16] + "X" * 16)

    match = best_chain(SEQUENCE, [half_known])

    assert match.indices.tolist() == list(range(32))
    assert match.identity == 1
    assert best_chain(SEQUENCE, [make_chain("X" * 32)]) is None
    assert best_chain("X" * 32, [make_chain(SEQUENCE)]) is None


def test_rare_letters_are_aligned_like_all_others():
    assert best_chain("MKUTOBZJAY", [make_chain("MKUTOBZJAY")]).identity == 1


def test_best_chain_is_the_most_complete_and_the_first_of_equals():
    candidates = [make_chain("W" * 20, name="other"), make_chain(SEQUENCE[:20], name="short")]
    candidates += [make_chain(SEQUENCE, name="first"), make_chain(SEQUENCE, name="second")]

    assert best_chain(SEQUENCE, candidates).chain.name == "first"
    assert best_chain(SEQUENCE, candidates[:2]).chain.name == "short"
    assert best_chain(SEQUENCE, candidates[:1]) is None
    assert best_chain(SEQUENCE, []) is None


# Distances and contacts


def test_distances_are_nan_for_unobserved_residues():
    chain = make_chain("MKT")
    chain.coordinates[1] = np.nan

    measured = distances(ChainAlignment(chain=chain, indices=np.array([-1, 0, 1, 2]), identity=1, coverage=0.75))

    unknown = np.nan
    expected = [[unknown] * 4, [unknown, 0, unknown, 7.4], [unknown] * 4, [unknown, 7.4, unknown, 0]]
    assert np.allclose(measured, expected, equal_nan=True)
    assert measured.dtype == np.float32


def test_contact_is_closer_than_eight_angstroms_and_six_apart():
    apart = np.full((9, 9), 20, dtype=np.float32)
    for first, second, value in [(0, 6, 7.99), (0, 5, 3.0), (1, 7, 8.0), (2, 8, np.nan)]:
        apart[first, second] = apart[second, first] = value

    is_contact, is_known = contact_map(apart)

    assert np.argwhere(is_contact).tolist() == [[0, 6], [6, 0]]
    assert np.argwhere(~is_known).tolist() == [[2, 8], [8, 2]]
    assert (CONTACT_DISTANCE, MIN_SEPARATION) == (8.0, 6)


# Folders

REAL_TEXT = gzip.decompress((STRUCTURES / "1S3P-A.pdb.gz").read_bytes()).decode()


def test_structures_of_a_folder_are_selected_by_suffix_and_sorted(tmp_path):
    names = ["b.PDB", "a.cif.gz", "pdb1abc.ent.xz", "1abc.pdb1.gz", "c.mmcif"]
    for name in [*names, "list.tsv", "README.md", ".hidden.pdb", "seqs.fasta.gz"]:
        (tmp_path / name).write_text("")
    (tmp_path / "folder.pdb").mkdir()

    assert [path.name for path in structure_files(tmp_path)] == sorted(names)
    assert structure_files(tmp_path / "list.tsv") == [tmp_path / "list.tsv"]


def test_a_path_that_is_too_long_is_left_to_the_reader_that_reports_it():
    path = Path("x" * 300)

    assert structure_files(path) == [path]


def test_folder_without_structures_raises_an_error(tmp_path):
    (tmp_path / "list.tsv").write_text("")

    with pytest.raises(StructureError, match="the folder holds no PDB or mmCIF file"):
        structure_files(tmp_path)


def test_unreadable_file_in_a_folder_is_skipped_with_a_warning(tmp_path):
    for name, text in [("a.pdb", "x"), ("b.pdb", REAL_TEXT), ("c.pdb", "y"), ("d.pdb.gz", "z")]:
        (tmp_path / name).write_text(text)

    chains, warnings = read_structures([tmp_path])

    assert [chain.structure for chain in chains] == ["b"]
    first = f"{tmp_path / 'a.pdb'}: this is neither a PDB nor an mmCIF file with atoms"
    assert len(warnings) == 1
    assert warnings[0].startswith(f"skipped 3 of 4 structures in {tmp_path}, which cannot be read; the first: {first}")


def test_unreadable_file_or_folder_of_unreadable_files_raises_an_error(tmp_path):
    (tmp_path / "good.pdb").write_text(REAL_TEXT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bad.pdb").write_text("x")

    for paths in ([tmp_path / "good.pdb", tmp_path / "folder" / "bad.pdb"], [tmp_path / "folder"]):
        with pytest.raises(StructureError, match=r"bad\.pdb: this is neither"):
            read_structures(paths)
