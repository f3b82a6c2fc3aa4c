"""PDB and mmCIF as atoms: PDB by the columns of its lines, mmCIF by gemmi's parser of the CIF syntax.

Both give the same few fields of each atom, as text where nothing is computed with them: residue numbers may be
hybrid-36 or asterisks. Occupancies, B factors and serial numbers are not read.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gemmi import cif

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
