"""Atoms and residues of PDB and mmCIF files: protein residues in the order of their bonds, and chains."""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended
from gemmi import cif

from protembed.errors import StructureError
from protembed.text import printable

STRUCTURE_ADVICE = "give a PDB or mmCIF file of a protein, plain or compressed"
WATERS = ("HOH", "WAT", "DOD")

Position = tuple[float, float, float]
_ABSENT = (math.nan, math.nan, math.nan)

_MMCIF_START = re.compile(r"([ \t]*(#.*)?\n)*[ \t]*data_", re.IGNORECASE)
_PDB_ATOM = re.compile("^(ATOM  |HETATM)", re.MULTILINE)
_MODRES = re.compile(r"^MODRES.{6}(?P<name>.{3}).{9}(?P<parent>.{3})", re.MULTILINE)
_GEMMI_LOCATION = re.compile(r"^string:(?P<line>\d+)(:\d+\(\d+\))?( in \S+)?: ")
# A PDB line needs everything up to the last coordinate; the columns behind it may be missing.
_MIN_PDB_LINE_LENGTH = 54
_B_FACTOR = "_atom_site.B_iso_or_equiv"
_ABSENT_COORDINATES = ("", "?", ".", "nan", "-nan")
_MAX_REASON_LENGTH = 100

# Names in AMBER and CHARMM of an amino acid in one of its protonation states, or of a cysteine in a disulfide bond. If
# a file lists the name among its modified residues, that list decides.
_PROTONATION_STATES = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "HIS"),
    **dict.fromkeys(("CYX", "CYM"), "CYS"),
    **{"ASH": "ASP", "GLH": "GLU", "LYN": "LYS"},
}
# Biopython's table lacks the last two; both letters are tokens of the alphabet.
_LETTERS: Mapping[str, str] = {**protein_letters_3to1_extended, "SEC": "U", "PYL": "O"}
# A peptide bond is 1.33 Å long, and a C and an N that are not bonded are more than 2.4 Å apart.
MAX_BOND_LENGTH = 2.0
# Two C-alphas joined by a peptide bond are 3.8 Å apart, and others hardly less than 5.
_MAX_ALPHA_DISTANCE = 4.5
BACKBONE = ("N", "CA", "C", "CB")
_INTEGER = re.compile(r"-?\d+")
_IDENTIFYING = re.compile(r"-?[0-9A-Za-z]+")  # hybrid-36 too, but no asterisks


# Atoms


class Atom(NamedTuple):
    """An atom of a structure.

    Attributes:
        chain: Chain name of the authors; empty where the file has none.
        part: Key that separates atoms under one chain name: in PDB the number of preceding TER records, in mmCIF the
            `label_asym_id`.
        number: Residue number of the authors with its insertion code, such as `52A`.
        residue: Residue name, such as `ALA`.
        name: Atom name, such as `CA`.
        altloc: Letter of the alternative location; empty where there is a single location.
        is_hetero: Whether the atom is a HETATM; None where the file has no such column.
        position: Coordinates, Å; NaN where the file has none.
    """

    chain: str
    part: str
    number: str
    residue: str
    name: str
    altloc: str
    is_hetero: bool | None
    position: Position = _ABSENT


