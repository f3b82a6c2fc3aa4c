"""Everything that can go wrong, as a tree of errors with their exit statuses.

    ProtembedError                          1   the base of all errors that protembed raises on purpose
    ├── ConfigError                         2   an option that is out of range, or options that contradict each other
    ├── InputError                         65   an input that is missing, or is invalid
    │   ├── InputNotFoundError             66       an input file or model that does not exist or cannot be read
    │   │   └── NotFinetunedError                   a model without a head to predict with
    │   ├── HubError                        1       a model that could not be downloaded from the hub
    │   └── DataError                               an input that is invalid
    │       ├── FormatError                         a file that is not FASTA, or is empty
    │       │   └── DamagedArchiveError             an archive that is truncated or damaged
    │       ├── RecordError                         a record without identifier or sequence
    │       ├── SkippableError                      a record or row that is invalid, and can be left out
    │       │   ├── IllegalResidueError             a character that is not an amino acid
    │       │   ├── NoProteinError                  a record that is not a protein, or has nothing to fill in
    │       │   ├── TooLongError                    a protein longer than the model's window, where that is an error
    │       │   ├── TooShortError                   a protein that ends before the region begins
    │       │   ├── NoAminoAcidError                a protein without a standard residue, where likelihoods are computed
    │       │   ├── UnsupportedVariantError         a variant that changes more than amino acids
    │       │   └── MissingCellError                a row of a table without a sequence, label or split
    │       ├── SequenceError                       a sequence given in Python that is not a protein
    │       ├── ChangedInputError                   a file that changed while it was read
    │       ├── TableError                          an invalid table, or an invalid row of one
    │       │   └── FaultyRowsError                     several invalid rows of a table
    │       ├── MismatchedResidueError              a mutation that does not fit its wild type
    │       ├── TooFewProteinsError                 too few proteins to train and validate on
    │       ├── EmptyValidationSetError             validation proteins without a standard amino acid
    │       ├── ModelFormatError                    a model directory that cannot be read
    │       ├── StructureError                      a structure that cannot be read or contains no protein
    │       └── NoStructureMatchError               structures that match none of the proteins
    ├── OutputExistsError                   1   a finished result that would be overwritten
    ├── OutputError                         1   a result that cannot be written
    │   └── NoTemporaryDirectoryError               a machine on which temporary files cannot be written
    ├── RunError                            1   a run that cannot be started, resumed or finished
    │   ├── RunMismatchError                        a run directory that belongs to a different command
    │   ├── RunInUseError                           a run or result that another process is writing
    │   ├── DamagedRunError                         a run directory whose files are incomplete or damaged
    │   ├── PeerProcessError                        another process of a distributed run that has ended
    │   └── DivergedError                           training whose loss or gradients are no longer finite
    ├── ResourceError                       1   a computation that needs more memory or disk than is available
    │   ├── NotEnoughMemoryError                    training that needs more memory than is available
    │   ├── InsufficientResourcesError              attention maps that need more memory or disk than is available
    │   └── TooLongForMemoryError                   a single window that does not fit into memory
    ├── NotFiniteError                      1   vectors or predictions that contain infinities or NaN
    └── VerificationError                   1   a result that is incomplete, or does not match its input or model
        └── UnusableResultError                     a result, or another file, that a command cannot use

Errors without a number have the exit status of their family. Each error stores what it knows, and its message is one
sentence: what was found, where, and what to do. The sentence names options as Python does, in backticks
(`on_illegal`); the command line shows them as flags.
"""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protembed.text import format_bytes, name_foreign_letters, pluralize


class ProtembedError(Exception):
    """The base of all errors that protembed raises on purpose; their text is one sentence for the user."""

    exit_status = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle: `__init__` takes other arguments than the sentence in `args`.
        return Exception.__new__, (type(self), *self.args), vars(self)


class ConfigError(ProtembedError):
    """An option that is out of range, or that contradicts another one.

    Args:
        option: Name of a config's field, or of the argument or environment variable.
        found: Value of the option; None if it is not given.
        expected: Clause that says what is expected instead.
    """

    exit_status = 2

    def __init__(self, option: str, found: object, expected: str) -> None:
        self.option, self.found, self.expected = option, found, expected
        value = "not given" if found is None else repr(found)
        super().__init__(f"{option} is {value}, but {expected}")


