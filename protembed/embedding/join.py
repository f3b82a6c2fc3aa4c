"""Joining: from the shards of a run, or results of several inputs, to one result, without its model or input."""

import hashlib
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from protembed.callbacks import Callbacks
from protembed.config.embed import FormatName, H5Names, JoinConfig, JoinOptions
from protembed.data.protein_rows import ProteinRows, RowGroup
from protembed.embedding.formats import choose_format, convert
from protembed.embedding.metadata import (
    COMPANIONS,
    COUNTS,
    FAILED,
    FAILED_HEADER,
    IDS,
    IDS_HEADER,
    check_report,
    is_meta,
    read_ids_lines,
)
from protembed.embedding.parts import check_same_settings, find_parts, in_order
from protembed.embedding.stored_result import StoredResult
from protembed.errors import UnusableResultError, VerificationError
from protembed.io.arrays import array_file
from protembed.io.reading import Paths, sha256_of_file
from protembed.io.result import META, Claim, Result
from protembed.io.writing import atomic_file
from protembed.text import format_row, pluralize, reason_of, unescape

# In the directory of an unfinished result, for formats that are made from an array of rows.
_GROUPS, _ROWS = "members.jsonl", "rows.npy"
# The end of the name that `embed` gives to a shard, before the suffix.
_SHARD_NAME = re.compile(r"(.+)\.\d+-of-\d+")


@dataclass(frozen=True, kw_only=True)
class JoinSummary:
    """What was joined.

    Attributes:
        output: Path of the result; None for stdout.
        parts: Paths of the results that were joined, in their order.
        is_sharded: Whether they are the shards of one run.
        num_windowed: Proteins that were computed in several windows.
        num_refused: Records that were left out on request.
        report: Path of the page about the result; None if it was not requested.
        findings: What the page says that one should look at, each as a clause.
        was_done: Whether the result was already complete.
        warnings: Messages about the results.
    """

    output: Path | None
    parts: Sequence[Path]
    is_sharded: bool
    num_proteins: int
    num_residues: int
    num_windowed: int
    num_refused: int
    dim: int
    report: Path | None = None
    findings: Sequence[str] = ()
    was_done: bool = False
    warnings: Sequence[str] = ()


def join_embeddings(
    files: Paths, options: JoinOptions | None = None, callbacks: Callbacks | None = None
) -> JoinSummary:
    """Join the shards of a run, or results of several inputs that were made with the same settings, into one result.

    All shards of a run give the same files as the run without shards, byte for byte.

    Args:
        files: Paths of the results: all shards of a run in any order, or results of several inputs in the order of
            their rows. Patterns such as `emb.*-of-8.npy` are allowed.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the residues of all proteins, and those of each protein that was joined.

    Raises:
        InputNotFoundError: There is no such file.
        VerificationError: A result is unfinished or damaged, a shard is missing or repeated, or a result has other
            settings than the first.
        ProtembedError: The output is invalid or cannot be written.
    """
    options, callbacks = options or JoinOptions(), callbacks or Callbacks()
    parts = in_order(find_parts(files))
    check_same_settings(parts)
    _check_distinct(parts)
    format_name, result = _plan_result(parts, options.join)
    fingerprint = _fingerprint(parts, format_name)
    with result.claim(fingerprint, callbacks) as claim:
        summary = _summary(parts, result)
        if claim.recorded is not None:
            summary = replace(summary, was_done=True)
        else:
            summary = replace(summary, warnings=_join(parts, claim, fingerprint, callbacks))
        return _with_report(summary, options) if options.join.report else summary


def _join(
    parts: Sequence[StoredResult], claim: Claim, fingerprint: Mapping[str, Any], callbacks: Callbacks
) -> list[str]:
    """Verify the parts, and write and publish the result; return warnings about it."""
    for part in parts:
        part.verify()
    callbacks.on_start(sum(part.meta["num_residues"] for part in parts))
    num_duplicate_ids = _write(parts, claim, fingerprint, callbacks)
    if not num_duplicate_ids:
        return []
    proteins = pluralize(num_duplicate_ids, "protein")
    return [f"{proteins} with an identifier used before; rows are identified by number"]


def _with_report(summary: JoinSummary, options: JoinOptions) -> JoinSummary:
    """Write the page about a finished result."""
    from protembed.embedding.report import write_report

    assert summary.output is not None, "a page is written beside a file"
    report = write_report(summary.output, options, summary.parts)
    return replace(summary, report=report.path, findings=report.findings)


# What is joined


def _check_distinct(parts: Sequence[StoredResult]) -> None:
    """Check that no two whole results have the same input."""
    of_input = dict[Any, StoredResult]()
    for part in parts:
        sha256 = part.meta.get("input_sha256")
        if part.shard is None and sha256 is not None and sha256 in of_input:
            raise UnusableResultError(part.path, f"it is a result of the same input as {of_input[sha256].path}")
        of_input[sha256] = part


def _plan_result(parts: Sequence[StoredResult], config: JoinConfig) -> tuple[FormatName, Result]:
    """Choose the format and the path of the result, and check that it may be written there."""
    first = parts[0]
    match = _SHARD_NAME.fullmatch(first.path.stem)
    default = Path(f"{match[1] if match else 'joined'}.{config.format or first.meta['format']}")
    output = config.output or default
    format_name = choose_format(output, config.format, per_residue=first.meta["per_residue"])
    if config.report:
        check_report(output)
    inputs = [file for part in parts for file in (part.path, *map(part.companion, (IDS, FAILED, META)))]
    return format_name, Result(output, inputs, force=config.force, companions=COMPANIONS, is_record=is_meta)


