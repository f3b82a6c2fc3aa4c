"""Structures in PDB and mmCIF: the observed residues of each chain, found again in a sequence, and their contacts."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from Bio.Align import PairwiseAligner
from numpy.typing import NDArray

from protembed.attention.structure_files import (
    LONGEST_BOND,
    STRUCTURE_ADVICE,
    WATERS,
    Residue,
    ResidueReader,
    divide_chains,
    parse_structure,
    protein_residues,
    representative_atoms,
)
from protembed.errors import DataError, StructureError
from protembed.io.reading import STANDARD_STREAM, display_name, open_input
from protembed.io.text import pluralize

# Loops begin and end with a few residues that their neighbours may happen to repeat, rarely more.
_FARTHEST_SHIFT = 10


def make_aligner() -> PairwiseAligner:
    """Make an aligner for a protein and what was observed of it: global, with free ends.

    Letters are the same or not, for both are one protein: a substitution matrix would forgive exchanges that a mutant
    has no reason to prefer, and BLOSUM62 knows neither U nor O. X fits everything and proves nothing. A long gap costs
    little more than a short one, for loops that move are long, and two gaps cost more than a mutated residue.
    """
    aligner = PairwiseAligner(mode="global", match_score=2, mismatch_score=-2, wildcard="X")
    aligner.open_gap_score = -4
    aligner.extend_gap_score = -0.05
    aligner.end_gap_score = 0
    return aligner


def align_residues(
    aligner: PairwiseAligner, sequence: str, observed: str, breaks: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Align the observed residues of a chain to a sequence.

    When `AGTGS` is seen as `AG` and `S`, or as `A` and `GS`, letters alone cannot tell which G was observed. There the
    gap is put where the chain is interrupted.

    Args:
        aligner: from `make_aligner`.
        sequence: of the whole protein; not empty.
        observed: one letter for each residue of the chain; not empty.
        breaks: (residues of the chain,); True where the chain is interrupted after a residue.

    Returns:
        (residues of the sequence,), int64: the number of the chain's residue that stands there, from 0, or -1.
    """
    places = np.full(len(sequence), -1, dtype=np.int64)
    for (start, stop), (first, last) in zip(*aligner.align(sequence, observed)[0].aligned, strict=True):
        places[start:stop] = np.arange(first, last)
    for before, stop in pairwise(np.flatnonzero(places >= 0).tolist()):
        if stop - before > 1 and places[stop] - places[before] == 1:
            for shift in sorted(range(-_FARTHEST_SHIFT, _FARTHEST_SHIFT + 1), key=abs):
                if _move_gap(places, sequence, breaks, (before + 1, stop), shift):
                    break
    return places


def _move_gap(
    places: NDArray[np.int64], sequence: str, breaks: NDArray[np.bool_], gap: tuple[int, int], shift: int
) -> bool:
    """Shift a gap by some residues, if the letters stay the same and the chain is interrupted there."""
    start, stop = gap
    left, right = min(shift, 0), max(shift, 0)
    first, last = start - 1 + left, stop + right  # a residue on either side stays where it is
    block = np.concatenate([places[max(first, 0) : start], places[stop : last + 1]])
    wanted = np.arange(places[start - 1] + left, places[stop] + right + 1)
    has_same_letters = sequence[start + left : start + right] == sequence[stop + left : stop + right]
    if not np.array_equal(block, wanted) or not has_same_letters or not breaks[places[start - 1] + shift]:
        return False
    num_before = start + shift - first
    places[first : last + 1] = -1
    places[first : start + shift] = block[:num_before]
    places[stop + shift : last + 1] = block[num_before:]
    return True


CONTACT_DISTANCE = 8.0
MIN_SEPARATION = 6
# Two mutants of one protein differ in a few residues, and a purification tag adds a few; two proteins of one family,
# whose contacts differ in part, mostly share less than this.
MIN_IDENTITY = 0.9
# Where more than half of a protein is unseen, most pairs that a model ranks first could be neither right nor wrong.
MIN_COVERAGE = 0.5

# Atoms that stand for neighbouring residues are 4 to 7 Å apart; in nm they would seem to be less than this.
_SHORTEST_STEP = 1.0

# A partial match of so few residues may be one of chance.
_FEWEST_IN_COMMON = 30

