"""Everything that can go wrong, as a tree.

    ProtembedError                      exit status 1
    ├── ConfigError                     2   an option out of its range, or options that contradict each other
    ├── DataError                      65   an input that is not what it should be
    │   ├── FormatError                     not FASTA at all, or empty
    │   │   └── DamagedArchiveError         an archive that is truncated or damaged
    │   ├── RecordError                     a record without identifier or sequence
    │   ├── IllegalResidueError             a character that is no amino acid
    │   ├── ChangedInputError               a file that was written to while it was read
    │   ├── TooLongError                    a protein longer than the model's window, where that was refused
    │   ├── TooShortError                   a protein that ends before the region begins
    │   ├── TableError                      a row of a table
    │   ├── UnscorableVariantError          a variant that is no substitution of amino acids
    │   ├── MismatchedResidueError          a mutation that names another residue than stands there
    │   ├── NothingToLearnError             too few proteins
    │   ├── NothingToMeasureError           validation proteins of unknown residues alone
    │   ├── ModelFormatError                a model directory that cannot be read
    │   ├── StructureError                  a structure that cannot be read or shows no protein
    │   └── TooFewStructuresError           structures that show none of the proteins
    ├── InputNotFoundError             66   no such file, model or column
    ├── OutputExistsError               1   a finished result that would be overwritten
    ├── OutputError                     1   a result that could not be written
    ├── ChangedRunError                 1   a run directory that belongs to another command
    ├── RunInUseError                   1   a run directory that another process is writing
    ├── LostProcessError                1   another process of the run that has ended
    ├── NotEnoughMemoryError            1   a model that is too large for this machine
    ├── NotEnoughRoomError              1   attention maps that are too large for this machine
    ├── NotFiniteError                  1   vectors or predictions that hold what is no number
    ├── TooLongForMemoryError           1   a stretch of a protein that is too long for this machine
    ├── HubError                        1   a model that could not be fetched from the hub
    ├── NotVerifiedError                1   a result that is not what it says it is
    ├── DamagedRunError                 1   a run whose files are torn or damaged
    └── DivergedError                   1   training that left the finite numbers

Each error stores what it knows and builds one sentence that says what was found, where, and what to do.
"""

import string
from collections.abc import Sequence
from pathlib import Path

from protembed.io.text import format_bytes


class ProtembedError(Exception):
    """The base of all errors that protembed raises on purpose; its text is one sentence for the user."""

    exit_status = 1


class ConfigError(ProtembedError):
    """An option that is out of its range, or that contradicts another one."""

    exit_status = 2

    def __init__(self, option: str, found: object, expected: str) -> None:
        self.option, self.found, self.expected = option, found, expected
        super().__init__(f"{option} is {found!r}, but {expected}")


class DataError(ProtembedError):
    """An input that is not what it should be."""

    exit_status = 65


class FormatError(DataError):
    """A file that is no FASTA, or is empty."""

    def __init__(self, path: str, found: str, advice: str, *, line: int | None = None) -> None:
        self.path, self.found, self.advice, self.line = path, found, advice, line
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {found}; {advice}")


class DamagedArchiveError(FormatError):
    """An archive that is truncated or damaged; however many records were read before, they are no whole data set."""

    def __init__(self, path: str, reason: str, *, num_records: int | None = None) -> None:
        self.reason, self.num_records = reason, num_records
        before = "" if num_records is None else f", whole records before that: {num_records:,}"
        super().__init__(path, f"the archive is truncated or damaged ({reason}){before}", "fetch or make it again")


class RecordError(DataError):
    """A record that has no identifier or no sequence."""

    def __init__(self, path: str, line: int, record: int, found: str, advice: str) -> None:
        self.path, self.line, self.record, self.found, self.advice = path, line, record, found, advice
        super().__init__(f"{path}, line {line}: record {record} {found}; {advice}")


_TAKE_GAPS_OUT = "take the gaps out (`seqkit seq -g` does), or pass --on-illegal skip (leave the record out)"
_CHAINS = "a record of several chains: give each chain a record of its own, or pass --on-illegal skip (leave it out)"
_ADVICE_ON_LETTERS = {
    ">": "put every header on a line of its own, with nothing before its '>'",
    "\0": "the file is binary or damaged, fetch or make it again",
    "-": f"this is an alignment: {_TAKE_GAPS_OUT}",
    ".": f"this is an alignment, or the dot stands for a stop codon: {_TAKE_GAPS_OUT}",
    "*": (
        "a stop codon within a protein: correct its translation, or pass --on-illegal mask (read it as X) or "
        "--on-illegal skip (leave the record out)"
    ),
    ":": _CHAINS,
    "/": _CHAINS,
}