class InputError(ProtembedError):
    """An input that is missing, or is invalid.

    Args:
        path: File or directory, or the name of a model or sequence; None if no single one is at fault.
        found: Clause that says what was found.
        advice: Clause that says what to do.
        line: Line of the file, from 1; None if it is not about one.
    """

    exit_status = 65

    def __init__(self, path: str | Path | None, found: str, advice: str, *, line: int | None = None) -> None:
        super().__init__(path, found, advice)
        self.path, self.found, self.advice, self.line = path, found, advice, line

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        where = "" if self.path is None else f"{self.path}{line}: "
        return f"{where}{self.found}; {self.advice}"


class InputNotFoundError(InputError):
    """An input file or model that does not exist or cannot be read."""

    exit_status = 66


class NotFinetunedError(InputNotFoundError):
    """A model without a head to predict with."""

    def __init__(self, model: str) -> None:
        advice = "fine-tune one with `protembed finetune labels.csv`, and pass its directory with `model`"
        super().__init__(model, "this model has no head to predict with", advice)


class HubError(InputError):
    """A model that could not be downloaded from the Hugging Face hub."""

    exit_status = 1


class DataError(InputError):
    """An input that is invalid."""


class FormatError(DataError):
    """A file that is not FASTA, or is empty."""


class DamagedArchiveError(FormatError):
    """An archive that is truncated or damaged; the records read before the damage are never used as a data set."""

    path: str

    def __init__(self, path: str, reason: str, *, num_records: int | None = None) -> None:
        self.reason, self.num_records = reason, num_records
        before = "" if num_records is None else f", whole records before that: {num_records:,}"
        super().__init__(path, f"the archive is truncated or damaged ({reason}){before}", "download or create it again")


class RecordError(DataError):
    """A record that has no identifier or no sequence."""

    def __init__(self, path: str, line: int, record: int, found: str, advice: str) -> None:
        self.record = record
        super().__init__(path, f"record {record} {found}", advice, line=line)


class SkippableError(DataError):
    """A record, or a row of a table, that is invalid, and is left out where a policy such as `on_illegal` is `skip`."""

    path: str
    line: int
    reason: str


_GAP_ADVICE = "pass `gaps` drop (read proteins without their gaps) or `on_illegal` skip (leave the record out)"
_CHAIN_ADVICE = (
    "the record holds several chains: give each chain a separate record, or pass `on_illegal` skip (leave it out)"
)
_MASK_ADVICE = "only `protembed score` with `fill` reads it as a masked position; otherwise correct the file"
_ADVICE_BY_CHARACTER = {
    **dict.fromkeys("?<", _MASK_ADVICE),
    ">": "put every header on a separate line, with nothing before its '>'",
    "\0": "the file is binary or damaged: download or create it again",
    "-": f"this is an alignment: {_GAP_ADVICE}",
    ".": f"if this is an alignment, {_GAP_ADVICE}; if it is a stop codon, correct the translation",
    "*": (
        "this is a stop codon within a protein: correct the translation, or pass `on_illegal` mask (read it as X) or "
        "`on_illegal` skip (leave the record out)"
    ),
    **dict.fromkeys(
        string.digits, "if these are the positions that UniProt and GenBank display beside sequences, remove them"
    ),
    ":": _CHAIN_ADVICE,
    "/": _CHAIN_ADVICE,
    # In any other sequence letters are upper-cased before they are checked.
    **dict.fromkeys(
        string.ascii_lowercase,
        "upper and lower case alternate, as in SaProt's structure-aware sequences: remove the lower-case letters, "
        "which describe the structure",
    ),
}
_USUAL_ADVICE = "correct the file, or pass `on_illegal` mask (read it as X) or `on_illegal` skip (leave the record out)"


