"""PDB and mmCIF read by Biopython, whose warnings are counted and whose errors become ours."""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from Bio.PDB.MMCIF2Dict import MMCIF2Dict
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBExceptions import PDBConstructionException, PDBConstructionWarning
from Bio.PDB.PDBParser import PDBParser

from protembed.errors import StructureError
from protembed.text import printable

GIVE_STRUCTURE = "give a PDB or mmCIF file of a protein, plain or compressed"

_MMCIF_START = re.compile(r"([ \t]*(#.*)?\n)*[ \t]*data_")
_PDB_ATOM = re.compile("^(ATOM  |HETATM)", re.MULTILINE)
_MODRES = re.compile(r"^MODRES.{6}(?P<name>.{3}).{9}(?P<parent>.{3})", re.MULTILINE)
_NAME_FIELD, _PARENT_FIELD = "_pdbx_struct_mod_residue.label_comp_id", "_pdbx_struct_mod_residue.parent_comp_id"
# What Biopython's parsers raise on damaged files, depending on where the damage is; they have no one class for it.
_DAMAGE = (
    PDBConstructionException,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
_LONGEST_REASON = 100


@dataclass(frozen=True, kw_only=True)
class ParsedStructure:
    """A structure as Biopython gives it.

    Attributes:
        model: the first one, a `Bio.PDB.Model.Model`.
        parents: the three-letter name of the parent of each modified residue that the file lists, by name.
        num_refused: residues and atoms that Biopython left out, for another one with the same name stands there.
    """

    model: Any
    parents: Mapping[str, str]
    num_refused: int


def parse_structure(text: str, name: str) -> ParsedStructure:
    """Parse a structure, PDB or mmCIF as its content says.

    Args:
        text: the whole file.
        name: of the file, for messages.

    Raises:
        StructureError: it is neither, or it is damaged.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    is_mmcif = _MMCIF_START.match(text) is not None
    if not (is_mmcif and "_atom_site." in text) and not _PDB_ATOM.search(text):
        raise StructureError(name, "this is neither a PDB nor an mmCIF file with atoms", GIVE_STRUCTURE)
    parser: Any = MMCIFParser() if is_mmcif else PDBParser()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PDBConstructionWarning)
        try:
            model = next(iter(parser.get_structure("", io.StringIO(text if is_mmcif else _without_header(text)))))
            parents = _mmcif_parents(text) if is_mmcif else _pdb_parents(text)
        except _DAMAGE as error:
            found = f"the structure is damaged ({_reason(error)})"
            raise StructureError(name, found, "fetch or make it again") from error
    return ParsedStructure(model=model, parents=parents, num_refused=sum(_is_loss(str(one.message)) for one in caught))


def _is_loss(warning: str) -> bool:
    """Tell the warnings that something was left out from all others; occupancies and B factors are not used here."""
    return "Exception ignored" in warning and "Invalid or missing" not in warning


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {printable(str(error.args[0]))}"
    if isinstance(error, IndexError):
        return "a line is cut off"
    if isinstance(error, TypeError):  # Biopython compares occupancies, and takes a missing one for None
        return "an alternative location has no occupancy"
    return printable(" ".join(str(error).split())[:_LONGEST_REASON])


def _without_header(pdb: str) -> str:
    """Blank all lines before the first atom: Biopython would stumble over dates and remarks that nobody needs here."""
    start = next(_PDB_ATOM.finditer(pdb)).start()
    return "\n" * pdb.count("\n", 0, start) + pdb[start:]


def _pdb_parents(text: str) -> dict[str, str]:
    return {found["name"].strip(): found["parent"].strip() for found in _MODRES.finditer(text)}


def _mmcif_parents(text: str) -> dict[str, str]:
    if _NAME_FIELD not in text:
        return {}
    fields = MMCIF2Dict(io.StringIO(text))
    return dict(zip(fields[_NAME_FIELD], fields[_PARENT_FIELD], strict=True))