def parse_structure(text: str, name: str) -> tuple[Iterator[Atom], Mapping[str, str]]:
    """Parse a structure, PDB or mmCIF depending on its content.

    Returns:
        Atoms of the first model that has any, in the file's order; and the three-letter name of the parent of each
        modified residue that the file lists, by the residue's name.

    Raises:
        StructureError: The file is neither PDB nor mmCIF, or it is damaged; also while the atoms are read.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _MMCIF_START.match(text):
        _, block = _mmcif_document(text, name)
        parents = block.find("_pdbx_struct_mod_residue.", ["label_comp_id", "parent_comp_id"])
        return _mmcif_atoms(block, name), {cif.as_string(row[0]): cif.as_string(row[1]) for row in parents}
    if not _PDB_ATOM.search(text):
        raise _not_a_structure_error(name)
    return _pdb_atoms(text, name), {match["name"].strip(): match["parent"].strip() for match in _MODRES.finditer(text)}


def _not_a_structure_error(name: str) -> StructureError:
    return StructureError(name, "this is neither a PDB nor an mmCIF file with atoms", STRUCTURE_ADVICE)


def _damaged_error(name: str, reason: str) -> StructureError:
    reason = printable(" ".join(reason.split())[:_MAX_REASON_LENGTH])
    return StructureError(name, f"the structure is damaged ({reason})", "download or create the file again")


def _with_position(atom: Atom, coordinates: tuple[str, str, str], name: str, location: str) -> Atom:
    """Set the position of an atom; an unreadable coordinate is an error in a polymer, and missing elsewhere."""
    texts = [text.strip() for text in coordinates]
    values = [cif.as_number(text) for text in texts]
    for text, value in zip(texts, values, strict=True):
        is_absent = text.lower() in _ABSENT_COORDINATES or atom.is_hetero or atom.residue in WATERS
        if math.isnan(value) and not is_absent:
            raise _damaged_error(name, f"{location}: {text!r} is not a coordinate")
    return atom._replace(position=(values[0], values[1], values[2]))


# PDB


def _pdb_atoms(text: str, name: str) -> Iterator[Atom]:
    num_ends, has_atoms = 0, False
    for number, line in enumerate(io.StringIO(text), start=1):
        record = line[:6].rstrip()
        if record in ("ATOM", "HETATM"):
            has_atoms = True
            yield _pdb_atom(line.rstrip("\n"), str(num_ends), name, number)
        elif record == "TER":
            num_ends += 1
        elif has_atoms and record in ("MODEL", "ENDMDL", "END"):
            return


def _pdb_atom(line: str, part: str, name: str, number: int) -> Atom:
    if len(line) < _MIN_PDB_LINE_LENGTH:
        raise _damaged_error(name, f"line {number} is cut off")
    atom = Atom(
        chain=line[21].strip(),
        part=part,
        number=line[22:27].replace(" ", ""),
        residue=line[17:20].strip(),
        name=line[12:16].strip(),
        altloc=line[16].strip(),
        is_hetero=line.startswith("HETATM"),
    )
    return _with_position(atom, (line[30:38], line[38:46], line[46:54]), name, f"line {number}")


# mmCIF


def _mmcif_document(text: str, name: str) -> tuple[cif.Document, cif.Block]:
    """Parse an mmCIF file, and find its block with atoms."""
    try:
        document = cif.read_string(text)
    except (ValueError, RuntimeError) as error:  # the syntax; a duplicate name
        raise _damaged_error(name, _GEMMI_LOCATION.sub(r"line \g<line>: ", str(error))) from error
    for block in document:
        if any(category.lower() == "_atom_site." for category in block.get_mmcif_category_names()):
            return document, block
    raise _not_a_structure_error(name)


def _mmcif_atoms(block: cif.Block, name: str) -> Iterator[Atom]:
    """Read the table of atoms, in which only names and coordinates are required."""
    names = _column(block, name, "label_atom_id", "auth_atom_id")
    size = len(names)
    residues = _column(block, name, "label_comp_id", "auth_comp_id")
    positions = zip(*(_column(block, name, f"Cartn_{axis}") for axis in "xyz"), strict=True)
    chains = _column(block, name, "auth_asym_id", "label_asym_id", size=size)
    parts = _column(block, name, "label_asym_id", size=size)
    numbers = _column(block, name, "auth_seq_id", "label_seq_id", size=size)
    codes = _column(block, name, "pdbx_PDB_ins_code", size=size)
    altlocs = _column(block, name, "label_alt_id", size=size)
    groups = _column(block, name, "group_PDB", size=size)
    models = _column(block, name, "pdbx_PDB_model_num", size=size)
    rows = zip(chains, parts, numbers, codes, residues, names, altlocs, groups, models, positions, strict=True)
    for row, (chain, part, number, code, residue, atom_name, altloc, group, model, position) in enumerate(rows, 1):
        if model != models[0]:
            continue
        atom = Atom(
            chain=chain,
            part=part,
            number=number + code,
            residue=residue,
            name=atom_name,
            altloc=altloc,
            is_hetero=group == "HETATM" if group else None,
        )
        yield _with_position(atom, position, name, f"atom {row}")


def _column(block: cif.Block, name: str, *tags: str, size: int | None = None) -> list[str]:
    """Read a column of `_atom_site`, with a later column's value where one is missing, and "" where all are missing.

    A column is required unless the size of the table is given.
    """
    columns = [column for tag in tags if (column := block.find_values(f"_atom_site.{tag}"))]
    if not columns and size is None:
        raise _damaged_error(name, f"it has no _atom_site.{tags[0]}")
    if not columns:
        return [""] * (size or 0)
    texts = zip(*([cif.as_string(text) for text in column] for column in columns), strict=True)
    return [next(filter(None, row), "") for row in texts]


# B factors


def with_b_factors(text: str, name: str, values: Mapping[tuple[str, str], float]) -> str:
    """Replace the B factor of every atom, in all models; of mmCIF files, white space and comments change too.

    Args:
        text: Content of a PDB or mmCIF file.
        name: Name of the file, for messages.
        values: New B factors by the chain name and the residue number of the authors with its insertion code; atoms
            of all other residues have 0.

    Raises:
        StructureError: The file is neither PDB nor mmCIF, or it is damaged.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _MMCIF_START.match(text):
        return _mmcif_with_b_factors(text, name, values)
    return "".join(
        _pdb_line_with_b_factor(line, values) if _PDB_ATOM.match(line) else line for line in io.StringIO(text)
    )