class IllegalResidueError(SkippableError):
    """A character in a sequence that is not an amino acid.

    Args:
        path: Name of the file.
        line: Line of the file, from 1.
        record_id: Identifier of the record.
        column: Column of the line, from 1.
        letter: The character.
        alignment: The format of alignments that the record's other letters speak for; empty if there is none.
    """

    def __init__(self, path: str, line: int, record_id: str, column: int, letter: str, *, alignment: str = "") -> None:
        self.record_id, self.column, self.letter = record_id, column, letter
        self.reason = f"{letter!r} in column {column} is no amino acid"
        shown = f"{letter!r}{name_foreign_letters(letter)}"
        found = f"{shown} in column {column} of record {record_id!r} is not an amino acid"
        advice = _ADVICE_BY_CHARACTER.get(letter, _USUAL_ADVICE)
        super().__init__(path, found, f"this is {alignment}: {_GAP_ADVICE}" if alignment else advice, line=line)


class NoProteinError(SkippableError):
    """A record that is not a protein (gaps alone, or a secondary structure of HHsuite), or has nothing to fill in."""

    def __init__(self, path: str, line: int, record_id: str, reason: str) -> None:
        self.record_id, self.reason = record_id, reason
        advice = "remove the record, or pass `on_illegal` skip (leave it out)"
        super().__init__(path, f"record {record_id!r} {reason}", advice, line=line)


class TooLongError(SkippableError):
    """A protein longer than the model's window, where `long_proteins` is `error`."""

    def __init__(self, path: str, line: int, record_id: str, num_residues: int, window_residues: int) -> None:
        self.record_id, self.num_residues, self.window_residues = record_id, num_residues, window_residues
        self.reason = f"{num_residues:,} residues are more than the window of {window_residues:,}"
        found = f"record {record_id!r} has {num_residues:,} residues, more than the window of {window_residues:,}"
        advice = "choose `long_proteins` window, truncate or skip, or a larger `window_residues`"
        super().__init__(path, found, advice, line=line)


class TooShortError(SkippableError):
    """A protein that ends before the residue at which `region` begins."""

    def __init__(self, path: str, line: int, record_id: str, num_residues: int, first: int) -> None:
        self.record_id, self.num_residues, self.first = record_id, num_residues, first
        self.reason = f"{num_residues:,} residues, and the region begins at residue {first:,}"
        found = f"{record_id!r} has {num_residues:,} residues, and `region` begins at residue {first:,}"
        advice = "remove it, choose another `region`, or pass `on_illegal` skip (leave it out)"
        super().__init__(path, found, advice, line=line)


class NoAminoAcidError(SkippableError):
    """A protein without a standard residue, which has no likelihood."""

    def __init__(self, path: str, line: int, record_id: str) -> None:
        self.record_id = record_id
        self.reason = "none of its residues is one of the 20 amino acids"
        advice = "remove the record, or pass `on_illegal` skip (leave it out)"
        super().__init__(path, f"record {record_id!r} has no likelihood: {self.reason}", advice, line=line)


class UnsupportedVariantError(SkippableError):
    """A variant that a model cannot score: a stop codon, a frameshift, or a letter that is not an amino acid."""

    def __init__(self, path: str, line: int, found: str) -> None:
        self.reason = found
        advice = (
            "only substitutions, insertions and deletions of the 20 amino acids are scored, such as A42G or "
            "K23_V25del: correct the row, or pass `on_illegal` skip (leave such rows out)"
        )
        super().__init__(path, found, advice, line=line)


class MissingCellError(SkippableError):
    """A row of a table whose sequence, label or split is missing."""

    def __init__(self, path: str, line: int, row_id: str, what: str, stand_in: str = "") -> None:
        self.row_id, self.what, self.stand_in = row_id, what, stand_in
        self.reason = f"no {what}" + (f" but {stand_in!r}" if stand_in else "")
        seems = f"has the {what} {stand_in!r}, which seems to stand for a missing one"
        found = f"row {row_id!r} {seems if stand_in else f'has no {what}'}"
        super().__init__(path, found, "complete or remove it, or pass `on_missing` skip (leave it out)", line=line)


