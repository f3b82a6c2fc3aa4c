"""Opening, decompressing and hashing what was given."""

import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.archives import decompressed
from protembed.errors import (
    ChangedInputError,
    DamagedArchiveError,
    DataError,
    InputNotFoundError,
    NotVerifiedError,
)

STANDARD_STREAM = Path("-")
# The name of the file in TMPDIR that keeps what came from stdin, so that it can be read a second time; other pipes have
# theirs in such brackets too.
SPOOLED_STDIN = "<stdin>"
_BLOCK, _BUFFER = 1 << 20, 1 << 17
# Of each file that a command has read to its end the hash, and its size and times when that reading began.
_State = tuple[int, int, int]
_Readings = dict[Path, tuple[str, _State]]
_READINGS: ContextVar[_Readings | None] = ContextVar("_READINGS", default=None)


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
        with io.BufferedReader(_Source(raw, name, _begin_reading(path, raw)), _BUFFER) as source:
            yield cast("BinaryIO", source)
    finally:
        if path != STANDARD_STREAM:
            raw.close()


class _Source(io.RawIOBase):
    """The bytes of an input; a disk or network that fails beneath it is not taken for one that is written to."""

    def __init__(self, stream: BinaryIO, name: str, reading: "_Reading | None") -> None:
        self._stream, self._name, self._reading = stream, name, reading

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            num_bytes: int = self._stream.readinto1(buffer)  # type: ignore[attr-defined]  # buffered readers only
        except OSError as error:
            raise InputNotFoundError(self._name, error.strerror or str(error), "check the path") from error
        if self._reading is not None:
            self._reading.add(memoryview(buffer)[:num_bytes])
        return num_bytes


# Inputs that change


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Hash every file that is read within the block as its bytes pass by; all readings of a file must agree.

    Raises:
        ChangedInputError: a file's bytes are not those of an earlier reading; or something was found wrong with an
            input or a result, and meanwhile the input is another.
    """
    token = _READINGS.set({})
    try:
        yield
    except (DataError, NotVerifiedError):
        check_inputs()
        raise
    finally:
        _READINGS.reset(token)


def check_inputs() -> None:
    """Make sure that the files read so far, in a block of `unchanged_inputs`, still hold the bytes that were read.

    While a file is not touched this costs a look at its size and times; then it is read again, and may go on if
    it holds the same bytes. One that was removed was read whole, and may go on too.

    Raises:
        ChangedInputError: a file holds other bytes.
    """
    for path, (_, state) in list((_READINGS.get() or {}).items()):
        try:
            is_touched = _state_of(path.stat()) != state
        except FileNotFoundError:
            continue
        if is_touched:
            sha256_of_inputs([path])


def _state_of(status: os.stat_result) -> _State:
    # Without the file's number, which some network file systems make up for each call.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _begin_reading(path: Path, raw: BinaryIO) -> "_Reading | None":
    """Watch the reading of a regular file, inside the block; None for pipes, which are not read twice."""
    readings = _READINGS.get()
    if readings is None:
        return None
    try:
        status = os.fstat(raw.fileno())
    except OSError:
        return None  # stdin that is no file
    return _Reading(path, raw, readings, _state_of(status)) if stat.S_ISREG(status.st_mode) else None


class _Reading:
    """One reading of a file from its first byte; its hash counts when the end is reached."""

    def __init__(self, path: Path, raw: BinaryIO, readings: _Readings, state: _State) -> None:
        self._path, self._raw, self._readings, self._state = path, raw, readings, state
        self._digest, self._num_bytes = hashlib.sha256(), 0

    def add(self, data: memoryview) -> None:
        """Hash some bytes; at the end, where there are none, compare all of them with those of earlier readings."""
        if data:
            self._digest.update(data)
            self._num_bytes += len(data)
        elif self._path == STANDARD_STREAM:  # redirected from a file: read once, from wherever it stood
            if _state_of(os.fstat(self._raw.fileno())) != self._state:
                raise ChangedInputError(display_name(self._path))
        else:
            sha256 = self._digest.hexdigest()
            size = self._state[0] or self._num_bytes  # 0 where a file system does not know it beforehand
            if self._readings.get(self._path, (sha256,))[0] != sha256 or self._num_bytes != size:
                raise ChangedInputError(display_name(self._path))
            self._readings[self._path] = (sha256, self._state)


# Names and hashes


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
    """Hash several inputs as one, each by its bytes on disk; None when one of them is a pipe and passes only once."""
    digest = hashlib.sha256()
    for path in paths:
        if passes_once(path):
            return None
        with open_bytes(path) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]  # buffered
    return digest.hexdigest()
