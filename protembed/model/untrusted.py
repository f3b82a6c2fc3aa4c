"""The files of a model directory, which may come from a stranger: each is looked at before it is opened."""

import hashlib
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from protembed.errors import ModelFormatError
from protembed.io.reading import read_json, sha256_of_file

_RELOAD_ADVICE = "fetch or make the model again"
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
# The index of ESM-2's largest model, or the names of all terms of the Gene Ontology, take less than a megabyte; JSON of
# brackets alone takes thirty times its size in memory.
_MOST_JSON_BYTES = 4 << 20


def check_regular_file(path: Path) -> Path:
    """Make sure that a file of a model directory, if it is there, is a plain file and lies in that directory.

    A link that leads out would have protembed read what its owner may not. The cache of the Hugging Face hub is made of
    links, from `snapshots/<commit>/` to `blobs/`; those are followed, and what they lead to is compared with its name,
    which is its hash.

    Raises:
        ModelFormatError: it is a link to elsewhere, a folder, pipe or device, or a damaged copy of the hub's file.
    """
    try:
        mode, target = path.stat().st_mode, path.resolve()
    except OSError:  # whoever opens it will say so
        return path
    in_cache = _is_blob(path, target)
    if target.parent != path.parent.resolve() and not in_cache:
        advice = f"a model is read from its own directory alone: name the folder {target.parent}, or copy the file"
        raise ModelFormatError(path, "this link leads out of the model's directory", advice)
    if not stat.S_ISREG(mode):
        raise ModelFormatError(path, "this is no plain file", _RELOAD_ADVICE)
    if in_cache and not _is_whole_blob(target):
        found = "the hub's cache holds a damaged copy of this file: its content does not have the hash that is its name"
        raise ModelFormatError(path, found, f"delete {target} and fetch the model again")
    return path


def sha256_of_own_file(path: Path) -> str:
    """Hash a file of a model directory; hexadecimal. One of the hub's cache is not read a second time for it.

    Raises:
        ModelFormatError: as for `check_regular_file`.
    """
    target = check_regular_file(path).resolve()
    return target.name if _is_blob(path, target) and _SHA256.fullmatch(target.name) else sha256_of_file(path)


def lies_in_cache(directory: Path) -> bool:
    """Tell whether a directory is a snapshot in the hub's cache."""
    return directory.resolve().parent.name == "snapshots"


def _is_blob(path: Path, target: Path) -> bool:
    """Tell whether a file, which leads to a target, is one of the hub's cache."""
    directory = path.parent.resolve()
    return lies_in_cache(directory) and target.parent == directory.parents[1] / "blobs"


def _is_whole_blob(blob: Path) -> bool:
    status = blob.stat()
    return _has_hash_of_its_name(blob, status.st_size, status.st_mtime_ns)


# Files of gigabytes are opened several times by one command, and hashed once while they are not changed.
@lru_cache(maxsize=1024)
def _has_hash_of_its_name(blob: Path, num_bytes: int, changed: int) -> bool:
    """Compare a blob with its name: the SHA-256 of large files, of small ones the hash that git gives them."""
    if _SHA256.fullmatch(blob.name):
        return sha256_of_file(blob) == blob.name
    if _SHA1.fullmatch(blob.name):
        content = blob.read_bytes()
        of_git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        # Servers that stand between, such as Artifactory, have the plain one.
        return blob.name in (of_git.hexdigest(), hashlib.sha1(content, usedforsecurity=False).hexdigest())
    return True


def read_model_json(path: Path) -> dict[str, Any]:
    """Read one of a model directory's JSON files.

    Raises:
        ModelFormatError: it is not there, not the directory's own, far too large, no JSON, or no object.
    """
    try:
        num_bytes = check_regular_file(path).stat().st_size
        if num_bytes > _MOST_JSON_BYTES:
            raise ModelFormatError(
                path, f"it has {num_bytes:,} bytes, which no description of a model needs", _RELOAD_ADVICE
            )
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelFormatError(path, f"this is no readable JSON ({error})", _RELOAD_ADVICE) from error
    if not isinstance(content, dict):
        raise ModelFormatError(path, "this JSON is no object", _RELOAD_ADVICE)
    return content
