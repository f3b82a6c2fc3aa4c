"""Opening, decompressing and hashing what was given."""

import gzip
import hashlib
import json
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.archives import decompressed
from protembed.errors import FormatError, InputNotFoundError

STANDARD_STREAM = Path("-")
# The name of the file in TMPDIR that keeps what came from stdin, so that it can be read a second time; other pipes have
# theirs in such brackets too.
SPOOLED_STDIN = "<stdin>"


def display_name(path: Path) -> str:
    """Name a path in a message: `<stdin>` for `-` and for its copy, without the copy's folder."""
    if path == STANDARD_STREAM:
        return SPOOLED_STDIN
    return path.name if path.name.startswith("<") and path.name.endswith(">") else str(path)


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or stdin for `-`, and decompress gzip, bzip2 or xz as its first bytes say, whatever its name.

    Args:
        path: the file; `-` is stdin.

    Yields:
        The decompressed bytes as a buffered stream.

    Raises:
        InputNotFoundError: the file is not there, is a directory, or may not be read.
        FormatError: the archive is truncated or damaged; raised while it is read.
    """
    name = display_name(path)
    try:
        raw = cast("BinaryIO", sys.stdin.buffer) if path == STANDARD_STREAM else path.open("rb")
    except OSError as error:
        raise InputNotFoundError(name, error.strerror or str(error), "check the path") from error
    try:
        stream = decompressed(raw)
        yield stream
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise FormatError(name, f"the archive is truncated or damaged ({error})", "fetch or make it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 reports a damaged stream as an OSError without a number.
        raise FormatError(name, f"the archive is damaged ({error})", "fetch or make it again") from error
    finally:
        if path != STANDARD_STREAM:
            raw.close()


def default_path(source: Path, suffix: str) -> Path:
    """Name a result in the current folder after an input, without the input's suffixes.

    >>> default_path(Path("data/seqs.fasta.gz"), ".npy").name
    'seqs.npy'
    """
    has_no_name = source == STANDARD_STREAM or source.is_fifo()
    return Path(("stdin" if has_no_name else source.name.partition(".")[0] or source.name) + suffix)


def read_json(path: Path) -> Any:
    """Read a JSON file; OSError and ValueError pass through, for the caller knows what the file means."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes as they lie on disk; hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_inputs(paths: Iterable[Path]) -> str | None:
    """Hash several inputs as one, each by its bytes on disk; None when one of them is stdin and passes only once."""
    digest = hashlib.sha256()
    for path in paths:
        if path == STANDARD_STREAM:
            return None
        try:
            digest.update(bytes.fromhex(sha256_of_file(path)))
        except OSError as error:
            raise InputNotFoundError(str(path), error.strerror or str(error), "check the path") from error
    return digest.hexdigest()
