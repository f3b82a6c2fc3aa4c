"""The residues of a chain of a structure, in the order of their peptide bonds, and the atoms that stand for them."""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended
from gemmi import cif
from numpy.typing import NDArray

from protembed.errors import StructureError
from protembed.io.text import printable

STRUCTURE_ADVICE = "give a PDB or mmCIF file of a protein, plain or compressed"
WATERS = ("HOH", "WAT", "DOD")

Position = tuple[float, float, float]

_MMCIF_START = re.compile(r"([ \t]*(#.*)?\n)*[ \t]*data_", re.IGNORECASE)
_PDB_ATOM = re.compile("^(ATOM  |HETATM)", re.MULTILINE)
_MODRES = re.compile(r"^MODRES.{6}(?P<name>.{3}).{9}(?P<parent>.{3})", re.MULTILINE)
_GEMMI_PLACE = re.compile(r"^string:(?P<line>\d+)(:\d+\(\d+\))?( in \S+)?: ")
# A line of a PDB file ends with the last coordinate at the earliest; all that follows may be missing.
_SHORTEST_PDB_LINE = 54
_ABSENT_COORDINATES = ("", "?", ".", "nan", "-nan")
_LONGEST_REASON = 100


class Atom(NamedTuple):
    """An atom of a structure.

    Attributes:
        chain: the authors' name of the chain; empty where the file gives none.
        part: what divides atoms under one chain name: in PDB the number of TER records before, in mmCIF the
            `label_asym_id`.
        number: the authors' residue number with its insertion code, such as `52A`.
        residue: the name of the residue, such as `ALA`.
        name: the name of the atom, such as `CA`.
        altloc: the letter of the alternative location; empty where there is one location alone.
        is_hetero: whether it is a HETATM; None where the file does not say.
        position: Å; NaN where the file gives none.
    """

    chain: str
    part: str
    number: str
    residue: str
    name: str
    altloc: str
    is_hetero: bool | None
    position: Position


@dataclass(frozen=True, kw_only=True)
class ParsedStructure:
    """The atoms of a structure.

    Attributes:
        atoms: those of the first model that has any, in the file's order; reading them raises a `StructureError` where
            the file is damaged.
        parents: the three-letter name of the parent of each modified residue that the file lists, by name.
    """

    atoms: Iterator[Atom]
    parents: Mapping[str, str]


