"""Opening, decompressing and hashing what was given; paths as they are given."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from protembed.errors import (
    ChangedInputError,
    ConfigError,
    DamagedArchiveError,
    DataError,
    InputNotFoundError,
    VerificationError,
)

_ARCHIVE_BLOCK = 1 << 20
_MAGIC_LENGTH = 16
# Blocked gzip, BGZF, is cut between two blocks without a trace, were it not for the empty block that ends it.
# Source: SAM/BAM format specification, sections 4.1 and 4.1.2.
_BGZF_START, _BGZF_FIELD = b"\x1f\x8b\x08\x04", b"BC\x02\x00"
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_XZ = b"\xfd7zXZ\x00"
_DECOMPRESSORS: dict[bytes, Callable[[], Any]] = {
    b"BZh": bz2.BZ2Decompressor,
    _XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}


def decompressed(raw: BinaryIO) -> BinaryIO:
    """Decompress gzip, bzip2 or xz as the first bytes of a buffered stream say; anything else passes as it is."""
    head = cast("IO[bytes]", raw).peek(_MAGIC_LENGTH)[:_MAGIC_LENGTH]  # type: ignore[attr-defined]  # buffered readers only
    if head.startswith(_BGZF_START) and head.endswith(_BGZF_FIELD):
        return cast("BinaryIO", gzip.open(cast("BinaryIO", _Blocks(raw)), "rb"))
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(raw, "rb"))
    for magic, make in _DECOMPRESSORS.items():
        if head.startswith(magic):
            return cast("BinaryIO", io.BufferedReader(_Members(raw, make, is_padded=magic == _XZ)))
    return raw


class _Blocks:
    """The bytes of a BGZF file as `gzip` takes them; without the block that ends it something is missing."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._end = raw, b""

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._end = (self._end + data)[-len(_BGZF_END) :]
        if not data and self._end != _BGZF_END:
            raise EOFError("the block that ends BGZF is missing")
        return data


class _Members(io.RawIOBase):
    """All streams of a bzip2 or xz file; Python's readers drop, silently, what follows the first if it is damaged."""

    def __init__(self, raw: BinaryIO, make: Callable[[], Any], *, is_padded: bool) -> None:
        self._raw, self._make, self._decompressor, self._is_padded = raw, make, make(), is_padded
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decompressor.eof:
                self._pending = self._next_stream()
                if not self._pending:
                    return 0
                self._decompressor = self._make()
            elif self._decompressor.needs_input and not self._pending:
                self._pending = self._raw.read(_ARCHIVE_BLOCK)
                if not self._pending:
                    raise EOFError("it ends in the middle of a stream")
            data = self._decompressor.decompress(self._pending, len(buffer))
            self._pending = b""
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bytes:
        """Read on to the next stream; those of xz may have padding behind them, a multiple of four zero bytes."""
        data, num_padding = self._decompressor.unused_data or self._raw.read(_ARCHIVE_BLOCK), 0
        while self._is_padded and data.startswith(b"\0"):
            stripped = data.lstrip(b"\0")
            num_padding += len(data) - len(stripped)
            data = stripped or self._raw.read(_ARCHIVE_BLOCK)
        if num_padding % 4:
            raise EOFError("its padding is no multiple of four bytes")
        return cast("bytes", data)


PathLike = str | os.PathLike[str]


def as_path(name: str, given: PathLike) -> Path:
    """Make a path of what was given, with the home folder in the place of a first `~` or `~user`.

    The shell leaves `--output=~/emb.npy` as it is, and a folder named `~` is never meant.

    Args:
        name: The option or argument, for the message.
        given: A path or a text.

    Raises:
        ConfigError: It is neither, or no user has the name after `~`.

    >>> as_path("--output", "emb.npy").name
    'emb.npy'
    """
    try:
        path = Path(given)
    except TypeError:
        raise ConfigError(name, given, "a path is expected") from None
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        if os.path.exists(path):
            return path
        expected = f"no user is named {path.parts[0][1:]!r}: write the whole path of the folder"
        raise ConfigError(name, str(path), expected) from None


def as_paths(name: str, given: Iterable[PathLike] | PathLike) -> list[Path]:
    """Make paths of a list of files; see `as_path`.

    Args:
        name: The argument, for the message.
        given: One path or text at least.

    Raises:
        ConfigError: It is a lone path, or an empty list.
    """
    if isinstance(given, str | bytes | os.PathLike):
        raise ConfigError(name, str(given), "a list of paths is expected: put this one in brackets")
    try:
        paths = [as_path(name, path) for path in given]
    except TypeError:
        raise ConfigError(name, given, "a list of paths is expected") from None
    if not paths:
        raise ConfigError(name, paths, "one file at least is expected: did a pattern match nothing?")
    return paths


def follow_link(output: Path) -> Path:
    """Find the file or folder that is written when an output is a link: the link stays, its target is replaced.

    What is no file and no folder, such as `/dev/stdout`, stays as it is; it is refused elsewhere.

    Args:
        output: Where a result is to go.

    Raises:
        ConfigError: The link leads round in a circle.
    """
    if not output.is_symlink() or (os.path.exists(output) and not os.path.isfile(output) and not os.path.isdir(output)):
        return output
    target = Path(os.path.realpath(output))
    if target.is_symlink():
        raise ConfigError("--output", str(output), "this link leads to itself")
    return target


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
            with _verify_rest_of_archive(stream) if stream is not source else nullcontext():
                yield stream
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DamagedArchiveError(display_name(path), str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 reports a damaged stream as an OSError without a number.
        raise DamagedArchiveError(display_name(path), str(error)) from error


@contextmanager
def _verify_rest_of_archive(archive: BinaryIO) -> Iterator[None]:
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
    except (DataError, VerificationError):
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


def is_stream(path: Path) -> bool:
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
    return Path(("stdin" if is_stream(source) else source.name.partition(".")[0] or source.name) + suffix)


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
        if is_stream(path):
            return None
        with open_bytes(path) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]  # buffered
    return digest.hexdigest()


def path_exists(path: Path) -> bool:
    """Tell whether something stands under a path.

    Where a name is too long or a folder may not be entered `Path.exists` raises; whoever opens it is told why not.
    """
    return os.path.exists(path)
