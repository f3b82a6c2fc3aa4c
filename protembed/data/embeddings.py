"""What a finished result is: the file of vectors, and the files beside it that say what it is.

Beside `emb.npy` stand `emb.ids.tsv` with a line per row, `emb.failed.tsv` where records were left out on request, and
last `emb.meta.json` with what made it: a result without its meta file is not finished.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protembed.data.fasta import Record
from protembed.data.splits import sequence_sha256
from protembed.errors import OutputExistsError
from protembed.files import move_into_place, remove
from protembed.inputs import STANDARD_STREAM, read_json, sha256_of_file

IDS_HEADER = "row id residues windows overlap_cosine unknown_residues sha256 description".split()
META, IDS, FAILED = ".meta.json", ".ids.tsv", ".failed.tsv"


def companion(output: Path, suffix: str) -> Path:
    """Name a file beside a result: `emb.ids.tsv` beside `emb.npy`, but `emb.h5.ids.tsv` beside `emb.h5`.

    Of one input there may be vectors per protein and per residue, and each keeps its own.
    """
    stem = output.with_suffix("") if output.suffix == ".npy" else output
    return stem.with_name(stem.name + suffix)


def read_meta(output: Path) -> dict[str, Any] | None:
    """Read what a finished result says of itself; None where nothing readable stands beside it."""
    try:
        recorded = read_json(companion(output, META))
    except (OSError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) else None


def finished_result(output: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Look for a finished result of the very same command.

    Args:
        output: the result's file.
        fingerprint: what the command would record of itself.

    Returns:
        What its meta file says; None where nothing stands.

    Raises:
        OutputExistsError: another result stands there, or one that is not finished.
    """
    if not output.exists():
        return None
    recorded = read_meta(output)
    if recorded is None:
        raise OutputExistsError(output, "has no meta file beside it that says what it is")
    different = [name for name, value in fingerprint.items() if recorded.get(name) != value]
    if different:
        raise OutputExistsError(output, f"was made with another {', '.join(different)}")
    for path, name in ((output, "sha256"), (companion(output, IDS), "ids_sha256")):
        if not path.exists() or recorded.get(name) != sha256_of_file(path):
            raise OutputExistsError(output, f"{path.name} is missing or does not match the meta file beside it")
    return recorded


def refuse_what_is_no_file(output: Path) -> None:
    """Refuse to write a result where a directory, a device or a pipe stands.

    Raises:
        OutputExistsError: one does.
    """
    if output != STANDARD_STREAM and output.exists() and not output.is_file():
        raise OutputExistsError(output, "is no file", is_ours=False)


def ids_line(row: int, record: Record, num_windows: int, overlap_cosine: float | None) -> tuple[object, ...]:
    """Describe a row of a result, in the order of `IDS_HEADER`."""
    return (
        row,
        record.id,
        len(record.sequence),
        num_windows,
        "" if overlap_cosine is None else f"{overlap_cosine:.4f}",
        record.sequence.count("X"),
        sequence_sha256(record.sequence).hex(),
        record.description,
    )


def publish(partial: Path, output: Path) -> None:
    """Rename the finished files into place; whoever is killed on the way is followed by one that goes on."""
    meta, ids, failed = companion(output, META), companion(output, IDS), companion(output, FAILED)
    if (partial / ids.name).exists():  # nothing is renamed yet: a list of failed records is an older result's
        remove(meta)  # an older result is intact until here, and from here on no result
        if not (partial / failed.name).exists():
            remove(failed)
    for target in (ids, failed, output, meta):
        if (partial / target.name).exists():
            move_into_place(partial / target.name, target)
    remove(partial)
