"""Structures in PDB and mmCIF: the observed residues of each chain, found again in a sequence, and their contacts."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended
from numpy.typing import NDArray

from protembed.data.placement import make_aligner, place_residues
from protembed.data.structure_parsing import GIVE_STRUCTURE, ParsedStructure, parse_structure
from protembed.errors import StructureError
from protembed.inputs import STANDARD_STREAM, display_name, open_input

CONTACT_DISTANCE = 8.0
MIN_SEPARATION = 6
# Two mutants of one protein differ in a few residues, and a purification tag adds a few; two proteins of one family,
# whose contacts differ in part, mostly share less than this.
MIN_IDENTITY = 0.9
# Where more than half of a protein is unseen, most pairs that a model ranks first could be neither right nor wrong.
MIN_COVERAGE = 0.5

# Biopython's table lacks these two; both letters are tokens of the alphabet.
_LETTERS: Mapping[str, str] = {**protein_letters_3to1_extended, "SEC": "U", "PYL": "O"}
_WATERS = ("HOH", "WAT", "DOD")
# A peptide bond is 1.33 Å long, and a C and an N that are not bonded are more than 2.4 Å apart.
_LONGEST_BOND = 2.0
_STRUCTURE_NAME = re.compile(r"^[^.].*\.(pdb\d*|ent|cif|mmcif)(\.(gz|bz2|xz))?$", re.IGNORECASE)
_SUFFIXES = re.compile(r"(\.(pdb\d*|ent|cif|mmcif|gz|bz2|xz))+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ChainNotes:
    """What was met in a chain, and how often.

    Attributes:
        num_altlocs: residues with alternative locations or names; the first letter, and the first name, was taken.
        num_insertions: residues whose number has an insertion code.
        num_modified: modified residues that were read as their parent.
        num_unknown: residues that were read as X.
        num_without_place: residues without C-beta (C-alpha for glycine).
        num_waters: waters that were left out.
        num_others: ligands, ions, caps and nucleotides that were left out.
        num_refused: residues and atoms of the whole file that Biopython left out, for they are there twice.
    """

    num_altlocs: int
    num_insertions: int
    num_modified: int
    num_unknown: int
    num_without_place: int
    num_waters: int
    num_others: int
    num_refused: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The observed residues of a protein chain, in the file's order.

    Attributes:
        name: the authors' name of the chain; empty where the file gives none.
        structure: the file's name without its suffixes.
        sequence: one letter for each observed residue; X where it is unknown.
        coordinates: (residues, 3), float64, Å, of the C-beta, or of the C-alpha for glycine; NaN where it is missing.
        numbers: the authors' residue numbers with their insertion codes, such as `52A`.
        breaks: (residues,), bool; True where the chain is interrupted after a residue.
        notes: what was met on the way.
    """

    name: str
    structure: str
    sequence: str
    coordinates: NDArray[np.float64]
    numbers: Sequence[str]
    breaks: NDArray[np.bool_]
    notes: ChainNotes


@dataclass(frozen=True, kw_only=True)
class Match:
    """A sequence found again in a chain.

    Attributes:
        chain: the chain.
        places: (residues of the sequence,), int64: the number of the chain's residue that stands there, from 0; -1
            where none was observed.
        identity: share of the aligned residues that are identical; those that are X on either side do not count.
        coverage: share of the sequence's residues that were observed.
    """

    chain: Chain
    places: NDArray[np.int64]
    identity: float
    coverage: float


