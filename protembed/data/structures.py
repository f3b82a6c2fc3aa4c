"""Protein chains of PDB and mmCIF structures: reading them, aligning them to a sequence, and their contacts."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from Bio.Align import PairwiseAligner
from numpy.typing import NDArray

from protembed.data.structure_files import (
    BACKBONE,
    MAX_BOND_LENGTH,
    STRUCTURE_ADVICE,
    WATERS,
    Residue,
    ResidueReader,
    parse_structure,
    protein_residues,
    split_chains,
)
from protembed.errors import DataError, StructureError
from protembed.io.reading import display_name, open_input
from protembed.text import pluralize

CONTACT_DISTANCE = 8.0
MIN_SEPARATION = 6
# Two mutants of one protein differ in a few residues, and a purification tag adds a few. Two proteins of one family,
# whose contacts differ in part, are mostly less similar than this.
MIN_IDENTITY = 0.9
# If more than half of a protein is unobserved, most pairs that a model ranks first could be neither right nor wrong.
MIN_COVERAGE = 0.5

# Representative atoms of neighbouring residues are 4 to 7 Å apart; in nm the distances would be smaller than this.
_MIN_ATOM_DISTANCE = 1.0
# Fewer common residues than this may match by chance.
_MIN_COMMON_RESIDUES = 30
# Loops begin and end with a few residues that their neighbours may happen to repeat, rarely more.
_MAX_GAP_SHIFT = 10

_STRUCTURE_NAME = re.compile(r"^[^.].*\.(pdb\d*|ent|cif|mmcif)(\.(gz|bz2|xz))?$", re.IGNORECASE)
_SUFFIXES = re.compile(r"(\.(pdb\d*|ent|cif|mmcif|gz|bz2|xz))+$", re.IGNORECASE)


# Representative atoms


class RepresentativeAtoms(NamedTuple):
    """The representative atom of each residue of a chain.

    Attributes:
        positions: Positions of the atoms, (residues, 3), float64, Å; NaN where missing.
        kind: `CB` (C-beta, and C-alpha for glycine), `virtual CB` (the same, if the file has no C-beta), or `CA`
            (C-alpha for all residues).
        num_virtual: Number of residues whose C-beta is computed from their backbone.
    """

    positions: NDArray[np.float64]
    kind: str
    num_virtual: int = 0


def representative_atoms(residues: Sequence[Residue]) -> RepresentativeAtoms:
    """Choose the representative atom of each residue of a chain.

    It is the C-beta, or the C-alpha for glycine; a missing C-beta is computed from N, C-alpha and C. If most residues
    have only a C-alpha, it is the C-alpha for all.
    """
    atoms = np.array([[residue.position(name) for name in BACKBONE] for residue in residues]).reshape(-1, 4, 3)
    n, alpha, c, beta = _without_placeholders(atoms).transpose(1, 0, 2)
    is_glycine = np.array([residue.letter == "G" for residue in residues], dtype=bool)
    positions, computed = np.where(is_glycine[:, None], alpha, beta), virtual_c_beta(n, alpha, c)
    is_virtual = ~is_glycine & ~_is_known(beta) & _is_known(computed)
    positions[is_virtual] = computed[is_virtual]
    has_only_alpha = ~_is_known(positions) & _is_known(alpha)
    if has_only_alpha.sum() > (_is_known(positions) & ~is_glycine).sum():
        return RepresentativeAtoms(alpha, "CA")
    has_beta = bool((~is_glycine & _is_known(beta)).any())
    return RepresentativeAtoms(
        positions, "virtual CB" if is_virtual.any() and not has_beta else "CB", int(is_virtual.sum())
    )


def virtual_c_beta(n: NDArray[np.float64], alpha: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the positions of C-beta in L-amino acids of ideal geometry from those of N, C-alpha and C.

    All are (residues, 3), float64, Å; the result is NaN where an atom is missing.

    Source: the constants of trRosetta (Yang et al. 2020), as in ProteinMPNN (Dauparas et al. 2022).
    """
    first, second = alpha - n, c - alpha
    computed: NDArray[np.float64] = (
        alpha - 0.58273431 * np.cross(first, second) + 0.56802827 * first - 0.54067466 * second
    )
    return computed


def _is_known(positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(positions).all(axis=-1))


