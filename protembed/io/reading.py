"""Reading inputs: their paths, archives, streams and hashes."""

import errno
import hashlib
import io
import json
import lzma
import os
import re
import stat
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from difflib import get_close_matches
from glob import has_magic
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.errors import (
    ChangedInputError,
    ConfigError,
    DamagedArchiveError,
    DataError,
    InputNotFoundError,
    VerificationError,
)
from protembed.io.archives import decompressed
from protembed.text import reason_of

PathLike = str | os.PathLike[str]
Paths = PathLike | Iterable[PathLike]

STANDARD_STREAM = Path("-")
# The name of the copy of stdin in TMPDIR, which can be read a second time; copies of other pipes have names in the same
# brackets.
SPOOLED_STDIN = "<stdin>"
_BLOCK, _BUFFER = 1 << 20, 1 << 17

_QUOTATION_MARKS = tuple("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\"'")
_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\")

# The suffixes that the name of a result does not take over from its input.
_COMPRESSED_SUFFIXES = {".gz", ".gzip", ".bgz", ".bgzf", ".bz2", ".xz", ".zst", ".zstd"}
_FORMAT_SUFFIXES = {
    *(".fasta", ".fas", ".fa", ".faa", ".fsa", ".mfa", ".mpfa", ".pep", ".aa", ".prot", ".seq", ".seqs"),
    *(".afa", ".aln", ".a3m", ".a2m", ".fna", ".ffn", ".txt", ".csv", ".tsv", ".tab", ".xlsx"),
    *(".npy", ".npz", ".h5"),
}

# The size and times of a file when a reading began.
_FileState = tuple[int, int, int]
# For each file that was read to its end: its hash, and its state when that reading began.
_Readings = dict[Path, tuple[str, _FileState]]
_READINGS: ContextVar[_Readings | None] = ContextVar("_READINGS", default=None)


# Paths


def as_path(name: str, given: PathLike) -> Path:
    """Convert an argument to a path, and expand a leading `~` or `~user` to the home directory.

    The shell does not expand `--output=~/emb.npy`, and a directory named `~` is never meant. An error names the option
    or argument `name`.

    Raises:
        ConfigError: The argument is neither path nor text, or no user has the name after `~`.

    >>> as_path("output", "emb.npy").name
    'emb.npy'
    """
    if isinstance(given, str) and not given:
        raise ConfigError(name, given, "a path is expected")
    try:
        path = Path(given)
    except TypeError:
        raise ConfigError(name, given, "a path is expected") from None
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        # `Path.exists` raises an error if a name is too long or a directory may not be searched. Here and elsewhere
        # opening the path reports that error.
        if os.path.exists(path):
            return path
        user = path.parts[0][1:]
        reason = f"no user is named {user!r}" if user else "HOME is not set, and you have no home directory"
        expected = f"{reason}: write the full path of the directory"
        raise ConfigError(name, str(path), expected) from None


def as_paths(name: str, given: Paths) -> list[Path]:
    """Convert one or several files to paths, each like `as_path`.

    Raises:
        ConfigError: An item is not a path, or there is none.

    >>> [path.name for path in as_paths("fasta", "a.fasta")]
    ['a.fasta']
    """
    try:
        paths = [as_path(name, path) for path in ([given] if isinstance(given, str | bytes | os.PathLike) else given)]
    except TypeError:
        raise ConfigError(name, given, "a path or a list of paths is expected") from None
    if not paths:
        raise ConfigError(name, paths, "at least one file is expected: did a pattern match nothing?")
    return paths


def follow_link(output: Path) -> Path:
    """Return the target of an output that is a link: the link stays, and its target is replaced.

    A link to a pipe or a device, such as `/dev/stdout`, is returned unchanged; `io.result` rejects it.

    Raises:
        ConfigError: The link leads back to itself.
    """
    if not os.path.islink(output) or (
        os.path.exists(output) and not os.path.isfile(output) and not os.path.isdir(output)
    ):
        return output
    target = Path(os.path.realpath(output))
    if os.path.islink(target):
        raise ConfigError("output", str(output), "this link leads to itself")
    return target


