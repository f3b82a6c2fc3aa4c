import bz2
import gzip
import lzma
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from Bio.Data.PDBData import protein_letters_1to3
from Bio.PDB import MMCIFParser, PDBParser
from gemmi import cif

from protembed.data.structure_files import with_b_factors
from protembed.data.structures import (
    best_chain,
    contact_map,
    distances,
    read_chains,
)
from protembed.errors import DataError, FormatError, InputNotFoundError, StructureError

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"


@dataclass(frozen=True)
class Atom:
    """An atom of a structure that a test writes."""

    name: str
    residue: str
    number: int
    position: tuple[float, float, float]
    chain: str = "A"
    code: str = ""
    altloc: str = ""
    occupancy: float = 1.0
    is_hetero: bool = False
    model: int = 1


def residue(name, number, x, *, without=(), **fields):
    """Make a residue with its C-beta at (x, 3, 0), which is bonded to the residue 3.7 Å further in x."""
    positions = {"N": (x - 1.2, 0, 0), "CA": (x, 1, 0), "C": (x + 1.2, 0, 0), "CB": (x, 3, 0)}
    missing = (*without, "CB") if name == "GLY" else without
    return [Atom(atom, name, number, position, **fields) for atom, position in positions.items() if atom not in missing]


def protein(sequence, *, first=1, x=0.0, **fields):
    """Make a chain of bonded residues along a line."""
    names = [protein_letters_1to3[letter].upper() for letter in sequence]
    return [atom for row, name in enumerate(names) for atom in residue(name, first + row, x + 3.7 * row, **fields)]


def pdb(atoms, *, modified=()):
    lines = [f"MODRES 1ABC {name:3} A {1:4}  {parent:3}  A MODIFIED RESIDUE" for name, parent in modified]
    for model in sorted({atom.model for atom in atoms}):
        lines.append(f"MODEL     {model:4}")
        for serial, atom in enumerate((atom for atom in atoms if atom.model == model), start=1):
            record = "HETATM" if atom.is_hetero else "ATOM"
            x, y, z = atom.position
            identity = f"{atom.altloc or ' ':1}{atom.residue:3} {atom.chain:1}{atom.number:4}{atom.code or ' ':1}"
            numbers = f"{x:8.3f}{y:8.3f}{z:8.3f}{atom.occupancy:6.2f}{20:6.2f}"
            lines.append(f"{record:6}{serial:5}  {atom.name:3}{identity}   {numbers}          {atom.name[0]:>2}")
        lines.append("ENDMDL")
    return "\n".join([*lines, "END", ""])


ATOM_FIELDS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id auth_asym_id auth_seq_id pdbx_PDB_ins_code "
    "Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv pdbx_PDB_model_num"
).split()


def mmcif(atoms, *, modified=()):
    lines = ["data_1ABC", "#", "loop_", *(f"_atom_site.{field}" for field in ATOM_FIELDS)]
    for serial, atom in enumerate(atoms, start=1):
        group = "HETATM" if atom.is_hetero else "ATOM"
        identity = (
            atom.name[0],
            atom.name,
            atom.altloc or ".",
            atom.residue,
            atom.chain,
            atom.number,
            atom.code or "?",
        )
        lines.append(" ".join(map(str, [group, serial, *identity, *atom.position, atom.occupancy, 20.0, atom.model])))
    if modified:
        fields = ("label_comp_id", "parent_comp_id")
        lines += ["#", "loop_", *(f"_pdbx_struct_mod_residue.{field}" for field in fields), *map(" ".join, modified)]
    return "\n".join([*lines, "#", ""])