def _fingerprint(parts: Sequence[StoredResult], format_name: FormatName) -> dict[str, Any]:
    """Collect the settings of the result: those of the first part, in their order, with another shard and format.

    They are the settings of the command that would make the result without shards.
    """
    first, inputs = parts[0].meta, [part.meta.get("input_sha256") or part.meta["ids_sha256"] for part in parts]
    own: dict[str, Any] = {"shard": None, "format": format_name}
    if "options" in first:
        given = first["options"]
        own["options"] = given | {"shard": None, "format": given["format"] if format_name == first["format"] else None}
    if first["shard"] is None and len(parts) > 1:
        own["input_sha256"] = hashlib.sha256("".join(inputs).encode()).hexdigest()
    fingerprint = dict[str, Any]()
    for name, value in first.items():
        if name not in (*COUNTS, "h5_names", "ids_sha256", "sha256"):
            fingerprint[name] = own.get(name, value)
        if name == "format" and format_name == "h5":
            fingerprint["h5_names"] = _h5_names(parts)
    return fingerprint


def _h5_names(parts: Sequence[StoredResult]) -> H5Names:
    """Choose how datasets are named: by hashes only if those of all parts are, because other files have no hashes."""
    names = {part.meta.get("h5_names", "hash") if part.meta["format"] == "h5" else "id" for part in parts}
    return "hash" if names == {"hash"} else "id"


def _summary(parts: Sequence[StoredResult], result: Result) -> JoinSummary:
    return JoinSummary(
        output=result.output,
        parts=[part.path for part in parts],
        is_sharded=parts[0].shard is not None,
        **_counts(parts),
        dim=parts[0].meta["dim"],
    )


def _counts(parts: Sequence[StoredResult]) -> dict[str, Any]:
    return {name: sum(part.meta[name] for part in parts) for name in COUNTS}


# Writing


def _write(parts: Sequence[StoredResult], claim: Claim, fingerprint: Mapping[str, Any], callbacks: Callbacks) -> int:
    """Write the result and the tables beside it, and publish them; return how many identifiers were used before."""
    rows = claim.path if fingerprint["format"] == "npy" else claim.directory / _ROWS
    _write_rows(parts, rows, fingerprint)
    ids, groups = claim.companion(IDS), claim.directory / _GROUPS
    with atomic_file(ids) as table, atomic_file(groups) as stream:
        num_duplicate_ids = _write_ids(parts, table, stream, callbacks)
    convert(ProteinRows(rows, groups, per_residue=fingerprint["per_residue"]), claim.path, fingerprint)
    counts = _counts(parts)
    if counts["num_refused"]:
        _write_failed(parts, claim.companion(FAILED))
    claim.publish({**fingerprint, **counts, "ids_sha256": sha256_of_file(ids)})
    return num_duplicate_ids


def _write_rows(parts: Sequence[StoredResult], target: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write the vectors of all parts into one array, (rows, dim), block by block."""
    with array_file(target, (fingerprint["dim"],), fingerprint["dtype"]) as rows:
        for part in parts:
            expected = part.meta["num_residues" if fingerprint["per_residue"] else "num_proteins"]
            num_before = rows.num_rows
            try:
                for block in part.vectors.blocks():
                    rows.append(block)
            except (ValueError, KeyError) as error:
                raise VerificationError(part.path, f"it cannot be read ({reason_of(error)})") from error
            if rows.num_rows - num_before != expected:
                found = f"it contains {rows.num_rows - num_before:,} vectors, but its meta file records {expected:,}"
                raise VerificationError(part.path, found)


def _write_ids(parts: Sequence[StoredResult], table: BinaryIO, groups: BinaryIO, callbacks: Callbacks) -> int:
    """Write the table of identifiers and the file with the rows of each protein; count identifiers used before."""
    fingerprints = array("q")  # hashes in eight bytes each, as when FASTA is read
    table.write(format_row(IDS_HEADER))
    for row, (line, group) in enumerate(chain.from_iterable(map(_proteins, parts)), start=1):
        table.write(f"{row}\t{line}\n".encode())
        groups.write(group.line())
        fingerprints.append(hash(group.record_id))
        callbacks.on_progress(int(line.split("\t", 2)[1]))
    hashes = np.frombuffer(fingerprints, np.int64)
    hashes.sort()  # in place: np.unique would copy them
    return int((hashes[1:] == hashes[:-1]).sum())


def _proteins(part: StoredResult) -> Iterator[tuple[str, RowGroup]]:
    """Read the line of each protein in the table of identifiers, without its row, and which rows are its own."""
    for line, stored in zip(read_ids_lines(part.path), part.vectors.names(), strict=False):
        line = line.partition("\t")[2]
        record_id, num_residues, *others = line.split("\t")
        yield (
            line,
            RowGroup(
                unescape(record_id) if stored.record_id is None else stored.record_id,
                int(num_residues) if part.meta["per_residue"] else 1,
                stored.hash_name or others[IDS_HEADER.index("sha256") - 3],
            ),
        )


def _write_failed(parts: Sequence[StoredResult], target: Path) -> None:
    """Write the list of records that were left out."""
    with atomic_file(target) as table:
        table.write(format_row(FAILED_HEADER))
        for part in parts:
            lines = _failed_lines(part)
            if len(lines) != part.meta["num_refused"]:
                name, found = part.companion(FAILED).name, pluralize(part.meta["num_refused"], "record")
                raise VerificationError(part.path, f"{found} were left out, but {name} lists {len(lines):,}")
            table.writelines(lines)


def _failed_lines(part: StoredResult) -> list[bytes]:
    if not part.meta["num_refused"]:
        return []
    try:
        return part.companion(FAILED).read_bytes().splitlines(keepends=True)[1:]
    except FileNotFoundError:
        return []