def read_chains(path: Path) -> list[Chain]:
    """Read the protein chains of a structure's first model.

    PDB and mmCIF are told apart by content. A hetero residue belongs to the chain if it is bonded to a neighbour there
    or the file lists it among the modified residues; everything else is water or a ligand, and left out.

    Args:
        path: PDB or mmCIF, plain, gzip, bzip2 or xz; `-` is stdin.

    Returns:
        The chains with at least one residue of a protein, in the file's order.

    Raises:
        InputNotFoundError: the file cannot be opened.
        FormatError: the archive is damaged.
        StructureError: the file is neither PDB nor mmCIF, is damaged, or has no protein.
    """
    with open_input(path) as stream:
        text = stream.read().decode("utf-8-sig", errors="replace")
    name = display_name(path)
    parsed = parse_structure(text, name)
    structure = "stdin" if path == STANDARD_STREAM else _SUFFIXES.sub("", path.name) or path.name
    chains = [_read_chain(chain, structure, parsed) for chain in parsed.model]
    if proteins := [chain for chain in chains if chain.sequence]:
        return proteins
    raise StructureError(name, "none of its chains is a protein", GIVE_STRUCTURE)


def structure_files(path: Path) -> list[Path]:
    """List the structures of a folder, sorted by name; anything else but a folder is a structure itself.

    Raises:
        StructureError: the folder has none, by the suffixes of PDB and mmCIF files, plain or compressed.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if _STRUCTURE_NAME.search(file.name) and file.is_file())
    if not files:
        expected = "give a folder with files such as 1abc.pdb, 1abc.ent.gz or 1abc.cif.gz"
        raise StructureError(str(path), "the folder holds no PDB or mmCIF file", expected)
    return files


def match_chain(sequence: str, chains: Sequence[Chain]) -> Match | None:
    """Find the chain that shows a protein best, and the places of its residues in the sequence.

    The alignment is global with free ends, and numbers play no part. Where it leaves open between which residues of the
    sequence the unobserved ones stand, the chain's own interruption decides.

    Args:
        sequence: residues of the alphabet.
        chains: of one structure or of many; of equally good ones the first is taken.

    Returns:
        None if no chain has an identity of at least `MIN_IDENTITY` and a coverage of at least `MIN_COVERAGE`.
    """
    aligner = make_aligner()
    best: Match | None = None
    best_score = -math.inf
    for chain in chains:
        score = aligner.score(sequence, chain.sequence)
        if score > best_score:
            match = _compare(sequence, chain, place_residues(aligner, sequence, chain.sequence, chain.breaks))
            if match.identity >= MIN_IDENTITY and match.coverage >= MIN_COVERAGE:
                best, best_score = match, score
    return best


def distances(match: Match) -> NDArray[np.float32]:
    """Measure between the C-beta atoms (C-alpha for glycine) of all pairs of a sequence's residues.

    Returns:
        (residues, residues), float32, Å, symmetric; NaN where either residue was not observed.
    """
    coordinates = np.where(match.places[:, None] >= 0, match.chain.coordinates[match.places], np.nan)
    x, y, z = (np.subtract.outer(axis, axis) for axis in coordinates.T)
    squares: NDArray[np.float64] = x**2 + y**2 + z**2
    return np.sqrt(squares).astype(np.float32)


def contact_map(distances: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which pairs of residues are in contact: closer than 8 Å, and at least 6 positions apart.

    Args:
        distances: (residues, residues), Å; NaN where unknown.

    Returns:
        (residues, residues) twice, bool, symmetric: True for a contact; True where the distance is known, whatever the
        separation.

    Source: the definition of CASP for 8 Å between C-beta atoms; Rao et al. 2021 for the separation.
    """
    positions = np.arange(len(distances))
    is_apart = np.abs(np.subtract.outer(positions, positions)) >= MIN_SEPARATION
    return (distances < CONTACT_DISTANCE) & is_apart, ~np.isnan(distances)


def _compare(sequence: str, chain: Chain, places: NDArray[np.int64]) -> Match:
    pairs = [(letter, chain.sequence[place]) for letter, place in zip(sequence, places, strict=True) if place >= 0]
    is_same = [one == other for one, other in pairs if "X" not in (one, other)]
    identity = sum(is_same) / len(is_same) if is_same else 0.0
    return Match(chain=chain, places=places, identity=identity, coverage=len(pairs) / len(sequence))


# Residues