def parse_structure(text: str, name: str) -> ParsedStructure:
    """Parse a structure, PDB or mmCIF as its content says.

    Args:
        text: the whole file.
        name: of the file, for messages.

    Raises:
        StructureError: it is neither, or it is damaged.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _MMCIF_START.match(text):
        block = _mmcif_block(text, name)
        return ParsedStructure(atoms=_mmcif_atoms(block, name), parents=_mmcif_parents(block))
    if not _PDB_ATOM.search(text):
        raise _no_structure(name)
    parents = {found["name"].strip(): found["parent"].strip() for found in _MODRES.finditer(text)}
    return ParsedStructure(atoms=_pdb_atoms(text, name), parents=parents)


def _no_structure(name: str) -> StructureError:
    return StructureError(name, "this is neither a PDB nor an mmCIF file with atoms", STRUCTURE_ADVICE)


def _damaged(name: str, reason: str) -> StructureError:
    reason = printable(" ".join(reason.split())[:_LONGEST_REASON])
    return StructureError(name, f"the structure is damaged ({reason})", "fetch or make it again")


def _position(atom: Atom, coordinates: tuple[str, str, str], name: str, place: str) -> Atom:
    """Give an atom its position; what is no number is an error in a polymer alone, and absent elsewhere."""
    texts = [text.strip() for text in coordinates]
    values = [cif.as_number(text) for text in texts]
    for text, value in zip(texts, values, strict=True):
        is_absent = text.lower() in _ABSENT_COORDINATES or atom.is_hetero or atom.residue in WATERS
        if math.isnan(value) and not is_absent:
            raise _damaged(name, f"{place}: {text!r} is no coordinate")
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
    if len(line) < _SHORTEST_PDB_LINE:
        raise _damaged(name, f"line {number} is cut off")
    atom = Atom(
        chain=line[21].strip(),
        part=part,
        number=line[22:27].replace(" ", ""),
        residue=line[17:20].strip(),
        name=line[12:16].strip(),
        altloc=line[16].strip(),
        is_hetero=line.startswith("HETATM"),
        position=(math.nan, math.nan, math.nan),
    )
    return _position(atom, (line[30:38], line[38:46], line[46:54]), name, f"line {number}")


# mmCIF


def _mmcif_block(text: str, name: str) -> cif.Block:
    try:
        document = cif.read_string(text)
    except (ValueError, RuntimeError) as error:  # the syntax; a name that is there twice
        raise _damaged(name, _GEMMI_PLACE.sub(r"line \g<line>: ", str(error))) from error
    for block in document:
        if any(category.lower() == "_atom_site." for category in block.get_mmcif_category_names()):
            return block
    raise _no_structure(name)


def _mmcif_atoms(block: cif.Block, name: str) -> Iterator[Atom]:
    """Read the table of atoms; of what it lacks, only names and coordinates are indispensable."""
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
            position=(math.nan, math.nan, math.nan),
        )
        yield _position(atom, position, name, f"atom {row}")


def _column(block: cif.Block, name: str, *tags: str, size: int | None = None) -> list[str]:
    """Read a column, and its stand-in where a value is missing; if all are, empty texts.

    Args:
        block: with the atoms.
        name: of the file, for messages.
        tags: names of columns in `_atom_site`, the best first.
        size: rows of the table; None if the column must be there.
    """
    columns = [column for tag in tags if (column := block.find_values(f"_atom_site.{tag}"))]
    if not columns and size is None:
        raise _damaged(name, f"it has no _atom_site.{tags[0]}")
    if not columns:
        return [""] * (size or 0)
    texts = zip(*([cif.as_string(text) for text in column] for column in columns), strict=True)
    return [next(filter(None, row), "") for row in texts]


def _mmcif_parents(block: cif.Block) -> dict[str, str]:
    table = block.find("_pdbx_struct_mod_residue.", ["label_comp_id", "parent_comp_id"])
    return {cif.as_string(row[0]): cif.as_string(row[1]) for row in table}


# What AMBER and CHARMM call an amino acid in one of its protonation states, or a cysteine in a disulfide bond. Where a
# file lists the name among its modified residues, that list decides.
_PROTONATION_STATES = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "HIS"),
    **dict.fromkeys(("CYX", "CYM"), "CYS"),
    **{"ASH": "ASP", "GLH": "GLU", "LYN": "LYS"},
}
# Biopython's table lacks the last two; both letters are tokens of the alphabet.
_LETTERS: Mapping[str, str] = {**protein_letters_3to1_extended, "SEC": "U", "PYL": "O"}
# A peptide bond is 1.33 Å long, and a C and an N that are not bonded are more than 2.4 Å apart.
LONGEST_BOND = 2.0
# Two C-alphas that a peptide bond joins are 3.8 Å apart, and others hardly less than 5.
_LONGEST_ALPHA_STEP = 4.5
_BACKBONE = ("N", "CA", "C", "CB")
_ABSENT = (math.nan, math.nan, math.nan)
_INTEGER = re.compile(r"-?\d+")
_IDENTIFYING = re.compile(r"-?[0-9A-Za-z]+")  # hybrid-36 too, but no asterisks


@dataclass(kw_only=True, eq=False)
class Residue:
    """A residue, ligand or water of a file.

    Attributes:
        name: its three letters; of two names in one place the first.
        letter: of the amino acid; X where it is unknown.
        number: the authors' number with its insertion code.
        part: what divides the atoms of one chain name; see `Atom`.
        is_hetero: whether it is a HETATM.
        is_listed: whether the file lists it among the modified residues.
        has_altlocs: whether it has alternative locations or names.
        num_repeated: atoms that were left out, because the residue has one of the same name.
        positions: of its N, CA, C and CB, by name and by letter of the alternative location.
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
        """Whether it is one of the twenty amino acids."""
        return self.name in protein_letters_3to1

    @property
    def may_be_protein(self) -> bool:
        """Whether it has the backbone of an amino acid, or the name of one."""
        has_backbone = not any(math.isnan(math.fsum(self.position(name))) for name in ("N", "CA", "C"))
        return has_backbone or (self.letter != "X" and (self.is_listed or not self.is_hetero))

    def position(self, name: str) -> Position:
        """Look up the position of an atom, in Å; NaN where it is missing."""
        letters = self.positions.get(name)
        # By letter, and none before A, so that all atoms of a residue are of one conformation.
        return letters[min(letters)] if letters else _ABSENT

    def bond_length(self, following: "Residue") -> float:
        """Measure from C to the N of the following residue, in Å; NaN where either is missing."""
        return math.dist(self.position("C"), following.position("N"))

    def is_bonded_to(self, following: "Residue") -> bool:
        """Tell whether a peptide bond leads to the following residue; atoms that are all at 0, 0, 0 have none."""
        return 0 < self.bond_length(following) < LONGEST_BOND

    def leads_to(self, following: "Residue") -> bool:
        """Tell the same, by the distance of the C-alpha atoms where C or N is missing."""
        if not math.isnan(self.bond_length(following)):
            return self.is_bonded_to(following)
        return 0 < math.dist(self.position("CA"), following.position("CA")) < _LONGEST_ALPHA_STEP