class IllegalResidueError(DataError):
    """A character that is no amino acid, in a sequence."""

    def __init__(self, path: str, line: int, record_id: str, column: int, found: str) -> None:
        self.path, self.line, self.record_id, self.column, self.found = path, line, record_id, column, found
        usual = "correct the file, or pass --on-illegal mask (read it as X) or --on-illegal skip (leave the record out)"
        advice = _ADVICE_ON_LETTERS.get(found, usual)
        if found in string.ascii_lowercase:  # all others were upper-cased before they were looked at
            advice = (
                "upper and lower case alternate, as in SaProt's structure-aware sequences: take the lower-case letters "
                "out, which describe the structure"
            )
        super().__init__(
            f"{path}, line {line}: {found!r} in column {column} of record {record_id!r} is no amino acid; {advice}"
        )


class ChangedInputError(DataError):
    """A file whose bytes were not the same from the beginning of its reading to the end of the computation."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"{path} changed while it was read, so there is no result; run the command again when the file is complete"
        )


class TooLongError(DataError):
    """A protein longer than the model's window, under `--long-proteins error`."""

    def __init__(self, path: str, line: int, record_id: str, num_residues: int, window_residues: int) -> None:
        self.path, self.line, self.record_id = path, line, record_id
        self.num_residues, self.window_residues = num_residues, window_residues
        super().__init__(
            f"{path}, line {line}: record {record_id!r} has {num_residues:,} residues, more than the window of "
            f"{window_residues:,}; choose --long-proteins window, truncate or skip, or a larger --window-residues"
        )


class TooShortError(DataError):
    """A protein that ends before the residue at which `--region` begins."""

    def __init__(self, path: str, line: int, record_id: str, num_residues: int, first: int) -> None:
        self.path, self.line, self.record_id = path, line, record_id
        self.num_residues, self.first = num_residues, first
        super().__init__(
            f"{path}, line {line}: {record_id!r} has {num_residues:,} residues, and --region begins at residue "
            f"{first:,}; remove it, choose another --region, or pass --on-illegal skip (leave it out)"
        )


class TableError(DataError):
    """A row, or the whole, of a table."""

    def __init__(self, path: str, found: str, advice: str, *, line: int | None = None) -> None:
        self.path, self.found, self.advice, self.line = path, found, advice, line
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {found}; {advice}")


class UnsupportedVariantError(DataError):
    """A variant that a model cannot score: an insertion, a deletion, a stop, or a letter that is no amino acid."""

    def __init__(self, path: str, line: int, found: str) -> None:
        self.path, self.line, self.found = path, line, found
        super().__init__(
            f"{path}, line {line}: {found}; only substitutions among the 20 amino acids are scored, such as A42G or "
            "A42G:K50R: correct the row, or pass --on-illegal skip (leave such rows out)"
        )


class MismatchedResidueError(DataError):
    """A mutation that names another residue than stands at its position, or a position that is not there."""

    def __init__(
        self, path: str, line: int, mutation: str, found: str, advice: str = "correct the row, or give its wild type"
    ) -> None:
        self.path, self.line, self.mutation, self.found, self.advice = path, line, mutation, found, advice
        super().__init__(f"{path}, line {line}: {mutation} does not fit, for {found}; {advice}")

    def with_suggested_offset(self, offset: int) -> "MismatchedResidueError":
        """Make the same error for a table whose numbering is shifted as a whole."""
        advice = f"the table's mutations would all fit with --position-offset {offset}"
        return MismatchedResidueError(self.path, self.line, self.mutation, self.found, advice)


class TooFewProteinsError(DataError):
    """Too few proteins to train on some and validate on others."""

    def __init__(self, num_proteins: int) -> None:
        self.num_proteins = num_proteins
        super().__init__(
            f"{num_proteins} proteins are too few to train on and to hold some out for validation; "
            "give more, or pass --valid FASTA"
        )


class EmptyValidationSetError(DataError):
    """Validation proteins none of whose residues can be hidden."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"no protein of the validation set {name!r} has a standard amino acid to hide and guess; "
            "give others by --valid FASTA"
        )


class ModelFormatError(DataError):
    """A model directory whose files are missing, damaged, or describe something that is not ESM-2."""

    def __init__(self, path: Path, found: str, advice: str) -> None:
        self.path, self.found, self.advice = path, found, advice
        super().__init__(f"{path}: {found}; {advice}")


class InputNotFoundError(ProtembedError):
    """An input file or model that is not there or cannot be read."""

    exit_status = 66

    def __init__(self, name: str, found: str, advice: str) -> None:
        self.name, self.found, self.advice = name, found, advice
        super().__init__(f"{name}: {found}; {advice}")


class OutputExistsError(ProtembedError):
    """A finished result of another command stands where this one would write."""

    def __init__(self, path: Path, difference: str, *, is_ours: bool = True) -> None:
        self.path, self.difference, self.is_ours = path, difference, is_ours
        force = ", or pass --force to replace it" if is_ours else "; --force does not replace it either"
        super().__init__(f"{path} exists and {difference}; choose another --output{force}")


class OutputError(ProtembedError):
    """A result that could not be written."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} could not be written ({reason}); nothing was left behind under that name")