class SequenceError(DataError):
    """A sequence given in Python that is not a protein; its name is its number, and its identifier if it has one."""


class ChangedInputError(DataError):
    """A file whose bytes changed between its first reading and the end of the computation."""

    def __init__(self, path: str) -> None:
        found = "it changed while it was read, so no result was written"
        super().__init__(path, found, "run the command again when the file is complete")


class TableError(DataError):
    """An invalid table, or an invalid row of one."""


class FaultyRowsError(TableError):
    """Several invalid rows of a table.

    Args:
        errors: Errors about the first of them.
        num_errors: Number of all.
    """

    def __init__(self, errors: Sequence[InputError], num_errors: int) -> None:
        self.errors, self.num_errors = sorted(errors, key=lambda error: error.line or 0), num_errors
        places = ("" if error.line is None else f"line {error.line}: " for error in self.errors)
        listed = "; ".join(f"{place}{error.found}" for place, error in zip(places, self.errors, strict=True))
        more = f"; and {num_errors - len(errors):,} more" if num_errors > len(errors) else ""
        advice = "; ".join(dict.fromkeys(error.advice for error in self.errors))
        super().__init__(errors[0].path, f"{num_errors:,} faults: {listed}{more}", advice)


class MismatchedResidueError(DataError):
    """A mutation whose wild-type residue or position does not fit the wild type."""

    def __init__(
        self, path: str, line: int, mutation: str, reason: str, advice: str = "correct the row, or give its wild type"
    ) -> None:
        super().__init__(path, f"{mutation} does not fit, because {reason}", advice, line=line)


class TooFewProteinsError(DataError):
    """Too few proteins to train on some and to validate on others."""

    def __init__(self, num_proteins: int) -> None:
        self.num_proteins = num_proteins
        found = f"{pluralize(num_proteins, 'protein')} cannot be split into training and validation proteins"
        super().__init__(None, found, "give more, or pass `valid` FASTA")


class EmptyValidationSetError(DataError):
    """Validation proteins none of whose residues can be masked."""

    def __init__(self, name: str) -> None:
        self.name = name
        found = f"no protein of the validation set {name!r} has a standard amino acid to mask"
        super().__init__(None, found, "give other proteins with `valid` FASTA")


class ModelFormatError(DataError):
    """A model directory whose files are missing or damaged, or describe an unsupported model."""

    def __init__(self, path: str | Path, found: str, advice: str = "fetch or make the model again") -> None:
        super().__init__(path, found, advice)


class StructureError(DataError):
    """A file that is neither PDB nor mmCIF, is damaged, or contains no protein."""


class NoStructureMatchError(DataError):
    """Structures that match none of the proteins, or none with long-range contacts."""

    def __init__(self, notes: Sequence[str] = ()) -> None:
        found = "none of the proteins matches a structure with long-range contacts; at least one is needed"
        advice = "give more structures, or proteins whose sequences they contain"
        super().__init__(None, "; ".join([found, *notes]), advice)


class OutputExistsError(ProtembedError):
    """A file or directory that exists where a result would be written."""

    def __init__(self, path: Path, difference: str, *, is_replaceable: bool = True) -> None:
        self.path, self.difference, self.is_replaceable = path, difference, is_replaceable
        force = ", or pass `force` to replace it" if is_replaceable else "; `force` does not replace it either"
        super().__init__(f"{path} exists and {difference}; choose another `output`{force}")


