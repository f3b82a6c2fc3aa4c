"""Opening, decompressing and hashing what was given."""

import gzip
import hashlib
import io
import json
import lzma
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.archives import decompressed
from protembed.errors import DamagedArchiveError, DataError, InputNotFoundError

STANDARD_STREAM = Path("-")
# The name of the file in TMPDIR that keeps what came from stdin, so that it can be read a second time; other pipes have
# theirs in such brackets too.
SPOOLED_STDIN = "<stdin>"
_BLOCK = 1 << 20


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
        InputNotFoundError: the file is not there, is a directory, or cannot be read.
        DamagedArchiveError: the archive is truncated or damaged; raised while it is read.
    """
    try:
        with open_bytes(path) as source:
            stream = decompressed(source)
            with _damage_first(stream) if stream is not source else nullcontext():
                yield stream
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DamagedArchiveError(display_name(path), str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 reports a damaged stream as an OSError without a number.
        raise DamagedArchiveError(display_name(path), str(error)) from error


@contextmanager
def _damage_first(archive: BinaryIO) -> Iterator[None]:
    """Read an archive in which bad data were met to its end: whether it or they are at fault its checksum says."""
    try:
        yield
    except DataError:
        while archive.read(_BLOCK):
            pass
        raise


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or stdin for `-`, as it lies there.

    Args:
        path: the file; `-` is stdin, which stays open.

    Yields:
        Its bytes as a buffered stream.

    Raises:
        InputNotFoundError: the file is not there, is a directory, or cannot be read.
    """
    name = display_name(path)
    try:
        raw = cast("BinaryIO", sys.stdin.buffer) if path == STANDARD_STREAM else path.open("rb")
    except OSError as error:
        raise InputNotFoundError(name, error.strerror or str(error), "check the path") from error
    try:
        with io.BufferedReader(_Source(raw, name)) as source:
            yield cast("BinaryIO", source)
    finally:
        if path != STANDARD_STREAM:
            raw.close()


class _Source(io.RawIOBase):
    """The bytes of an input; a disk or network that fails beneath it is not taken for one that is written to."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            num_bytes: int = self._stream.readinto1(buffer)  # type: ignore[attr-defined]  # buffered readers only
            return num_bytes
        except OSError as error:
            raise InputNotFoundError(self._name, error.strerror or str(error), "check the path") from error


def passes_once(path: Path) -> bool:
    """Tell whether a path is stdin, another pipe or a device, which cannot be read a second time."""
    try:
        mode = path.stat().st_mode if path != STANDARD_STREAM else stat.S_IFIFO
    except OSError:
        return False  # whoever opens it will be told why that is not possible
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_utf8(path: Path) -> bool:
    """Tell whether a path can be spelled in UTF-8, as safetensors has it; Python takes any bytes."""
    return not any("\udc80" <= letter <= "\udcff" for letter in str(path.absolute()))


def default_path(source: Path, suffix: str) -> Path:
    """Name a result in the current folder after an input, without the input's suffixes.

    >>> default_path(Path("data/seqs.fasta.gz"), ".npy").name
    'seqs.npy'
    """
    return Path(("stdin" if passes_once(source) else source.name.partition(".")[0] or source.name) + suffix)


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