def default_path(source: Path, suffix: str) -> Path:
    """Name a result in the current directory after an input, without the suffixes of its format and compression.

    Other dots stay, because they are part of versions and names.

    Raises:
        InputNotFoundError: The input is a directory; `.` would give a name without a beginning.

    >>> default_path(Path("data/seqs.fasta.gz"), ".npy").name, default_path(Path("GCF_000005845.2.faa"), ".npy").name
    ('seqs.npy', 'GCF_000005845.2.npy')
    """
    if os.path.isdir(source):
        raise InputNotFoundError(str(source), os.strerror(errno.EISDIR), "name a file in it")
    if is_stream(source) or display_name(source) != str(source):
        return Path("stdin" + suffix)
    stem = Path(source.name)
    for known in (_COMPRESSED_SUFFIXES, _FORMAT_SUFFIXES):
        stem = stem.with_suffix("") if stem.suffix.lower() in known else stem
    return Path(stem.name + suffix)


def display_name(path: Path) -> str:
    """Format a path for a message: `<stdin>` for `-` and for its copy, without the directory of the copy."""
    if path == STANDARD_STREAM:
        return SPOOLED_STDIN
    return path.name if path.name.startswith("<") and path.name.endswith(">") else str(path)


def is_stream(path: Path) -> bool:
    """Return whether a path is stdin, another pipe or a device, and therefore cannot be read a second time."""
    try:
        mode = path.stat().st_mode if path != STANDARD_STREAM else stat.S_IFIFO
    except OSError:
        return False  # opening the path reports the error
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_utf8(path: Path) -> bool:
    """Return whether a path can be encoded in UTF-8, as safetensors requires; Python accepts any bytes."""
    return not any("\udc80" <= letter <= "\udcff" for letter in str(path.absolute()))


@contextmanager
def _verify_rest_of_archive(archive: BinaryIO) -> Iterator[None]:
    """After a data error, read the archive to its end: a checksum failure is the likelier cause, and replaces it."""
    try:
        yield
    except DataError:
        while archive.read(_BLOCK):
            pass
        raise


# Inputs that change


class _Reading:
    """A reading of a file from its first byte; its hash counts only when the end is reached."""

    def __init__(self, path: Path, raw: BinaryIO, readings: _Readings, state: _FileState) -> None:
        self._path, self._raw, self._readings, self._state = path, raw, readings, state
        self._digest, self._num_bytes = hashlib.sha256(), 0

    def add(self, data: memoryview) -> None:
        """Hash some bytes; at the end, where `data` is empty, compare the hash with that of earlier readings."""
        if data:
            self._digest.update(data)
            self._num_bytes += len(data)
        elif self._path == STANDARD_STREAM:  # redirected from a file: read once, from its current position
            if _state_of(os.fstat(self._raw.fileno())) != self._state:
                raise ChangedInputError(display_name(self._path))
        else:
            sha256 = self._digest.hexdigest()
            size = self._state[0] or self._num_bytes  # 0 where a file system does not know the size beforehand
            if self._readings.get(self._path, (sha256,))[0] != sha256 or self._num_bytes != size:
                raise ChangedInputError(display_name(self._path))
            self._readings[self._path] = (sha256, self._state)


def _begin_reading(path: Path, raw: BinaryIO) -> _Reading | None:
    """Begin to hash a regular file within `unchanged_inputs`; None outside of it and for pipes, which are read once."""
    readings = _READINGS.get()
    if readings is None:
        return None
    try:
        status = os.fstat(raw.fileno())
    except OSError:
        return None  # stdin without a file descriptor
    return _Reading(path, raw, readings, _state_of(status)) if stat.S_ISREG(status.st_mode) else None


def _state_of(status: os.stat_result) -> _FileState:
    # Without the inode number, which some network file systems invent for each call.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def unchanged_inputs() -> Iterator[None]:
    """Hash every file that is read within the block; all readings of a file must agree.

    Raises:
        ChangedInputError: The bytes of a file differ from those of an earlier reading. Also raised instead of a
            DataError or VerificationError if an input has changed in the meantime.
    """
    token = _READINGS.set({})
    try:
        yield
    except (DataError, VerificationError):
        check_inputs()
        raise
    finally:
        _READINGS.reset(token)