def _pdb_line_with_b_factor(line: str, values: Mapping[tuple[str, str], float]) -> str:
    value = values.get((line[21:22].strip(), line[22:27].replace(" ", "")), 0.0)
    return f"{line.rstrip(chr(10))[:60]:<60}{value:6.2f}{line[66:].rstrip(chr(10))}\n"


def _mmcif_with_b_factors(text: str, name: str, values: Mapping[tuple[str, str], float]) -> str:
    document, block = _mmcif_document(text, name)
    size = len(_column(block, name, "label_atom_id", "auth_atom_id"))
    chains = _column(block, name, "auth_asym_id", "label_asym_id", size=size)
    numbers = _column(block, name, "auth_seq_id", "label_seq_id", size=size)
    codes = _column(block, name, "pdbx_PDB_ins_code", size=size)
    keys = [(chain, number + code) for chain, number, code in zip(chains, numbers, codes, strict=True)]
    factors = [f"{values.get(key, 0.0):.2f}" for key in keys]
    if not block.find_values(_B_FACTOR):
        block.find_values("_atom_site.Cartn_x").get_loop().add_columns([_B_FACTOR], "?")
    column = block.find_values(_B_FACTOR)
    for row, factor in enumerate(factors):
        column[row] = factor
    return str(document.as_string())


# Residues


@dataclass(kw_only=True, eq=False)
class Residue:
    """A residue, ligand or water of a file.

    Attributes:
        name: Three-letter name; the first of alternative names.
        letter: One-letter code of the amino acid; X where it is unknown.
        number: Residue number of the authors with its insertion code.
        part: Key that separates residues under one chain name, as in `Atom`.
        is_hetero: Whether the residue is a HETATM.
        is_listed: Whether the file lists the residue among the modified residues.
        has_altlocs: Whether the residue has alternative locations or names.
        num_repeated: Number of omitted atoms whose name the residue already has.
        positions: Positions of N, CA, C and CB, by atom name and letter of the alternative location, Å.
    """

    name: str
    letter: str
    number: str
    part: str
    is_hetero: bool
    is_listed: bool
    has_altlocs: bool = False
    num_repeated: int = 0
    positions: dict[str, dict[str, Position]] = field(default_factory=dict)

    @property
    def is_standard(self) -> bool:
        """Whether the residue is one of the twenty amino acids."""
        return self.name in protein_letters_3to1

    @property
    def may_be_protein(self) -> bool:
        """Whether the residue has the backbone of an amino acid, or the name of one."""
        has_backbone = not any(math.isnan(math.fsum(self.position(name))) for name in ("N", "CA", "C"))
        return has_backbone or (self.letter != "X" and (self.is_listed or not self.is_hetero))

    def position(self, name: str) -> Position:
        """Look up the position of an atom, in Å; NaN where it is missing."""
        letters = self.positions.get(name)
        # The first letter, or none, so that all atoms of a residue belong to one conformation.
        return letters[min(letters)] if letters else _ABSENT

    def bond_length(self, following: "Residue") -> float:
        """Measure the distance from C to the N of the following residue, in Å; NaN where either is missing."""
        return math.dist(self.position("C"), following.position("N"))

    def is_bonded_to(self, following: "Residue") -> bool:
        """Return whether a peptide bond leads to the following residue; atoms that are all at 0, 0, 0 have none."""
        return 0 < self.bond_length(following) < MAX_BOND_LENGTH

    def is_followed_by(self, following: "Residue") -> bool:
        """Return whether a bond leads to the following residue, by the C-alpha atoms where C or N is missing."""
        if not math.isnan(self.bond_length(following)):
            return self.is_bonded_to(following)
        return 0 < math.dist(self.position("CA"), following.position("CA")) < _MAX_ALPHA_DISTANCE


