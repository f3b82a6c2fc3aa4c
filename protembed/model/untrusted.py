"""Files of a model directory, which may be untrusted: each is checked before it is opened."""

import hashlib
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from protembed.errors import ModelFormatError
from protembed.io.reading import read_json, sha256_of_file
from protembed.text import reason_of

_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
# The index of ESM-2's largest model and the names of all terms of the Gene Ontology take less than a megabyte each.
# Parsing JSON that consists of brackets takes thirty times its size in memory.
_MAX_JSON_BYTES = 4 << 20


def check_regular_file(path: Path) -> Path:
    """Check that a file of a model directory, if it exists, is a regular file and lies in that directory.

    A link out of the directory would make protembed read files that the author of the model may not read. The cache of
    the Hugging Face hub consists of links, from `snapshots/<commit>/` to `blobs/`; these are followed, and the content
    of the blob is compared with its name, which is its hash.

    Returns:
        The path.

    Raises:
        ModelFormatError: The path is a link out of the directory, a folder, pipe or device, or a damaged blob.
    """
    try:
        mode, target = path.stat().st_mode, path.resolve()
    except OSError:  # opening it will give the error
        return path
    in_cache = _is_blob(path, target)
    if target.parent != path.parent.resolve() and not in_cache:
        raise ModelFormatError(path, "this link leads out of the model's directory", _advise_about_link(path, target))
    if not stat.S_ISREG(mode):
        raise ModelFormatError(path, "this is not a regular file")
    if in_cache and not _is_whole_blob(target):
        found = "the hub's cache holds a damaged copy of this file: its content does not match its name, a hash"
        raise ModelFormatError(path, found, f"delete {target} and fetch the model again")
    return path


def _advise_about_link(path: Path, target: Path) -> str:
    """Say which directory to give instead of one that a file is linked into."""
    rule, cached = "a model is read from its directory alone", target.parent.parent / "snapshots"
    for link in sorted(cached.glob(f"*/{path.name}")) if target.parent.name == "blobs" else []:
        if link.resolve() == target:
            return f"{rule}: name the folder in the hub's cache, {link.parent}"
    if (target.parent / "config.json").exists():
        return f"{rule}: name the folder {target.parent}"
    return f"{rule}: copy it with what its links lead to (`cp -rL {path.parent} FOLDER`), and name the copy"


def sha256_of_model_file(path: Path) -> str:
    """Hash a file of a model directory, hexadecimal; for a file in the hub's cache, return the hash that is its name.

    Raises:
        ModelFormatError: The path is a link out of the directory, a folder, pipe or device, or a damaged blob.
    """
    target = check_regular_file(path).resolve()
    return target.name if _is_blob(path, target) and _SHA256.fullmatch(target.name) else sha256_of_file(path)


def model_sha256(directory: Path) -> str:
    """Hash the weight files of a model directory; models with equal hashes are the same."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256_of_model_file(file)))
    return digest.hexdigest()


def lies_in_cache(directory: Path) -> bool:
    """Check whether a directory is a snapshot in the hub's cache."""
    return directory.resolve().parent.name == "snapshots"


def _is_blob(path: Path, target: Path) -> bool:
    """Check whether a file is a link of the hub's cache to one of its blobs."""
    directory = path.parent.resolve()
    return lies_in_cache(directory) and target.parent == directory.parents[1] / "blobs"


def _is_whole_blob(blob: Path) -> bool:
    status = blob.stat()
    return _has_hash_of_its_name(blob, status.st_size, status.st_mtime_ns)


# One command opens files of gigabytes several times; they are hashed once unless they change.
@lru_cache(maxsize=1024)
def _has_hash_of_its_name(blob: Path, num_bytes: int, changed: int) -> bool:
    """Compare a blob with its name: the SHA-256 of a large file, or the hash that git gives a small one."""
    if _SHA256.fullmatch(blob.name):
        return sha256_of_file(blob) == blob.name
    if _SHA1.fullmatch(blob.name):
        content = blob.read_bytes()
        of_git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        # Proxies such as Artifactory use the plain SHA-1.
        return blob.name in (of_git.hexdigest(), hashlib.sha1(content, usedforsecurity=False).hexdigest())
    return True


def read_model_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model directory.

    Raises:
        ModelFormatError: The file is missing, outside the directory, far too large, no JSON, or no object.
    """
    try:
        num_bytes = check_regular_file(path).stat().st_size
        if num_bytes > _MAX_JSON_BYTES:
            raise ModelFormatError(path, f"it has {num_bytes:,} bytes, which no description of a model needs")
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelFormatError(path, f"this is not readable JSON ({reason_of(error)})") from error
    if not isinstance(content, dict):
        raise ModelFormatError(path, "this JSON is not an object")
    return content
