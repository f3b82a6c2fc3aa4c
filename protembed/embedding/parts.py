"""Results that are read as one: all shards of a run, or results of several inputs."""

import os
from collections.abc import Collection, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from protembed.embedding.metadata import COUNTS
from protembed.embedding.selection import Shard
from protembed.embedding.stored_result import StoredResult
from protembed.errors import InputNotFoundError, UnusableResultError
from protembed.io.fingerprint import differences
from protembed.io.reading import Paths, as_paths

# What may differ between results that are read as one: their inputs, how they are stored, and the name by which the
# same weights were given.
_INPUT = (*COUNTS, "shard", "input_sha256", "sha256", "ids_sha256")
_OWN_SETTINGS = (*_INPUT, "format", "h5_names", "model_name", "model_revision")
_MAX_LISTED = 10


def find_parts(files: Paths) -> list[StoredResult]:
    """Read the meta files of results that are named by their paths or by patterns, in the order given.

    Raises:
        InputNotFoundError: There is no such file.
        UnusableResultError: A meta file is missing or invalid.
    """
    return [StoredResult.read(path) for given in as_paths("files", files) for path in _matching(given)]


def _matching(path: Path) -> list[Path]:
    """List the files that a pattern matches; a path that exists matches itself alone."""
    if os.path.exists(path) or not has_magic(str(path)):
        return [path]
    paths = sorted(map(Path, glob(str(path))))
    if not paths:
        raise InputNotFoundError(str(path), "no file matches this pattern", "check it")
    return paths


def in_order(parts: Sequence[StoredResult]) -> list[StoredResult]:
    """Order the shards of a run by their numbers; leave results of several inputs in the order given.

    Raises:
        UnusableResultError: A shard is missing, repeated or of another run, or a whole result is among the shards.
    """
    first, total = next(((part, part.shard.total) for part in parts if part.shard), (parts[0], 0))
    if not total:
        return list(parts)
    by_number = dict[int, StoredResult]()
    for part in parts:
        number = _number_in_run(part, first, total)
        if number in by_number:
            raise UnusableResultError(part.path, f"it is shard {part.shard}, and so is {by_number[number].path}")
        by_number[number] = part
    missing = [str(Shard(number, total)) for number in range(1, total + 1) if number not in by_number]
    if missing:
        more = f" and {len(missing) - _MAX_LISTED:,} more" if len(missing) > _MAX_LISTED else ""
        listed = ", ".join(missing[:_MAX_LISTED]) + more
        found = f"it is shard {first.shard}, and of the other shards these are missing: {listed}"
        raise UnusableResultError(first.path, found)
    return [by_number[number] for number in sorted(by_number)]


def _number_in_run(part: StoredResult, first: StoredResult, total: int) -> int:
    """Return which shard of a run a part is; the first of its shards shows which run it is."""
    if part.shard is None:
        found = f"it is a whole result, but {first.path} is shard {first.shard}: join the shards of each run first"
        raise UnusableResultError(part.path, found)
    if part.shard.total != total or part.meta.get("input_sha256") != first.meta.get("input_sha256"):
        what = "number of shards" if part.shard.total != total else "input"
        found = f"it is shard {part.shard} of another run than {first.path}, which has another {what}"
        raise UnusableResultError(part.path, found)
    return part.shard.number


def check_same_settings(parts: Sequence[StoredResult], names: Collection[str] | None = None) -> None:
    """Check that results were made in the same way.

    Args:
        parts: The results.
        names: Settings that are compared; None for all that affect the vectors, and which records are left out.

    Raises:
        UnusableResultError: A result has other settings than the first.
    """

    def settings(part: StoredResult) -> dict[str, Any]:
        shared = part.meta.keys() - set(_OWN_SETTINGS) if names is None else names
        return {name: value for name, value in part.meta.items() if name in shared}

    for part in parts[1:]:
        if different := differences(settings(parts[0]), settings(part)):
            raise UnusableResultError(part.path, f"it cannot follow {parts[0].path}, because {'; '.join(different)}")