def _without_placeholders(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace positions that several atoms of a chain share by NaN, such as 0, 0, 0 for unobserved atoms."""
    _, row, counts = np.unique(atoms.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    is_shared = (counts[row.reshape(-1)] > 1).reshape(atoms.shape[:2])
    return np.where(is_shared[..., None], np.nan, atoms)


# Chains


@dataclass(frozen=True, kw_only=True)
class ChainStatistics:
    """Counts of the special cases in a chain.

    Attributes:
        num_altlocs: Residues with alternative locations or names; the first letter and the first name are used.
        num_insertions: Residues whose number has an insertion code.
        num_modified: Modified residues that are read as their parent.
        num_unknown: Residues that are read as X.
        num_virtual: Residues whose C-beta is missing and is computed from N, C-alpha and C.
        num_without_atom: Residues without a representative atom, which count as unobserved.
        num_waters: Omitted waters under the chain's name.
        num_others: Omitted ligands, ions, caps and nucleotides under the chain's name.
        num_repeated: Omitted atoms whose residue already has an atom of the same name.
    """

    num_altlocs: int
    num_insertions: int
    num_modified: int
    num_unknown: int
    num_virtual: int
    num_without_atom: int
    num_waters: int
    num_others: int
    num_repeated: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The observed residues of a protein chain, in the order of their peptide bonds.

    Attributes:
        name: Chain name of the authors; empty where the file has none.
        structure: File name without its suffixes.
        sequence: One letter for each observed residue; X where it is unknown.
        atoms: Kind of the representative atoms: `CB`, `virtual CB` or `CA`, as in `RepresentativeAtoms`.
        coordinates: Positions of the representative atoms, (residues, 3), float64, Å; NaN where missing.
        numbers: Residue numbers of the authors with their insertion codes, such as `52A`.
        breaks: Residues after which the chain is interrupted, (residues,), bool.
        statistics: Counts of the special cases in the chain.
    """

    name: str
    structure: str
    sequence: str
    atoms: str
    coordinates: NDArray[np.float64]
    numbers: Sequence[str]
    breaks: NDArray[np.bool_]
    statistics: ChainStatistics


def read_chains(path: Path) -> list[Chain]:
    """Read the protein chains of a structure's first model.

    The content distinguishes PDB from mmCIF. A hetero residue belongs to the chain if it is bonded to a neighbour there
    or the file lists it among the modified residues; other hetero residues are waters or ligands, and are omitted.

    Args:
        path: PDB or mmCIF file, plain, gzip, bzip2 or xz; `-` is stdin.

    Returns:
        The chains with at least one residue of a protein, in the file's order; several may have the same name.

    Raises:
        InputNotFoundError: The file cannot be opened.
        FormatError: The archive is damaged.
        StructureError: The file is neither PDB nor mmCIF, is damaged, has no protein, or is not in Å.
    """
    with open_input(path) as stream:
        text = stream.read().decode("utf-8-sig", errors="replace")
    name = display_name(path)
    atoms, parents = parse_structure(text, name)
    readers = defaultdict[str, ResidueReader](lambda: ResidueReader(parents))
    for atom in atoms:
        readers[atom.chain].add(atom)
    file = Path(name).name.strip("<>")  # of `<stdin>`
    structure = _SUFFIXES.sub("", file) or file
    proteins = [
        chain for key, reader in readers.items() for chain in _split_into_chains(key, structure, reader.residues)
    ]
    if not proteins:
        raise StructureError(name, "none of its chains is a protein", STRUCTURE_ADVICE)
    _check_units(proteins, name)
    return proteins


def _split_into_chains(name: str, structure: str, residues: Sequence[Residue]) -> Iterator[Chain]:
    """Make the protein chains that share one name."""
    members = protein_residues(residues)
    num_waters = sum(residue.name in WATERS for residue in residues)
    num_others = len(residues) - len(members) - num_waters
    for chain in split_chains(members):
        atoms = representative_atoms(chain)
        num_unknown = sum(residue.letter == "X" for residue in chain)
        statistics = ChainStatistics(
            num_altlocs=sum(residue.has_altlocs for residue in chain),
            num_insertions=sum(residue.number[-1:].isalpha() for residue in chain),
            num_modified=sum(not residue.is_standard for residue in chain) - num_unknown,
            num_unknown=num_unknown,
            num_virtual=atoms.num_virtual,
            num_without_atom=int(np.isnan(atoms.positions).any(axis=1).sum()),
            num_waters=num_waters,
            num_others=num_others,
            num_repeated=sum(residue.num_repeated for residue in chain),
        )
        is_broken = (residue.bond_length(following) >= MAX_BOND_LENGTH for residue, following in pairwise(chain))
        yield Chain(
            name=name,
            structure=structure,
            sequence="".join(residue.letter for residue in chain),
            atoms=atoms.kind,
            coordinates=atoms.positions,
            numbers=[residue.number for residue in chain],
            breaks=np.array([*is_broken, False]),
            statistics=statistics,
        )


def _check_units(chains: Sequence[Chain], name: str) -> None:
    """Raise if coordinates are in nm, where all residues would be in contact."""
    steps = np.concatenate([np.linalg.norm(np.diff(chain.coordinates, axis=0), axis=1) for chain in chains])
    known = steps[np.isfinite(steps)]
    if len(known) and (step := float(np.median(known))) < _MIN_ATOM_DISTANCE:
        found = f"neighbouring residues are {step:.2g} Å apart, but 4 to 7 Å in proteins"
        raise StructureError(name, found, "write the coordinates in Å; 1 nm is 10 Å")


def read_structures(paths: Iterable[Path]) -> tuple[list[Chain], list[str]]:
    """Read the protein chains of structures and of folders of structures.

    Returns:
        The chains, and a warning for each folder with unreadable files, which are skipped.

    Raises:
        InputNotFoundError: A file cannot be opened.
        DataError: A named file, or every file of a folder, cannot be read as a structure.
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
                f"skipped {len(errors):,} of {pluralize(len(files), 'structure')} in {path}, which cannot be read; "
                f"the first: {errors[0]}"
            )
    return chains, warnings


def structure_files(path: Path) -> list[Path]:
    """List the structures of a folder, sorted by name; any other path is a structure itself.

    Raises:
        StructureError: The folder has none, by the suffixes of PDB and mmCIF files, plain or compressed.
    """
    if not os.path.isdir(path):  # unlike `Path.is_dir`, it raises no error about a name that is too long
        return [path]
    files = sorted(file for file in path.iterdir() if _STRUCTURE_NAME.search(file.name) and file.is_file())
    if not files:
        expected = "give a folder with files such as 1abc.pdb, 1abc.ent.gz or 1abc.cif.gz"
        raise StructureError(str(path), "the folder holds no PDB or mmCIF file", expected)
    return files


# Alignments


@dataclass(frozen=True, kw_only=True)
class ChainAlignment:
    """A sequence aligned to a chain.

    Attributes:
        indices: Index of each residue of the sequence in the chain, (residues of the sequence,), int64; -1 where it is
            unobserved.
        identity: Fraction of the aligned residues that are identical; pairs with an X do not count.
        coverage: Fraction of the sequence's residues that are observed and have coordinates.
    """

    chain: Chain
    indices: NDArray[np.int64]
    identity: float
    coverage: float

    @property
    def is_sufficient(self) -> bool:
        """Whether enough of the protein is observed to use its contacts."""
        return self.coverage >= MIN_COVERAGE

    @property
    def is_partial_match(self) -> bool:
        """Whether the chain is a part of the protein, and not another protein with some letters in common."""
        num_common = int((self.indices >= 0).sum())
        is_most = 2 * num_common > len(self.chain.sequence)
        return self.identity >= MIN_IDENTITY and num_common >= _MIN_COMMON_RESIDUES and is_most


def make_aligner() -> PairwiseAligner:
    """Make an aligner for a protein and its observed residues: global, with free ends.

    Letters match or do not, because both sequences are of one protein: a substitution matrix would favour exchanges
    that a mutant need not prefer, and BLOSUM62 has neither U nor O. X matches everything without a score. A long gap
    costs little more than a short one, because unobserved loops are long; two gaps cost more than a mutated residue.
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

    When `AGTGS` is seen as `AG` and `S`, or as `A` and `GS`, letters alone do not show which G was observed. In such a
    case the gap is placed where the chain is interrupted.

    Args:
        aligner: Aligner from `make_aligner`.
        sequence: Amino-acid sequence of the whole protein; not empty.
        observed: One letter for each residue of the chain; not empty.
        breaks: Residues after which the chain is interrupted, (residues of the chain,), bool.

    Returns:
        Index of each residue of the sequence in the chain, (residues of the sequence,), int64; -1 where unobserved.
    """
    indices = np.full(len(sequence), -1, dtype=np.int64)
    for (start, stop), (first, last) in zip(*aligner.align(sequence, observed)[0].aligned, strict=True):
        indices[start:stop] = np.arange(first, last)
    for before, stop in pairwise(np.flatnonzero(indices >= 0).tolist()):
        if stop - before > 1 and indices[stop] - indices[before] == 1:
            for shift in sorted(range(-_MAX_GAP_SHIFT, _MAX_GAP_SHIFT + 1), key=abs):
                if _move_gap(indices, sequence, breaks, (before + 1, stop), shift):
                    break
    return indices


def _move_gap(
    indices: NDArray[np.int64], sequence: str, breaks: NDArray[np.bool_], gap: tuple[int, int], shift: int
) -> bool:
    """Shift a gap by some residues, if the letters stay the same and the chain is interrupted there."""
    start, stop = gap
    left, right = min(shift, 0), max(shift, 0)
    first, last = start - 1 + left, stop + right  # one residue on either side stays
    block = np.concatenate([indices[max(first, 0) : start], indices[stop : last + 1]])
    contiguous = np.arange(indices[start - 1] + left, indices[stop] + right + 1)
    has_same_letters = sequence[start + left : start + right] == sequence[stop + left : stop + right]
    if not np.array_equal(block, contiguous) or not has_same_letters or not breaks[indices[start - 1] + shift]:
        return False
    num_before = start + shift - first
    indices[first : last + 1] = -1
    indices[first : start + shift] = block[:num_before]
    indices[stop + shift : last + 1] = block[num_before:]
    return True


def best_chain(sequence: str, chains: Sequence[Chain]) -> ChainAlignment | None:
    """Find the chain that matches a protein best, the first of equally good ones, and align it.

    The alignment is global with free ends, and ignores residue numbers. Where the letters leave the position of a gap
    open, the interruption of the chain decides.

    Returns:
        The best match with sufficient coverage. If there is none, the partial match with the highest coverage. None if
        no chain has an identity of at least `MIN_IDENTITY`.
    """
    aligner = make_aligner()
    best: ChainAlignment | None = None
    partial: ChainAlignment | None = None
    best_score = -math.inf
    for chain in chains:
        score = aligner.score(sequence, chain.sequence)
        if score <= best_score:
            continue
        match = _make_alignment(sequence, chain, align_residues(aligner, sequence, chain.sequence, chain.breaks))
        if match.identity >= MIN_IDENTITY and match.is_sufficient:
            best, best_score = match, score
        elif match.is_partial_match and match.coverage > (partial.coverage if partial else 0):
            partial = match
    return best or partial


def _make_alignment(sequence: str, chain: Chain, indices: NDArray[np.int64]) -> ChainAlignment:
    pairs = [(letter, chain.sequence[index]) for letter, index in zip(sequence, indices, strict=True) if index >= 0]
    is_same = [letter == observed for letter, observed in pairs if "X" not in (letter, observed)]
    identity = sum(is_same) / len(is_same) if is_same else 0.0
    num_seen = int(np.isfinite(chain.coordinates[indices[indices >= 0]]).all(axis=1).sum())
    return ChainAlignment(chain=chain, indices=indices, identity=identity, coverage=num_seen / len(sequence))


# Contacts


def distances(match: ChainAlignment) -> NDArray[np.float32]:
    """Measure the distances between the representative atoms of a sequence's residues, (residues, residues), in Å.

    They are float32 and symmetric; NaN where either residue is unobserved.
    """
    coordinates = np.where(match.indices[:, None] >= 0, match.chain.coordinates[match.indices], np.nan)
    x, y, z = (np.subtract.outer(axis, axis) for axis in coordinates.T)
    squares: NDArray[np.float64] = x**2 + y**2 + z**2
    return np.sqrt(squares).astype(np.float32)


def contact_map(distances: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the pairs of residues in contact: closer than 8 Å, and at least 6 positions apart.

    Args:
        distances: Distances, (residues, residues), float32, Å; NaN where unknown.

    Returns:
        Contacts, and known distances at any separation: (residues, residues) each, bool, symmetric.

    Source: the definition of CASP for 8 Å between C-beta atoms; Rao et al. 2021 for the separation.
    """
    positions = np.arange(len(distances))
    is_apart = np.abs(np.subtract.outer(positions, positions)) >= MIN_SEPARATION
    return (distances < CONTACT_DISTANCE) & is_apart, ~np.isnan(distances)