def check_inputs() -> None:
    """Check that all files read so far, within `unchanged_inputs`, still contain the bytes that were read.

    While the size and times of a file stay the same, only those are compared. Otherwise the file is read again. A file
    that was removed passes, because it was read to its end.

    Raises:
        ChangedInputError: A file contains other bytes.
    """
    for path, (_, state) in list((_READINGS.get() or {}).items()):
        try:
            is_touched = _state_of(path.stat()) != state
        except FileNotFoundError:
            continue
        if is_touched:
            sha256_of_inputs([path])


# Opening


class _InputStream(io.RawIOBase):
    """The bytes of an input; an error of its disk or network is reported as an error of the input."""

    def __init__(self, stream: BinaryIO, name: str, reading: _Reading | None) -> None:
        self._stream, self._name, self._reading = stream, name, reading

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            num_bytes: int = self._stream.readinto1(buffer)  # type: ignore[attr-defined]  # buffered readers only
        except OSError as error:
            raise InputNotFoundError(self._name, reason_of(error), "check the path") from error
        if self._reading is not None:
            self._reading.add(memoryview(buffer)[:num_bytes])
        return num_bytes


def _advise_missing(path: Path) -> str:
    """Say what is unusual about the path of a file that cannot be opened, or which file of its folder may be meant."""
    name = str(path)
    if os.path.isdir(path):  # unlike `Path.is_dir`, it raises no error about a name that is too long
        return "name a file in it"
    if name[:1] in _QUOTATION_MARKS:
        return "type the path without quotation marks, or in straight ones"
    if name.startswith("file:"):
        return "give the path alone, without file://"
    if _WINDOWS_PATH.match(name):
        return "this is a path of Windows: in WSL, write /mnt/c/ for C:\\, and / for each \\"
    try:
        siblings = {sibling.name: sibling for sibling in path.absolute().parent.iterdir()}
    except OSError:
        return "check the path"
    alike = {unicodedata.normalize("NFKC", sibling).casefold(): sibling for sibling in siblings}
    near = get_close_matches(unicodedata.normalize("NFKC", path.name).casefold(), alike, n=1, cutoff=0.85)
    return f"check the path, there is {alike[near[0]]!r}" if near and path.name not in siblings else "check the path"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or stdin for `-`, which stays open, as a buffered stream, without decompressing it.

    Raises:
        InputNotFoundError: The file does not exist, is a directory, or cannot be read.
    """
    name = display_name(path)
    try:
        raw = cast("BinaryIO", sys.stdin.buffer) if path == STANDARD_STREAM else path.open("rb")
    except OSError as error:
        advice = "no file matches this pattern" if has_magic(name) else _advise_missing(path)
        raise InputNotFoundError(name, reason_of(error), advice) from error
    try:
        with io.BufferedReader(_InputStream(raw, name, _begin_reading(path, raw)), _BUFFER) as source:
            yield cast("BinaryIO", source)
    finally:
        if path != STANDARD_STREAM:
            raw.close()


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or stdin for `-`; decompress gzip, bzip2, xz or zstd, recognised by content and not by name.

    The stream is buffered.

    Raises:
        InputNotFoundError: The file does not exist, is a directory, or cannot be read.
        DamagedArchiveError: The archive is truncated or damaged; raised while it is read.
        FormatError: The file is a zstd archive, and the package that reads it is not installed.
    """
    try:
        with open_bytes(path) as source:
            stream = decompressed(source, display_name(path))
            with _verify_rest_of_archive(stream) if stream is not source else nullcontext():
                yield stream
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        # gzip, bz2 and zstd report a damaged stream as an OSError without an error number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedArchiveError(display_name(path), str(error)) from error


def read_json(path: Path) -> Any:
    """Read a JSON file; OSError and ValueError pass, because only the caller knows what the file is for.

    Editors on Windows may write a byte-order mark.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes on disk, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_inputs(paths: Iterable[Path]) -> str | None:
    """Return one SHA-256 for the bytes of several inputs; None if one is a pipe, which can be read only once."""
    digest = hashlib.sha256()
    for path in paths:
        if is_stream(path):
            return None
        with open_bytes(path) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]  # buffered
    return digest.hexdigest()