@dataclass(frozen=True, kw_only=True)
class _Residue:
    """A residue, ligand or water of a file; its atoms are (3,), float64, Å, NaN where they are missing."""

    name: str
    letter: str
    number: str
    field: str
    is_listed: bool
    has_altlocs: bool
    has_insertion: bool
    atoms: Mapping[str, NDArray[np.float64]]

    @property
    def place(self) -> NDArray[np.float64]:
        return self.atoms["CA" if self.letter == "G" else "CB"]

    @property
    def may_be_protein(self) -> bool:
        has_backbone = not any(np.isnan(self.atoms[name]).any() for name in ("N", "CA", "C"))
        return has_backbone or (self.letter != "X" and (self.is_listed or self.field == " "))

    def bond_length(self, following: "_Residue") -> float:
        """Measure from C to the N of the following residue, in Å; NaN, for instance, in a trace of C-alpha alone."""
        return float(np.linalg.norm(self.atoms["C"] - following.atoms["N"]))


def _read_chain(chain: Any, structure: str, parsed: ParsedStructure) -> Chain:
    entries = [_read_residue(residue, parsed.parents) for residue in chain]
    residues = list(_members(entries))
    num_waters = sum(entry.name in _WATERS for entry in entries)
    is_standard = [residue.name in protein_letters_3to1 for residue in residues]
    num_unknown = sum(residue.letter == "X" for residue in residues)
    coordinates = np.array([residue.place for residue in residues]).reshape(-1, 3)
    notes = ChainNotes(
        num_altlocs=sum(residue.has_altlocs for residue in residues),
        num_insertions=sum(residue.has_insertion for residue in residues),
        num_modified=is_standard.count(False) - num_unknown,
        num_unknown=num_unknown,
        num_without_place=int(np.isnan(coordinates).any(1).sum()),
        num_waters=num_waters,
        num_others=len(entries) - len(residues) - num_waters,
        num_refused=parsed.num_refused,
    )
    return Chain(
        name=chain.id.strip(),
        structure=structure,
        sequence="".join(residue.letter for residue in residues),
        coordinates=coordinates,
        numbers=[residue.number for residue in residues],
        breaks=np.array([*(one.bond_length(other) >= _LONGEST_BOND for one, other in pairwise(residues)), False]),
        notes=notes,
    )


def _read_residue(residue: Any, parents: Mapping[str, str]) -> _Residue:
    has_altlocs = bool(residue.is_disordered())
    if residue.is_disordered() == 2:  # altlocs with different names, whose order is the file's
        residue = residue.disordered_get_list()[0]
    name = residue.get_resname().strip()
    is_standard = name in protein_letters_3to1  # glycosylated ones are listed too, as modified residues
    field, number, code = residue.id
    return _Residue(
        name=name,
        letter=protein_letters_3to1.get(name if is_standard else parents.get(name, "")) or _LETTERS.get(name, "X"),
        number=f"{number}{code}".strip(),
        field=field,
        is_listed=not is_standard and parents.get(name) in protein_letters_3to1,
        has_altlocs=has_altlocs,
        has_insertion=code != " ",
        atoms={atom: _first_place(residue, atom) for atom in ("N", "CA", "C", "CB")},
    )


def _first_place(residue: Any, name: str) -> NDArray[np.float64]:
    if name not in residue:
        return np.full(3, np.nan)
    atom = residue[name]
    if atom.is_disordered() == 2:
        # By letter, and none before A, so that all atoms of a residue are of one conformation.
        atom = atom.disordered_get(min(atom.disordered_get_id_list()))
    return np.asarray(atom.get_coord(), dtype=np.float64)


def _members(entries: Sequence[_Residue]) -> Iterator[_Residue]:
    """Pick the residues of the chain; of two with one number, which are altlocs of each other, the first."""
    candidates = [entry for entry in entries if entry.may_be_protein]
    seen = set()
    for row, entry in enumerate(candidates):
        is_bonded = any(
            one.bond_length(other) < _LONGEST_BOND for one, other in pairwise(candidates[max(row - 1, 0) : row + 2])
        )
        if (entry.field == " " or entry.is_listed or is_bonded) and entry.number not in seen:
            seen.add(entry.number)
            yield entry