class ResidueReader:
    """The atoms under one chain name, grouped into residues.

    Atoms belong together that follow each other and have the same number. Where the number is missing or made of
    asterisks, another name or a repetition of the first atom begins the next residue. An alternative location belongs
    to the residue that has its number, wherever in the file it stands.

    Args:
        parents: the name of the parent of each modified residue that the file lists, by name.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        self.residues: list[Residue] = []
        self._parents = parents
        self._by_number: dict[str, Residue] = {}
        self._present: Residue | None = None
        self._seen: dict[tuple[str, str], None] = {}  # atoms of the present residue, in the file's order

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
        if atom.name in _BACKBONE and atom.residue == residue.name:
            residue.positions.setdefault(atom.name, {}).setdefault(atom.altloc, atom.position)

    def _residue_of(self, atom: Atom) -> Residue:
        if self._present is not None and self._is_of(self._present, atom):
            return self._present
        self._seen = {}
        self._present = self._with_location(atom) or self._new(atom)
        return self._present

    def _is_of(self, residue: Residue, atom: Atom) -> bool:
        if (residue.number, residue.part) != (atom.number, atom.part):
            return False
        if _IDENTIFYING.fullmatch(atom.number):
            return residue.name == atom.residue or bool(atom.altloc)
        return residue.name == atom.residue and next(iter(self._seen)) != (atom.name, atom.altloc)

    def _with_location(self, atom: Atom) -> Residue | None:
        """Find the residue that an atom far behind it is an alternative location of."""
        residue = self._by_number.get(atom.number) if atom.altloc and _IDENTIFYING.fullmatch(atom.number) else None
        if residue is None or residue.name != atom.residue or atom.altloc in residue.positions.get(atom.name, {}):
            return None
        return residue

    def _new(self, atom: Atom) -> Residue:
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
    """Pick the amino acids that belong to a protein, in the order of their peptide bonds.

    Everything else is water, a ligand, an ion, a cap or a nucleotide. A hetero residue belongs to the protein if it is
    bonded to a neighbour there or the file lists it among the modified residues.

    Args:
        residues: all under one chain name, in the file's order.
    """
    candidates = _in_order_of_bonds([residue for residue in residues if residue.may_be_protein])
    is_bonded = [False, *(one.is_bonded_to(other) for one, other in pairwise(candidates)), False]
    return [
        residue
        for row, residue in enumerate(candidates)
        if not residue.is_hetero or residue.is_listed or is_bonded[row] or is_bonded[row + 1]
    ]


def _in_order_of_bonds(residues: Sequence[Residue]) -> list[Residue]:
    """Put modified residues that the file gives behind the chain where their peptide bonds are."""
    segments: list[list[Residue]] = []
    for residue in residues:
        if segments and segments[-1][-1].is_bonded_to(residue):
            segments[-1].append(residue)
        else:
            segments.append([residue])
    for segment in [one for one in segments if all(residue.is_hetero for residue in one)]:
        others = [one for one in segments if one is not segment]
        for row, other in enumerate(others):
            is_before = other[-1].is_bonded_to(segment[0])
            if is_before or segment[-1].is_bonded_to(other[0]):
                for residue in segment:
                    residue.part = other[0].part
                segments = [*others[: row + is_before], segment, *others[row + is_before :]]
                break
    return [residue for segment in segments for residue in segment]


def divide_chains(residues: Sequence[Residue]) -> Iterator[list[Residue]]:
    """Divide the residues under one chain name into chains.

    A chain ends where the file says so (see `Atom.part`), and where the numbering begins again: numbers fall, and from
    there on repeat earlier ones. Two residues that are bonded are of one chain, whatever the file says.

    Args:
        residues: amino acids under one chain name, in order.

    Yields:
        The residues of each chain.
    """
    chain: list[Residue] = []
    start, earlier = 0, set[str]()  # where numbers fell last, and the numbers of the chain up to there
    for residue in residues:
        if chain and not chain[-1].leads_to(residue):
            if residue.part != chain[-1].part:
                yield chain
                chain, start, earlier = [], 0, set()
            elif _falls(chain[-1].number, residue.number):
                earlier.update(one.number for one in chain[start:])
                start = len(chain)
        if residue.number in earlier and _IDENTIFYING.fullmatch(residue.number):
            yield chain[:start]
            chain, start, earlier = chain[start:], 0, set()
        chain.append(residue)
    if chain:
        yield chain


def _falls(number: str, following: str) -> bool:
    found = _INTEGER.match(number), _INTEGER.match(following)
    return found[0] is not None and found[1] is not None and int(found[1][0]) <= int(found[0][0])


@dataclass(frozen=True, kw_only=True)
class RepresentativeAtoms:
    """The atom that stands for each residue of a chain.

    Attributes:
        positions: (residues, 3), float64, Å; NaN where it is missing.
        kind: `CB` (C-beta, and C-alpha for glycine), `virtual CB` (the same, where no C-beta was in the file), or `CA`
            (C-alpha for all residues).
        num_virtual: residues whose C-beta was computed from their backbone.
    """

    positions: NDArray[np.float64]
    kind: str
    num_virtual: int


def representative_atoms(residues: Sequence[Residue]) -> RepresentativeAtoms:
    """Find the atom that stands for each residue of a chain.

    It is the C-beta, or the C-alpha for glycine; a C-beta that is missing is computed from N, C-alpha and C. Where most
    residues have neither, but a C-alpha, it is the C-alpha for all.
    """
    atoms = np.array([[residue.position(name) for name in _BACKBONE] for residue in residues]).reshape(-1, 4, 3)
    n, alpha, c, beta = _without_placeholders(atoms).transpose(1, 0, 2)
    is_glycine = np.array([residue.letter == "G" for residue in residues], dtype=bool)
    positions = np.where(is_glycine[:, None], alpha, beta)
    computed = virtual_c_beta(n, alpha, c)
    is_virtual = ~is_glycine & ~_is_known(beta) & _is_known(computed)
    positions[is_virtual] = computed[is_virtual]
    is_alpha_alone = ~_is_known(positions) & _is_known(alpha)
    if is_alpha_alone.sum() > (_is_known(positions) & ~is_glycine).sum():
        return RepresentativeAtoms(positions=alpha, kind="CA", num_virtual=0)
    has_beta = bool((~is_glycine & _is_known(beta)).any())
    num_virtual = int(is_virtual.sum())
    kind = "virtual CB" if num_virtual and not has_beta else "CB"
    return RepresentativeAtoms(positions=positions, kind=kind, num_virtual=num_virtual)


def virtual_c_beta(n: NDArray[np.float64], alpha: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute where C-beta stands in an L-amino acid of ideal geometry.

    Args:
        n: (residues, 3), float64, Å, of the N.
        alpha: (residues, 3), float64, Å, of the C-alpha.
        c: (residues, 3), float64, Å, of the C.

    Returns:
        (residues, 3), float64, Å; NaN where an atom is missing.

    Source: the constants of trRosetta (Yang et al. 2020), as ProteinMPNN has them (Dauparas et al. 2022).
    """
    first, second = alpha - n, c - alpha
    computed: NDArray[np.float64] = (
        alpha - 0.58273431 * np.cross(first, second) + 0.56802827 * first - 0.54067466 * second
    )
    return computed


def _is_known(positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(positions).all(axis=-1))


def _without_placeholders(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace by NaN what several atoms of a chain have in common, such as 0, 0, 0 for those that were not observed."""
    _, row, counts = np.unique(atoms.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    is_shared = (counts[row.reshape(-1)] > 1).reshape(atoms.shape[:2])
    return np.where(is_shared[..., None], np.nan, atoms)