class ResidueReader:
    """Groups the atoms under one chain name into residues.

    Successive atoms with the same number belong to one residue. Where the number is missing or made of asterisks, a new
    name or a repetition of the first atom begins the next residue. An alternative location belongs to the residue that
    has its number, anywhere in the file.

    Args:
        parents: Name of the parent of each modified residue that the file lists, by the residue's name.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        self.residues: list[Residue] = []
        self._parents = parents
        self._by_number: dict[str, Residue] = {}
        self._current: Residue | None = None
        self._seen: dict[tuple[str, str], None] = {}  # atoms of the current residue, in the file's order

    def add(self, atom: Atom) -> None:
        """Add the next atom."""
        if atom.residue in _PROTONATION_STATES and atom.residue not in self._parents:
            atom = atom._replace(residue=_PROTONATION_STATES[atom.residue], is_hetero=False)
        residue = self._residue_of(atom)
        key = (atom.name, atom.altloc)
        if key in self._seen:
            residue.num_repeated += 1
            return
        self._seen[key] = None
        residue.has_altlocs |= bool(atom.altloc)
        if atom.name in BACKBONE and atom.residue == residue.name:
            residue.positions.setdefault(atom.name, {}).setdefault(atom.altloc, atom.position)

    def _residue_of(self, atom: Atom) -> Residue:
        if self._current is not None and self._belongs_to(self._current, atom):
            return self._current
        self._seen = {}
        self._current = self._alternative_location_of(atom) or self._add_residue(atom)
        return self._current

    def _belongs_to(self, residue: Residue, atom: Atom) -> bool:
        if (residue.number, residue.part) != (atom.number, atom.part):
            return False
        if _IDENTIFYING.fullmatch(atom.number):
            return residue.name == atom.residue or bool(atom.altloc)
        return residue.name == atom.residue and next(iter(self._seen)) != (atom.name, atom.altloc)

    def _alternative_location_of(self, atom: Atom) -> Residue | None:
        """Find the earlier residue that an atom is an alternative location of."""
        residue = self._by_number.get(atom.number) if atom.altloc and _IDENTIFYING.fullmatch(atom.number) else None
        if residue is None or residue.name != atom.residue or atom.altloc in residue.positions.get(atom.name, {}):
            return None
        return residue

    def _add_residue(self, atom: Atom) -> Residue:
        name = atom.residue
        is_standard = name in protein_letters_3to1  # glycosylated ones are listed too, as modified residues
        residue = Residue(
            name=name,
            letter=protein_letters_3to1.get(name if is_standard else self._parents.get(name, ""))
            or _LETTERS.get(name, "X"),
            number=atom.number,
            part=atom.part,
            is_hetero=not is_standard if atom.is_hetero is None else atom.is_hetero,
            is_listed=not is_standard and self._parents.get(name) in protein_letters_3to1,
        )
        self.residues.append(residue)
        self._by_number[atom.number] = residue
        return residue


def protein_residues(residues: Sequence[Residue]) -> list[Residue]:
    """Select, of all residues under one chain name, the amino acids of a protein, in the order of their peptide bonds.

    Everything else is water, a ligand, an ion, a cap or a nucleotide. A hetero residue belongs to the protein if it is
    bonded to a neighbour there or the file lists it among the modified residues.
    """
    candidates = _order_by_bonds([residue for residue in residues if residue.may_be_protein])
    is_bonded = [False, *(residue.is_bonded_to(following) for residue, following in pairwise(candidates)), False]
    return [
        residue
        for row, residue in enumerate(candidates)
        if not residue.is_hetero or residue.is_listed or is_bonded[row] or is_bonded[row + 1]
    ]


def _order_by_bonds(residues: Sequence[Residue]) -> list[Residue]:
    """Move modified residues that the file lists behind the chain to where their peptide bonds are."""
    segments: list[list[Residue]] = []
    for residue in residues:
        if segments and segments[-1][-1].is_bonded_to(residue):
            segments[-1].append(residue)
        else:
            segments.append([residue])
    for segment in [members for members in segments if all(residue.is_hetero for residue in members)]:
        others = [members for members in segments if members is not segment]
        for row, neighbour in enumerate(others):
            follows = neighbour[-1].is_bonded_to(segment[0])
            if follows or segment[-1].is_bonded_to(neighbour[0]):
                for residue in segment:
                    residue.part = neighbour[0].part
                segments = [*others[: row + follows], segment, *others[row + follows :]]
                break
    return [residue for segment in segments for residue in segment]


def split_chains(residues: Sequence[Residue]) -> Iterator[list[Residue]]:
    """Split the amino acids under one chain name, in the order of their bonds, into chains.

    A chain ends where the file marks its end (`Atom.part`), and where the numbering restarts: numbers fall, and from
    there on repeat earlier ones. Two bonded residues always belong to one chain.
    """
    chain: list[Residue] = []
    start, earlier = 0, set[str]()  # index where numbers last fell, and the numbers of the chain up to there
    for residue in residues:
        if chain and not chain[-1].is_followed_by(residue):
            if residue.part != chain[-1].part:
                yield chain
                chain, start, earlier = [], 0, set()
            elif _is_falling(chain[-1].number, residue.number):
                earlier.update(member.number for member in chain[start:])
                start = len(chain)
        if residue.number in earlier and _IDENTIFYING.fullmatch(residue.number):
            yield chain[:start]
            chain, start, earlier = chain[start:], 0, set()
        chain.append(residue)
    if chain:
        yield chain


def _is_falling(number: str, following: str) -> bool:
    first, second = _INTEGER.match(number), _INTEGER.match(following)
    return first is not None and second is not None and int(second[0]) <= int(first[0])