@pytest.fixture(params=[pdb, mmcif], ids=["pdb", "mmcif"])
def chains(request, tmp_path):
    """Return a function that writes atoms as PDB or mmCIF, and reads the chains."""

    def write_and_read(atoms, **options):
        path = tmp_path / "1abc.ent"
        path.write_text(request.param(atoms, **options))
        return read_chains(path)

    return write_and_read


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a file and reads its chains."""

    def write_and_read(content, name="1abc.pdb"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_chains(path)

    return write_and_read


def special_cases(chain):
    return {name: count for name, count in vars(chain.statistics).items() if count}


# Formats


SMALL = protein("MGK")
FORMS = {
    "pdb": pdb(SMALL).encode(),
    "mmcif": mmcif(SMALL).encode(),
    "gz": gzip.compress(pdb(SMALL).encode()),
    "bz2": bz2.compress(mmcif(SMALL).encode()),
    "xz": lzma.compress(mmcif(SMALL).encode()),
    "pdb crlf": pdb(SMALL).replace("\n", "\r\n").encode(),
    "mmcif crlf": mmcif(SMALL).replace("\n", "\r\n").encode(),
    "cr": pdb(SMALL).replace("\n", "\r").encode(),
    "byte-order mark": b"\xef\xbb\xbf" + mmcif(SMALL).encode(),
    "comments before": b"\n# made by hand\n\n" + mmcif(SMALL).encode(),
    "no end": pdb(SMALL).removesuffix("ENDMDL\nEND\n").encode(),
}


@pytest.mark.parametrize("name", ["a.pdb", "a.cif.gz", "a"])
@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_structure_is_read_from_every_format_under_any_name(read, content, name):
    (chain,) = read(content, name)

    assert (chain.name, chain.structure, chain.sequence, chain.numbers) == ("A", "a", "MGK", ["1", "2", "3"])
    assert np.allclose(chain.coordinates, [(0, 3, 0), (3.7, 1, 0), (7.4, 3, 0)])
    assert chain.coordinates.dtype == np.float64
    assert special_cases(chain) == {}


@pytest.mark.parametrize("name", ["my.own.v2.pdb.gz", "my.own.v2.CIF", "my.own.v2.pdb1", "my.own.v2"])
def test_structure_name_is_the_file_name_without_structure_suffixes(read, name):
    assert [chain.structure for chain in read(pdb(SMALL), name)] == ["my.own.v2"]


def test_only_the_first_model_is_read(chains):
    (chain,) = chains([*protein("MK", model=1), *protein("MKV", x=50, model=2)])

    assert chain.sequence == "MK"
    assert chain.coordinates[0, 0] == 0


def test_only_protein_chains_are_read(chains):
    dna = [Atom("P", "DA", 1, (0, 0, 0), chain="D"), Atom("C1'", "DA", 1, (1, 0, 0), chain="D")]
    water = [Atom("O", "HOH", 9, (0, 0, 0), chain="W", is_hetero=True)]

    read = chains([*protein("MK", chain="B"), *dna, *protein("GG", chain="A"), *water])

    assert [(chain.name, chain.sequence) for chain in read] == [("B", "MK"), ("A", "GG")]


def test_unnamed_chain_has_an_empty_name(read):
    assert [chain.name for chain in read(pdb(protein("MK", chain=" ")))] == [""]


def test_first_alternative_location_is_used_at_any_occupancy(chains):
    first, second = (
        protein("MK", altloc=letter, occupancy=occupancy, x=x)
        for letter, occupancy, x in [("A", 0.2, 0), ("B", 0.8, 1)]
    )
    atoms = [atom for pair in zip(first, second, strict=True) for atom in pair]

    (chain,) = chains([*atoms, *residue("VAL", 3, 7.4)])

    assert chain.coordinates[:, 0].tolist() == pytest.approx([0, 3.7, 7.4])
    assert special_cases(chain) == {"num_altlocs": 2}


@pytest.mark.parametrize(("first", "second", "expected"), [("A", "B", 0), ("B", "A", 1), ("", "B", 0)])
def test_alternative_location_with_the_first_letter_or_none_is_used(chains, first, second, expected):
    atoms = [Atom("CB", "MET", 1, (x, 3, 0), altloc=letter) for x, letter in enumerate([first, second])]

    (chain,) = chains([*residue("MET", 1, 0, without=["CB"]), *atoms, *residue("LYS", 2, 3.7)])

    assert chain.coordinates[0].tolist() == [expected, 3, 0]
    assert special_cases(chain) == {"num_altlocs": 1}


def test_first_of_two_alternative_residues_is_used(chains):
    atoms = [*residue("SER", 1, 0, altloc="A", occupancy=0.4), *residue("PRO", 1, 1, altloc="B", occupancy=0.6)]

    (chain,) = chains([*atoms, *residue("LYS", 2, 3.7)])

    assert (chain.sequence, chain.coordinates[0, 0]) == ("SK", 0)
    assert special_cases(chain) == {"num_altlocs": 1}


def test_first_of_a_residue_and_its_modified_form_is_used(chains):
    modified = residue("SEP", 1, 0, altloc="B", is_hetero=True)

    (chain,) = chains([*residue("SER", 1, 0, altloc="A"), *modified, *residue("LYS", 2, 3.7)])

    assert (chain.sequence, chain.numbers) == ("SK", ["1", "2"])
    assert special_cases(chain) == {"num_altlocs": 1}


def test_residues_with_insertion_codes_are_separate_and_numbers_may_fall(chains):
    residues = [("MET", 52, ""), ("LYS", 52, "A"), ("VAL", 52, "B"), ("LEU", 7, ""), ("ALA", -3, "")]
    atoms = [
        atom
        for row, (name, number, code) in enumerate(residues)
        for atom in residue(name, number, 3.7 * row, code=code)
    ]

    (chain,) = chains(atoms)

    assert (chain.sequence, chain.numbers) == ("MKVLA", ["52", "52A", "52B", "7", "-3"])
    assert special_cases(chain) == {"num_insertions": 2}


def test_glycine_uses_its_alpha_carbon_and_incomplete_residues_have_no_atom(chains):
    atoms = [*residue("GLY", 1, 0), *residue("SER", 2, 3.7, without=["CA"])]
    atoms += [*residue("ALA", 3, 7.4, without=["CB", "N"]), *protein("K", first=4, x=11.1)]

    (chain,) = chains(atoms)

    assert (chain.sequence, chain.atoms) == ("GSAK", "CB")
    assert chain.coordinates[[0, 1]].tolist() == pytest.approx(np.array([(0, 1, 0), (3.7, 3, 0)]))
    assert np.isnan(chain.coordinates[2]).all()
    assert special_cases(chain) == {"num_without_atom": 1}


# Modified and hetero residues


def test_bonded_modified_residues_are_read_as_their_parents(chains):
    middle = residue("MSE", 2, 3.7, is_hetero=True)

    (chain,) = chains([*residue("GLY", 1, 0), *middle, *residue("SEC", 3, 7.4), *residue("LYS", 4, 11.1)])

    assert chain.sequence == "GMUK"
    assert special_cases(chain) == {"num_modified": 2}


def test_unknown_residue_is_read_as_the_parent_in_the_file(chains):
    atoms = [*residue("GLY", 1, 0), *residue("QQQ", 2, 3.7, is_hetero=True), *residue("LYS", 3, 7.4)]

    (known,) = chains(atoms, modified=[("QQQ", "TRP")])
    (unknown,) = chains(atoms)

    assert (known.sequence, special_cases(known)) == ("GWK", {"num_modified": 1})
    assert (unknown.sequence, special_cases(unknown)) == ("GXK", {"num_unknown": 1})


def test_listed_modified_residue_between_unobserved_residues_belongs_to_the_chain(chains):
    atoms = [*protein("GA"), *residue("MSE", 9, 30, is_hetero=True), *protein("KV", first=20, x=60)]

    (listed,) = chains(atoms, modified=[("MSE", "MET")])
    (unlisted,) = chains(atoms)

    assert (listed.sequence, listed.breaks.tolist()) == ("GAMKV", [False, True, True, False, False])
    assert (unlisted.sequence, special_cases(unlisted)) == ("GAKV", {"num_others": 1})


def test_listed_modified_residue_may_have_an_incomplete_backbone(chains):
    atoms = [*residue("GLY", 1, 0), *residue("MSE", 2, 3.7, is_hetero=True, without=["C"]), *residue("LYS", 3, 7.4)]

    assert [chain.sequence for chain in chains(atoms, modified=[("MSE", "MET")])] == ["GMK"]


def test_standard_residue_is_not_modified_even_if_the_file_lists_it(chains):
    ligand = residue("SER", 9, 60, is_hetero=True)

    (chain,) = chains([*protein("MSK"), *ligand], modified=[("SER", "CYS")])

    assert (chain.sequence, special_cases(chain)) == ("MSK", {"num_others": 1})


def test_waters_ligands_and_ions_are_omitted_and_counted(chains):
    water = [
        Atom("O", name, number, (0, 9, 9), is_hetero=True) for number, name in enumerate(["HOH", "DOD"], start=101)
    ]
    calcium = [Atom("CA", "CA", 201, (0, 9, 0), is_hetero=True), Atom("CA", "CA", 202, (0, 8, 0))]
    glutamate = residue("GLU", 301, 40, is_hetero=True)
    cap = [Atom("CH3", "ACE", 0, (-3, 0, 0), is_hetero=True), Atom("C", "ACE", 0, (-2.5, 0, 0), is_hetero=True)]

    (chain,) = chains([*cap, *protein("MK"), *glutamate, *calcium, *water])

    assert chain.sequence == "MK"
    assert special_cases(chain) == {"num_waters": 2, "num_others": 4}


def test_duplicate_atoms_are_counted(chains):
    (chain,) = chains([*protein("MK"), *residue("LYS", 2, 50)])

    assert (chain.sequence, chain.coordinates[1, 0]) == ("MK", pytest.approx(3.7))
    assert special_cases(chain) == {"num_repeated": 4}


def test_occupancies_and_b_factors_may_be_missing(read):
    (chain,) = read("".join(line[:54] + "\n" for line in pdb(SMALL).splitlines()))

    assert (chain.sequence, special_cases(chain)) == ("MGK", {})


def test_structure_with_an_invalid_header_is_read(read):
    header = "HEADER    HYDROLASE                               04-Moy-98   1ABC\nREMARK 350   BIOMT1   1  1.0\n"

    (chain,) = read(header + pdb(SMALL))

    assert chain.sequence == "MGK"


# Structures without side chains, or without coordinates


def real_text(name="1S3P-A"):
    return gzip.decompress((STRUCTURES / f"{name}.pdb.gz").read_bytes()).decode()


def select_atoms(text, *names):
    """Select the lines of atoms with these names."""
    return "".join(
        line + "\n" for line in text.splitlines() if line.startswith("ATOM") and line[12:16].strip() in names
    )


def contacts_of(chain):
    is_contact, _ = contact_map(distances(best_chain(chain.sequence, [chain])))
    return {(i, j) for i, j in np.argwhere(is_contact).tolist() if i < j}


def test_contacts_of_a_trace_are_between_alpha_carbons(read):
    (whole,) = read(real_text())
    (trace,) = read(select_atoms(real_text(), "CA"))

    alpha = np.array(
        [
            [float(line[start : start + 8]) for start in (30, 38, 46)]
            for line in select_atoms(real_text(), "CA").splitlines()
        ]
    )
    apart = np.linalg.norm(alpha[:, None] - alpha, axis=-1)
    expected = {(i, j) for i, j in np.argwhere(apart < 8).tolist() if j - i >= 6}

    assert (trace.atoms, special_cases(trace)) == ("CA", {})
    assert contacts_of(trace) == expected
    assert len(expected & contacts_of(whole)) > 0.7 * len(expected)
    assert best_chain(whole.sequence, [trace]).coverage == 1
    assert not trace.breaks.any()


def test_beta_carbons_are_computed_from_a_backbone(read):
    (whole,) = read(real_text())
    (backbone,) = read(select_atoms(real_text(), "N", "CA", "C", "O"))

    errors = np.linalg.norm(backbone.coordinates - whole.coordinates, axis=1)
    num_side_chains = sum(letter != "G" for letter in whole.sequence)

    assert (whole.atoms, backbone.atoms) == ("CB", "virtual CB")
    assert special_cases(backbone) == {"num_virtual": num_side_chains}
    assert np.median(errors[errors > 0]) < 0.1
    assert len(contacts_of(backbone) ^ contacts_of(whole)) <= 5


def test_beta_carbon_is_computed_for_a_missing_side_chain(read):
    lines = real_text().splitlines(keepends=True)
    (whole,) = read(real_text())
    (chain,) = read("".join(line for line in lines if line[12:16].strip() != "CB" or line[22:26].strip() != "40"))

    moved = np.flatnonzero((chain.coordinates != whole.coordinates).any(axis=1))

    assert (chain.atoms, special_cases(chain)) == ("CB", {"num_virtual": 1})
    assert [chain.numbers[row] for row in moved] == ["40"]
    assert np.linalg.norm(chain.coordinates[moved] - whole.coordinates[moved]) < 0.3


def test_alpha_carbons_represent_all_residues_if_most_have_no_other_atom(chains):
    (chain,) = chains([*[atom for atom in protein("MKVW") if atom.name == "CA"], *protein("LA", first=5, x=14.8)])

    assert chain.atoms == "CA"
    assert chain.coordinates[:, 1].tolist() == [1] * 6


@pytest.mark.parametrize("position", [(0, 0, 0), (9999, 9999, 9999), (float("nan"),) * 3])
def test_residues_without_coordinates_are_not_covered(chains, position):
    atoms = [replace(atom, position=position) if 5 <= atom.number <= 12 else atom for atom in protein(SEQUENCE)]

    match = best_chain(SEQUENCE, chains(atoms))

    assert match.chain.sequence == SEQUENCE
    assert np.flatnonzero(np.isnan(match.chain.coordinates).any(axis=1)).tolist() == list(range(4, 12))
    assert special_cases(match.chain) == {"num_without_atom": 8}
    assert (match.identity, match.coverage) == (1, 24 / 32)
    assert np.isnan(distances(match)[4:12]).all()


def test_coordinates_in_nm_raise_an_error(read):
    def scaled(line):
        coordinates = "".join(f"{float(line[start : start + 8]) / 10:8.3f}" for start in (30, 38, 46))
        return line[:30] + coordinates + line[54:]

    text = "\n".join(scaled(line) for line in real_text().splitlines() if line.startswith("ATOM"))

    with pytest.raises(
        StructureError, match=r"are 0\.5\d Å apart, but 4 to 7 Å in proteins; write the coordinates in Å; 1 nm is 10 Å"
    ):
        read(text)


def test_single_atom_at_the_origin_is_kept(chains):
    (chain,) = chains(protein("MK", x=0)[:3] + [Atom("CB", "MET", 1, (0, 0, 0))] + protein("K", first=2, x=3.7))

    assert chain.coordinates[0].tolist() == [0, 0, 0]


def test_coordinates_of_waters_and_ligands_may_be_unreadable(read):
    others = [Atom("O", "HOH", 9, (7.4, 0, 0)), Atom("CA", "CA", 10, (7.4, 0, 0), is_hetero=True)]

    (chain,) = read(pdb([*protein("MK"), *others]).replace("   7.400", "********"))

    assert (chain.sequence, special_cases(chain)) == ("MK", {"num_waters": 1, "num_others": 1})


# Numbers, names and chains


NUMBERS = {
    "hybrid-36": ["9998", "9999", "A000", "A001", "A002", "A003"],
    "asterisks": ["9998", "9999", "****", "****", "****", "****"],
    "none": ["", "", "", "", "", ""],
    "five digits": ["9998", "9999", "10000", "10001", "10002", "10003"],
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_residue_numbers_may_be_hybrid_36_asterisks_or_missing(read, numbers):
    text = pdb([*protein("MKKKG"), Atom("O", "HOH", 6, (9, 9, 9), is_hetero=True)])
    lines = [line for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))]

    (chain,) = read(
        "".join(f"{line[:22]}{numbers[int(line[22:26]) - 1]:>4}"[:27].ljust(27) + line[27:] + "\n" for line in lines)
    )

    assert (chain.sequence, chain.numbers) == ("MKKKG", numbers[:5])
    assert special_cases(chain) == {"num_waters": 1}


def test_mmcif_residues_without_numbers_are_separated_by_their_atoms(read):
    (chain,) = read(mmcif(protein("MKKKG")).replace("auth_seq_id", "something_else"))

    assert (chain.sequence, special_cases(chain)) == ("MKKKG", {})


NAMES_OF_STATES = {"HID": "H", "HIE": "H", "HIP": "H", "CYX": "C", "CYM": "C", "ASH": "D", "GLH": "E", "LYN": "K"}


@pytest.mark.parametrize("is_hetero", [False, True])
def test_protonation_states_are_read_as_their_amino_acids(chains, is_hetero):
    atoms = [
        atom
        for row, name in enumerate(NAMES_OF_STATES)
        for atom in residue(name, row + 1, 3.7 * row, is_hetero=is_hetero)
    ]

    (chain,) = chains(atoms)

    assert (chain.sequence, special_cases(chain)) == ("".join(NAMES_OF_STATES.values()), {})


def test_parent_in_the_file_overrides_a_protonation_state(chains):
    atoms = [*residue("MET", 1, 0), *residue("HSE", 2, 3.7, is_hetero=True), *residue("LYS", 3, 7.4)]

    (listed,) = chains(atoms, modified=[("HSE", "SER")])
    (unlisted,) = chains(atoms)

    assert (listed.sequence, unlisted.sequence) == ("MSK", "MHK")


def test_modified_residues_behind_the_chain_are_moved_to_their_bonds(chains):
    modified = [atom for number in (1, 4, 5, 8) for atom in residue("MSE", number, 3.7 * (number - 1), is_hetero=True)]

    (chain,) = chains([*protein("GA", first=2, x=3.7), *protein("KV", first=6, x=18.5), *modified])

    assert (chain.sequence, chain.numbers) == ("MGAMMKVM", [str(number) for number in range(1, 9)])
    assert not chain.breaks.any()
    assert special_cases(chain) == {"num_modified": 4}


TWO = real_text("pdb1ejg"), real_text()


@pytest.mark.parametrize("end", ["TER\n", ""], ids=["TER", "falling numbers"])
@pytest.mark.parametrize("order", [1, -1])
def test_two_proteins_under_one_chain_name_are_two_complete_chains(read, end, order):
    blank = [
        "".join(f"{line[:21]} {line[22:]}\n" for line in text.splitlines() if line.startswith("ATOM")) for text in TWO
    ]

    joined = read(end.join(blank[::order]))
    apart = [read(text)[0] for text in TWO[::order]]

    assert [(chain.name, chain.sequence) for chain in joined] == [("", chain.sequence) for chain in apart]
    assert all(
        np.array_equal(*pair)
        for pair in zip(*([chain.coordinates for chain in chains] for chains in (joined, apart)), strict=True)
    )
    assert [special_cases(chain) for chain in joined] == [special_cases(chain) for chain in apart]


def test_copies_of_a_protein_under_one_chain_name_are_separate_chains(chains):
    copies = chains([*protein("MKVLA", first=-1), *protein("MKVLA", first=-1, x=60), *protein("KVLA", x=120)])

    assert [chain.sequence for chain in copies] == ["MKVLA", "MKVLA", "KVLA"]
    assert [chain.coordinates[0, 0] for chain in copies] == [0, 60, 120]


def test_second_chain_begins_at_the_falling_number_not_at_the_first_repeated_one(chains):
    copies = chains([*protein("MKVLA", first=10), *protein("GSTWYMKV", first=7, x=60)])

    assert [chain.sequence for chain in copies] == ["MKVLA", "GSTWYMKV"]


def test_falling_numbers_without_repeats_belong_to_one_chain(chains):
    (chain,) = chains([*protein("MKV"), *protein("LAG", first=1002, x=30), *protein("WYS", first=20, x=60)])

    assert chain.sequence == "MKVLAGWYS"


def test_bonded_residues_belong_to_one_chain_with_any_numbers(chains):
    (chain,) = chains([*protein("MKV"), *protein("LAG", first=2, x=11.1)])

    assert (chain.sequence, chain.numbers) == ("MKVLAG", ["1", "2", "3", "2", "3", "4"])


def test_mmcif_chains_under_one_author_name_are_separated_by_their_labels(read):
    text = mmcif([*protein("MKV"), *protein("LAG", first=4, x=60)]).replace(
        "_atom_site.id\n", "_atom_site.label_asym_id\n"
    )
    rows = [line.split() for line in text.splitlines()]

    def relabelled(row):
        return [row[0], "A" if int(row[7]) < 4 else "B", *row[2:]] if row[:1] == ["ATOM"] else row

    assert [chain.sequence for chain in read("\n".join(" ".join(relabelled(row)) for row in rows) + "\n")] == [
        "MKV",
        "LAG",
    ]


def test_alternative_locations_may_follow_the_chain(chains):
    (chain,) = chains([*protein("MKV", altloc="A"), *protein("MKV", x=1, altloc="B")])

    assert (chain.sequence, chain.coordinates[0, 0]) == ("MKV", 0)
    assert special_cases(chain) == {"num_altlocs": 3}


MODELS = {
    "the first is empty": "MODEL        0\nENDMDL\nMODEL        1\n{first}ENDMDL\nMODEL        2\n{second}ENDMDL\n",
    "one number twice": "MODEL        1\n{first}ENDMDL\nMODEL        1\n{second}ENDMDL\n",
    "the end is missing": "MODEL        1\n{first}MODEL        2\n{second}",
    "frames": "{first}END\n{second}END\n",
}


@pytest.mark.parametrize("form", MODELS.values(), ids=MODELS)
def test_first_model_with_atoms_is_read_with_any_model_separator(read, form):
    first, second = (select_atoms(pdb(protein("MK", x=x)), "N", "CA", "C", "CB") for x in (0, 50))

    (chain,) = read(form.format(first=first, second=second))

    assert (chain.sequence, chain.coordinates[0, 0]) == ("MK", 0)


def test_unobserved_residues_have_no_index_with_any_numbers(chains):
    atoms = [*protein(SEQUENCE[2:9], first=500), *protein(SEQUENCE[14:30], first=3, x=60)]

    match = best_chain(SEQUENCE, chains(atoms))

    assert match.indices.tolist() == [-1] * 2 + list(range(7)) + [-1] * 5 + list(range(7, 23)) + [-1] * 2
    assert match.indices.dtype == np.int64
    assert (match.identity, match.coverage) == (1, 23 / 32)
    assert match.chain.breaks.tolist() == [row == 6 for row in range(23)]


# Columns of mmCIF


OPTIONAL = ["group_PDB", "id", "type_symbol", "label_alt_id", "auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code"]
OPTIONAL += ["occupancy", "B_iso_or_equiv", "pdbx_PDB_model_num"]


@pytest.mark.parametrize("column", OPTIONAL)
@pytest.mark.parametrize("value", [None, "?", "."])
def test_mmcif_columns_may_be_missing_or_unknown(read, column, value):
    waters = [Atom("O", "HOH", number, (9, 9, number), is_hetero=True) for number in (101, 102)]
    rows = [line.split() for line in mmcif([*protein("MGKK"), *waters]).splitlines()]
    index = ATOM_FIELDS.index(column)
    rows = [[*row[:index], *([value] if value else []), *row[index + 1 :]] if len(row) > 2 else row for row in rows]
    rows = [row for row in rows if value or row != [f"_atom_site.{column}"]]

    (chain,) = read("\n".join(map(" ".join, rows)) + "\n")

    assert (chain.sequence, special_cases(chain)) == ("MGKK", {"num_waters": 2})
    assert np.allclose(chain.coordinates, [(0, 3, 0), (3.7, 1, 0), (7.4, 3, 0), (11.1, 3, 0)])
    assert chain.name == ("" if column == "auth_asym_id" else "A")


@pytest.mark.parametrize("value", [None, "?"])
def test_labels_replace_missing_author_names_and_numbers(read, value):
    labelled = mmcif(protein("MK")).replace("auth_", "label_")
    both = labelled.replace("_atom_site.id\n", "_atom_site.auth_asym_id\n")
    lines = [
        " ".join([row[0], "?", *row[2:]]) if (row := line.split())[:1] == ["ATOM"] else line
        for line in both.splitlines()
    ]

    (chain,) = read("\n".join(lines) + "\n" if value else labelled)

    assert (chain.name, chain.sequence, chain.numbers) == ("A", "MK", ["1", "2"])


# Invalid files


INVALID = {
    "empty": (b"", "neither a PDB nor an mmCIF file with atoms"),
    "fasta": (b">a\nMKT\n", "neither a PDB nor an mmCIF file with atoms"),
    "binary": (bytes(range(256)), "neither a PDB nor an mmCIF file with atoms"),
    "header alone": (b"HEADER    HYDROLASE\nEND\n", "neither a PDB nor an mmCIF file with atoms"),
    "dictionary": (b"data_MSE\n_chem_comp.id MSE\n", "neither a PDB nor an mmCIF file with atoms"),
    "blank lines": (b"\n" * 50_000 + b"x", "neither a PDB nor an mmCIF file with atoms"),
    "water": (pdb([Atom("O", "HOH", 1, (0, 0, 0), is_hetero=True)]).encode(), "none of its chains is a protein"),
    "truncated pdb": (
        b"HEADER\n" + pdb(SMALL).encode()[:292],
        "the structure is damaged (line 6 is cut off)",
    ),
    "truncated mmcif": (mmcif(SMALL).encode()[:685], "damaged (line 3: Wrong number of values in loop _atom_site.*)"),
    "no field": (mmcif(SMALL).replace("Cartn_y", "y").encode(), "damaged (it has no _atom_site.Cartn_y)"),
    "no number": (mmcif(SMALL).replace("7.4", "seven").encode(), "damaged (atom 9: 'seven' is not a coordinate)"),
    "no number in pdb": (
        pdb(SMALL).replace("   7.400", "********").encode(),
        "(line 10: '********' is not a coordinate)",
    ),
    "underscores": (mmcif(SMALL).replace("7.4", "7_4").encode(), "damaged (atom 9: '7_4' is not a coordinate)"),
    "column twice": (
        mmcif(SMALL).replace("label_alt_id", "id").encode(),
        "damaged (line 3: duplicate tag _atom_site.id)",
    ),
    "open quote": (mmcif(SMALL).encode() + b"_a 'b\x1b\n", "damaged (line 31: unterminated 'string')"),
    "empty loop": (b"data_a\n_atom_site.id 1\nloop_\nx\n", "the structure is damaged (line 4: parse error)"),
}


@pytest.mark.parametrize(("content", "message"), INVALID.values(), ids=INVALID)
def test_invalid_structure_raises_a_one_line_error(read, content, message):
    with pytest.raises(StructureError) as caught:
        read(content)

    assert message in str(caught.value)
    assert "1abc.pdb: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == DataError.exit_status == 65


def test_truncated_archive_raises_an_error(read):
    with pytest.raises(FormatError, match="truncated or damaged"):
        read(gzip.compress(pdb(SMALL).encode())[:-4])


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"nowhere\.pdb: No such file"):
        read_chains(tmp_path / "nowhere.pdb")


# B factors


def read_b_factors(path):
    """Read the B factors of all atoms with Biopython, by model, chain, and residue number with its insertion code."""
    parser = MMCIFParser(QUIET=True) if path.suffix == ".cif" else PDBParser(QUIET=True)
    return {
        (model.id, chain.id, f"{residue.id[1]}{residue.id[2].strip()}"): {atom.get_bfactor() for atom in residue}
        for model in parser.get_structure("x", path)
        for chain in model
        for residue in chain
    }


@pytest.mark.parametrize(("write", "suffix"), [(pdb, ".pdb"), (mmcif, ".cif")])
def test_b_factors_are_replaced_in_all_models_and_nothing_else_is(write, suffix, tmp_path):
    atoms = [*protein("MKT"), *protein("AG", chain="B"), *residue("ALA", 2, 40.0, code="A"), *protein("MKT", model=2)]
    text = write(atoms)

    changed = with_b_factors(text, "x", {("A", "1"): -1.234, ("A", "2A"): 12.5, ("B", "1"): 0.5})

    path = tmp_path / f"x{suffix}"
    path.write_text(changed)
    factors = read_b_factors(path)
    expected = {("A", "1"): -1.23, ("A", "2A"): 12.5, ("B", "1"): 0.5}
    assert len(factors) == 9
    for (_, chain, number), values in factors.items():
        assert values == {expected.get((chain, number), 0.0)}
    kept = [re.sub(r" (20(\.0*)?|-1.23|12.50|0.50|0.00) |#", " ", content).split() for content in (text, changed)]
    assert kept[0] == kept[1]


def test_b_factors_are_added_to_an_mmcif_file_without_them(tmp_path):
    text = mmcif(protein("MK")).replace("_atom_site.B_iso_or_equiv\n", "").replace(" 20.0 ", " ")
    path = tmp_path / "x.cif"

    path.write_text(with_b_factors(text, "x", {("A", "2"): -3.0}))

    column = cif.read_file(str(path)).sole_block().find_values("_atom_site.B_iso_or_equiv")
    assert set(column) == {"0.00", "-3.00"}


def test_b_factors_are_added_to_lines_that_end_before_them(tmp_path):
    text = "\n".join(line[:54] for line in pdb(protein("MK")).split("\n"))

    changed = with_b_factors(text, "x", {("A", "1"): 1.5})

    assert [line[60:66] for line in changed.split("\n") if line.startswith("ATOM")] == 4 * ["  1.50"] + 4 * ["  0.00"]
    assert [chain.sequence for chain in _read(tmp_path, changed)] == ["MK"]


def _read(folder, text):
    path = folder / "1abc.pdb"
    path.write_text(text)
    return read_chains(path)