_STRUCTURE_NAME = re.compile(r"^[^.].*\.(pdb\d*|ent|cif|mmcif)(\.(gz|bz2|xz))?$", re.IGNORECASE)
_SUFFIXES = re.compile(r"(\.(pdb\d*|ent|cif|mmcif|gz|bz2|xz))+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ChainStatistics:
    """What was met in a chain, and how often.

    Attributes:
        num_altlocs: residues with alternative locations or names; the first letter, and the first name, was taken.
        num_insertions: residues whose number has an insertion code.
        num_modified: modified residues that were read as their parent.
        num_unknown: residues that were read as X.
        num_virtual: residues whose C-beta is missing and was computed from N, C-alpha and C.
        num_without_place: residues without an atom that could stand for them; they count as not observed.
        num_waters: waters under the chain's name, which were left out.
        num_others: ligands, ions, caps and nucleotides under the chain's name, which were left out.
        num_repeated: atoms that were left out, because their residue has one of the same name.
    """

    num_altlocs: int
    num_insertions: int
    num_modified: int
    num_unknown: int
    num_virtual: int
    num_without_place: int
    num_waters: int
    num_others: int
    num_repeated: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The observed residues of a protein chain, in the order of their peptide bonds.

    Attributes:
        name: the authors' name of the chain; empty where the file gives none.
        structure: the file's name without its suffixes.
        sequence: one letter for each observed residue; X where it is unknown.
        atoms: the kind of atom that stands for the residues: `CB`, `virtual CB` or `CA`; see `RepresentativeAtoms`.
        coordinates: (residues, 3), float64, Å, of that atom; NaN where it is missing.
        numbers: the authors' residue numbers with their insertion codes, such as `52A`.
        breaks: (residues,), bool; True where the chain is interrupted after a residue.
        notes: what was met on the way.
    """

    name: str
    structure: str
    sequence: str
    atoms: str
    coordinates: NDArray[np.float64]
    numbers: Sequence[str]
    breaks: NDArray[np.bool_]
    notes: ChainStatistics


@dataclass(frozen=True, kw_only=True)
class ChainAlignment:
    """A sequence found again in a chain.

    Attributes:
        chain: the chain.
        places: (residues of the sequence,), int64: the number of the chain's residue that stands there, from 0; -1
            where none was observed.
        identity: share of the aligned residues that are identical; those that are X on either side do not count.
        coverage: share of the sequence's residues that were observed and have a place.
    """

    chain: Chain
    places: NDArray[np.int64]
    identity: float
    coverage: float

    @property
    def is_enough(self) -> bool:
        """Whether so much of the protein is observed that its contacts can be used."""
        return self.coverage >= MIN_COVERAGE

    @property
    def is_of_a_part(self) -> bool:
        """Whether the chain is plainly a part of the protein, and no other protein that has some letters in common."""
        num_common = int((self.places >= 0).sum())
        is_most = 2 * num_common > len(self.chain.sequence)
        return self.identity >= MIN_IDENTITY and num_common >= _FEWEST_IN_COMMON and is_most


def read_chains(path: Path) -> list[Chain]:
    """Read the protein chains of a structure's first model.

    PDB and mmCIF are told apart by content. A hetero residue belongs to the chain if it is bonded to a neighbour there
    or the file lists it among the modified residues; everything else is water or a ligand, and left out.

    Args:
        path: PDB or mmCIF, plain, gzip, bzip2 or xz; `-` is stdin.

    Returns:
        The chains with at least one residue of a protein, in the file's order; several may have one name.

    Raises:
        InputNotFoundError: the file cannot be opened.
        FormatError: the archive is damaged.
        StructureError: the file is neither PDB nor mmCIF, is damaged, has no protein, or is not in Å.
    """
    with open_input(path) as stream:
        text = stream.read().decode("utf-8-sig", errors="replace")
    name = display_name(path)
    parsed = parse_structure(text, name)
    readers: dict[str, ResidueReader] = {}
    for atom in parsed.atoms:
        if atom.chain not in readers:
            readers[atom.chain] = ResidueReader(parsed.parents)
        readers[atom.chain].add(atom)
    structure = "stdin" if path == STANDARD_STREAM else _SUFFIXES.sub("", path.name) or path.name
    proteins = [chain for key, reader in readers.items() for chain in _chains_of(key, structure, reader.residues)]
    if not proteins:
        raise StructureError(name, "none of its chains is a protein", STRUCTURE_ADVICE)
    _check_units(proteins, name)
    return proteins


def _check_units(chains: Sequence[Chain], name: str) -> None:
    """Refuse coordinates in nm, in which all residues would be in contact."""
    steps = np.concatenate([np.linalg.norm(np.diff(chain.coordinates, axis=0), axis=1) for chain in chains])
    known = steps[np.isfinite(steps)]
    if len(known) and (step := float(np.median(known))) < _SHORTEST_STEP:
        found = f"residues that follow one another lie {step:.2g} Å apart, and in proteins 4 to 7"
        raise StructureError(name, found, "write the coordinates in Å; nm are ten times as long")


def read_structures(paths: Iterable[Path]) -> tuple[list[Chain], list[str]]:
    """Read the protein chains of structures and of folders of structures.

    Returns:
        The chains, and a warning for each folder in which a file cannot be read and was left out.

    Raises:
        InputNotFoundError: a file cannot be opened.
        DataError: a file that was named, or every one of a folder, cannot be read as a structure.
    """
    chains: list[Chain] = []
    warnings: list[str] = []
    for path in paths:
        files, errors = structure_files(path), []
        for file in files:
            try:
                chains += read_chains(file)
            except DataError as error:
                errors.append(error)
        if len(errors) == len(files):
            raise errors[0]
        if errors:
            warnings.append(
                f"{len(errors):,} of {pluralize(len(files), 'structure')} in {path} cannot be read and were left out; "
                f"the first is {errors[0]}"
            )
    return chains, warnings


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


def best_chain(sequence: str, chains: Sequence[Chain]) -> ChainAlignment | None:
    """Find the chain that shows a protein best, and the places of its residues in the sequence.

    The alignment is global with free ends, and numbers play no part. Where it leaves open between which residues of the
    sequence the unobserved ones stand, the chain's own interruption decides.

    Args:
        sequence: residues of the alphabet.
        chains: of one structure or of many; of equally good ones the first is taken.

    Returns:
        The best match whose coverage is enough; if there is none, the one with the highest coverage, if it is that of a
        part of the protein. None if no chain has an identity of at least `MIN_IDENTITY`.
    """
    aligner = make_aligner()
    best: ChainAlignment | None = None
    partial: ChainAlignment | None = None
    best_score = -math.inf
    for chain in chains:
        score = aligner.score(sequence, chain.sequence)
        if score <= best_score:
            continue
        match = _compare(sequence, chain, align_residues(aligner, sequence, chain.sequence, chain.breaks))
        if match.identity >= MIN_IDENTITY and match.is_enough:
            best, best_score = match, score
        elif match.is_of_a_part and match.coverage > (partial.coverage if partial else 0):
            partial = match
    return best or partial


def distances(match: ChainAlignment) -> NDArray[np.float32]:
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


def _compare(sequence: str, chain: Chain, places: NDArray[np.int64]) -> ChainAlignment:
    pairs = [(letter, chain.sequence[place]) for letter, place in zip(sequence, places, strict=True) if place >= 0]
    is_same = [one == other for one, other in pairs if "X" not in (one, other)]
    identity = sum(is_same) / len(is_same) if is_same else 0.0
    num_seen = int(np.isfinite(chain.coordinates[places[places >= 0]]).all(axis=1).sum())
    return ChainAlignment(chain=chain, places=places, identity=identity, coverage=num_seen / len(sequence))


def _chains_of(name: str, structure: str, residues: Sequence[Residue]) -> Iterator[Chain]:
    """Make the protein chains that stand under one name."""
    members = protein_residues(residues)
    num_waters = sum(residue.name in WATERS for residue in residues)
    num_others = len(residues) - len(members) - num_waters
    for chain in divide_chains(members):
        atoms = representative_atoms(chain)
        num_unknown = sum(residue.letter == "X" for residue in chain)
        notes = ChainStatistics(
            num_altlocs=sum(residue.has_altlocs for residue in chain),
            num_insertions=sum(residue.number[-1:].isalpha() for residue in chain),
            num_modified=sum(not residue.is_standard for residue in chain) - num_unknown,
            num_unknown=num_unknown,
            num_virtual=atoms.num_virtual,
            num_without_place=int(np.isnan(atoms.positions).any(axis=1).sum()),
            num_waters=num_waters,
            num_others=num_others,
            num_repeated=sum(residue.num_repeated for residue in chain),
        )
        yield Chain(
            name=name,
            structure=structure,
            sequence="".join(residue.letter for residue in chain),
            atoms=atoms.kind,
            coordinates=atoms.positions,
            numbers=[residue.number for residue in chain],
            breaks=np.array([*(one.bond_length(other) >= LONGEST_BOND for one, other in pairwise(chain)), False]),
            notes=notes,
        )