class OutputError(ProtembedError):
    """A result that cannot be written."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"cannot write {path} ({reason}); no partial file was left under that name")


class NoTemporaryDirectoryError(OutputError):
    """A machine without any directory for temporary files that can be written."""

    def __init__(self) -> None:
        ProtembedError.__init__(
            self,
            "temporary files cannot be written, because TMPDIR, /tmp, /var/tmp and the current directory are missing, "
            "read-only or full; set TMPDIR to a directory that can be written",
        )
        self.path, self.reason = "temporary files", "no directory can be written"


class RunError(ProtembedError):
    """A run that cannot be started, resumed or finished."""


class RunMismatchError(RunError):
    """A run directory that belongs to a command with other settings or other data."""

    def __init__(self, path: Path, changes: Sequence[str]) -> None:
        self.path, self.changes = path, tuple(changes)
        super().__init__(
            f"{path} was begun with other settings ({'; '.join(changes)}); "
            "run the first command again to resume it, choose another `output`, or pass `force` to start over"
        )


class RunInUseError(RunError):
    """A run or a result that another process is writing."""

    def __init__(self, path: Path, holder: str) -> None:
        self.path, self.holder = path, holder
        super().__init__(f"{path} is in use by {holder}; wait for it, or choose another `output`")


class DamagedRunError(RunError):
    """A run directory whose files are incomplete or damaged, so that the run cannot be resumed."""

    def __init__(self, path: Path, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path}: {found}; pass `force` to start over")


class PeerProcessError(RunError):
    """Another process of a distributed run that has ended too early."""

    def __init__(self) -> None:
        super().__init__("another process of this run has ended; see its error message")


class DivergedError(RunError):
    """Training whose loss or gradients are no longer finite."""

    def __init__(self, step: int, num_skipped: int) -> None:
        self.step, self.num_skipped = step, num_skipped
        found = f"the loss or its gradients were not finite in {num_skipped} steps in a row, up to step {step}"
        if not num_skipped:
            found = f"the validation loss is not finite after step {step}"
        super().__init__(f"{found}; the last checkpoint is intact: start over with a lower `learning_rate`")


class ResourceError(ProtembedError):
    """A computation that needs more memory or disk than is available."""


class NotEnoughMemoryError(ResourceError):
    """A model that does not fit into memory together with its gradients and the state of the optimiser."""

    def __init__(self, size: str, needed: int, available: int, advice: str) -> None:
        self.size, self.needed, self.available = size, needed, available
        sizes = f"at least {needed / 2**30:,.1f} GiB of memory, but {available / 2**30:,.1f} GiB are available"
        super().__init__(f"training {size} needs {sizes}; {advice}")


class InsufficientResourcesError(ResourceError):
    """Attention maps that need more memory or disk than is available."""

    def __init__(self, resource: str, needed: int, available: int, longest: str, advice: str) -> None:
        self.resource, self.needed, self.available = resource, needed, available
        found = f"about {format_bytes(needed)} of {resource}, most of it for {longest}"
        super().__init__(f"attention maps need {found}, but {format_bytes(available)} are available; {advice}")


class TooLongForMemoryError(ResourceError):
    """A window of a protein that does not fit into memory even alone."""

    def __init__(self, num_tokens: int, record_id: str | None = None) -> None:
        self.num_tokens, self.record_id = num_tokens, record_id
        prefix = "" if record_id is None else f"{record_id!r}: "
        found = f"{prefix}a single window of {num_tokens:,} tokens does not fit into memory"
        options = "a smaller `window_residues` (embed, score), `gradient_checkpointing` (finetune), a smaller model"
        super().__init__(f"{found}; use {options}, or a machine with more memory")


class NotFiniteError(ProtembedError):
    """Vectors, or other values computed for a protein, that contain infinities or NaN."""

    def __init__(self, record_id: str, precision: str, dtype: str, *, what: str = "vectors") -> None:
        self.record_id, self.precision, self.dtype, self.what = record_id, precision, dtype, what
        advice = "the model itself is at fault"
        if "float32" not in (precision, dtype) or precision == "float16":
            advice = "choose `precision` float32"
        elif dtype == "float16":
            advice = "choose `store_dtype` float32, because float16 ends at 65,504"
        verb = "are" if what.endswith("s") else "is"
        found = f"not finite in precision {precision}, stored as {dtype}"
        super().__init__(f"the {what} of {record_id!r} {verb} {found}; {advice}")


class VerificationError(ProtembedError):
    """A result that is incomplete, or does not match its input or model."""

    problem = "is not verified"

    def __init__(self, path: Path, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path} {self.problem}: {found}")


class UnusableResultError(VerificationError):
    """A result, or a file in place of one, that does not fit the command or the other results."""

    problem = "cannot be used"