class RunMismatchError(ProtembedError):
    """A run directory that was begun with other settings or other data."""

    def __init__(self, path: Path, changes: Sequence[str]) -> None:
        self.path, self.changes = path, tuple(changes)
        super().__init__(
            f"{path} was begun with other settings ({'; '.join(changes)}); "
            "repeat the first command to resume, choose another --output, or pass --force to begin anew"
        )


class RunInUseError(ProtembedError):
    """A run directory that another process is writing."""

    def __init__(self, path: Path, holder: str) -> None:
        self.path, self.holder = path, holder
        super().__init__(f"{path} is in use by {holder}; wait for it, or choose another --output")


class PeerProcessError(ProtembedError):
    """Another process of a run that several share has ended before its time."""

    def __init__(self) -> None:
        super().__init__("another process of this run has ended; its own message says why")


class NotEnoughMemoryError(ProtembedError):
    """A model that does not fit into memory together with its gradients and the optimiser's numbers."""

    def __init__(self, size: str, needed: int, available: int) -> None:
        self.size, self.needed, self.available = size, needed, available
        super().__init__(
            f"training {size} needs at least {needed / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are "
            "there; choose a smaller --size"
        )


class InsufficientResourcesError(ProtembedError):
    """Attention maps that need more memory or disk than there is."""

    def __init__(self, resource: str, needed: int, available: int, longest: str, advice: str) -> None:
        self.resource, self.needed, self.available = resource, needed, available
        super().__init__(
            f"attention maps need about {format_bytes(needed)} of {resource}, most of it for {longest}, and "
            f"{format_bytes(available)} are there; {advice}"
        )


class TooLongForMemoryError(ProtembedError):
    """A stretch of a protein that does not fit into memory even alone."""

    def __init__(self, num_tokens: int, record_id: str | None = None) -> None:
        self.num_tokens, self.record_id = num_tokens, record_id
        whose = "" if record_id is None else f"{record_id!r}: "
        super().__init__(
            f"{whose}a stretch of {num_tokens:,} tokens alone does not fit into memory; choose a machine with more of "
            "it, a smaller model, for embed and score a smaller --window-residues, or for finetune "
            "--gradient-checkpointing"
        )


class NotFiniteError(ProtembedError):
    """Vectors, or what else is computed of a protein, that hold infinities or what is no number."""

    def __init__(self, record_id: str, precision: str, dtype: str, *, what: str = "vectors") -> None:
        self.record_id, self.precision, self.dtype, self.what = record_id, precision, dtype, what
        advice = "the model itself is at fault"
        if "float32" not in (precision, dtype) or precision == "float16":
            advice = "choose --precision float32"
        elif dtype == "float16":
            advice = "choose --store-dtype float32, for float16 ends at 65,504"
        verb = "are" if what.endswith("s") else "is"
        super().__init__(
            f"the {what} of {record_id!r} {verb} not finite in precision {precision}, stored as {dtype}; {advice}"
        )


class HubError(ProtembedError):
    """A model that could not be fetched from the Hugging Face hub."""

    def __init__(self, name: str, found: str, advice: str) -> None:
        self.name, self.found, self.advice = name, found, advice
        super().__init__(f"{name}: {found}; {advice}")


class VerificationError(ProtembedError):
    """A result that is not whole, or not what it says it is."""

    def __init__(self, path: Path, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path} is not verified: {found}")


class DamagedRunError(ProtembedError):
    """A run whose files are torn or damaged, so that it cannot go on."""

    def __init__(self, path: Path, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path}: {found}; pass --force to begin anew")


class DivergedError(ProtembedError):
    """Training whose loss or gradients are no longer finite numbers."""

    def __init__(self, step: int, num_skipped: int) -> None:
        self.step, self.num_skipped = step, num_skipped
        found = f"the loss or its gradients were not finite in {num_skipped} steps in a row, up to step {step}"
        if not num_skipped:
            found = f"the validation loss is not finite after step {step}"
        super().__init__(f"{found}; the last checkpoint is intact: begin anew with a lower --learning-rate")


class StructureError(DataError):
    """A file that is neither PDB nor mmCIF, is damaged, or shows no protein."""

    def __init__(self, path: str, found: str, advice: str) -> None:
        self.path, self.found, self.advice = path, found, advice
        super().__init__(f"{path}: {found}; {advice}")


class NoStructureMatchError(DataError):
    """Structures that show none of the proteins, or none that has long-range contacts."""

    def __init__(self, num_proteins: int, notes: Sequence[str] = ()) -> None:
        self.num_proteins, self.notes = num_proteins, notes
        found = (
            f"--structures shows {num_proteins} of the proteins with long-range contacts, and one at least is needed"
        )
        advice = "give more structures, or proteins whose sequences they show"
        super().__init__("; ".join([found, *notes, advice]))
