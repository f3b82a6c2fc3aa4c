"""The only place where a file is opened for writing.

Whatever is finished appears under its name by renaming, after it was flushed to disk: a reader never sees half a file.
"""

import errno
import fcntl
import glob
import json
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.errors import OutputError, OutputExistsError
from protembed.io.reading import SPOOLED_STDIN, STANDARD_STREAM, is_stream, open_bytes, path_exists
from protembed.io.text import format_row

_BLOCK = 1 << 20
# Where Linux lets a file without a name be opened once more, at its beginning.
_OPEN_FILES = Path("/proc/self/fd")
# What fsync of a folder says on network and virtual file systems (CIFS, VirtualBox, WSL) that flush files alone.
_FOLDERS_CANNOT_BE_FLUSHED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO)
_UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|old)(\..+)?")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path` to a library that writes by name; rename it into place when all went well.

    Args:
        path: the final name; an existing file is replaced.

    Yields:
        The temporary path, with the suffix of `path`.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
        _fsync_directory(path)
    except OSError as error:
        _raise_output_error(error, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for binary writing that appears under its name only when it is complete.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(path) as temporary, temporary.open("w+b") as stream:
        yield stream


@contextmanager
def atomic_directory(path: Path, *, marker: str | None = None) -> Iterator[Path]:
    """Lend an empty temporary directory beside `path`; rename it into place when all went well.

    Args:
        path: the final name; an existing directory is replaced.
        marker: the file by which an older result of the same kind is known; another directory that is not
            empty is not replaced, whatever `--force` says: it may be somebody's thesis.

    Yields:
        The temporary directory.

    Raises:
        OutputExistsError: the directory that stands there has no marker.
        OutputError: the directory cannot be made or written, or the disk is full; nothing is left behind.
    """
    if marker is not None:
        check_is_ours_or_absent(path, marker)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    displaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            _copy_permissions(temporary, file)
            _flush_to_disk(file)
        _flush_to_disk(temporary)
        if path.exists() or path.is_symlink():
            path.rename(displaced)
        try:
            temporary.rename(path)
        except BaseException:  # a second Ctrl-C too
            if not path.exists():
                displaced.rename(path)
            raise
        _fsync_directory(path)
    except OSError as error:
        _raise_output_error(error, path)
    finally:
        with suppress(OSError):
            remove(temporary)
            remove(displaced)


@contextmanager
def output_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a seekable binary output: an atomic file, or for `-` a spool in TMPDIR that is copied to stdout at the end.

    Raises:
        OutputError: the file, the spool or stdout could not be written. BrokenPipeError passes: the reader has left.
    """
    if path != STANDARD_STREAM:
        with atomic_file(path) as stream:
            yield stream
        return
    with scratch_file() as spool:
        yield spool
        spool.seek(0)
        copy_to_stdout(spool)


def copy_to_stdout(stream: BinaryIO) -> None:
    """Write the rest of a stream to stdout.

    Raises:
        OutputError: stdout could not be written. BrokenPipeError passes: the reader has left.
    """
    with output_errors(STANDARD_STREAM):
        shutil.copyfileobj(stream, sys.stdout.buffer, _BLOCK)
        sys.stdout.buffer.flush()


def open_append(path: Path, size: int = 0) -> BinaryIO:
    """Open a file to go on writing after its first `size` bytes; whatever a killed process wrote behind is cut off.

    Raises:
        OutputError: it cannot be opened, or is shorter.
    """
    with output_errors(path):
        if size and path.stat().st_size < size:
            raise OutputError(str(path), f"it is shorter than the {size:,} bytes it should have")
        stream = path.open("r+b" if size else "w+b")
        stream.truncate(size)
        stream.seek(size)
    return stream


def flush_to_disk(stream: BinaryIO) -> int:
    """Bring what was written to disk, and return how many bytes that are."""
    stream.flush()
    os.fsync(stream.fileno())
    return stream.tell()


def move_into_place(source: Path, target: Path) -> None:
    """Rename a finished file to its final name, in one step.

    Raises:
        OutputError: it cannot be renamed.
    """
    with output_errors(target):
        _flush_to_disk(source)
        source.replace(target)
        _fsync_directory(target)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of a writing block into an OutputError that names `path`; a broken pipe tells its own story."""
    try:
        yield
    except OSError as error:
        _raise_output_error(error, Path("<stdout>") if path == STANDARD_STREAM else path)


@contextmanager
def exclusive_lock(path: Path, refuse: Callable[[str], Exception]) -> Iterator[None]:
    """Hold a lock file while the block runs; the kernel frees it when its holder dies, however that happens.

    Args:
        path: of the lock file; it says who holds it, and is removed in the end.
        refuse: makes the exception that is raised when somebody else holds it, from what the file says.

    Raises:
        OutputError: the file cannot be written.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise refuse(stream.read().strip() or "another process") from None
        except OSError:
            pass  # a file system without locks: better a run without than none
        is_ours = False
        # Whoever held it before may have removed the file that was just locked, and somebody may have made another.
        with suppress(FileNotFoundError):
            is_ours = os.path.samestat(path.stat(), os.fstat(stream.fileno()))
        if not is_ours:
            raise refuse("another process")
        try:
            with output_errors(path):
                stream.truncate(0)
                os.write(stream.fileno(), f"process {os.getpid()} on {platform.node()}\n".encode())
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory in TMPDIR that is gone, with all that is in it, when the block ends."""
    with tempfile.TemporaryDirectory(prefix="protembed-") as name:
        yield Path(name)


@contextmanager
def seekable_inputs(paths: Sequence[Path], *, wanted: bool = True) -> Iterator[list[Path]]:
    """Copy stdin and other pipes among some paths to TMPDIR, so that they can be read twice; files stay as they are.

    On Linux the copies have no name: nothing of them is left, even when the process is killed.

    Args:
        paths: the inputs; `-` is stdin.
        wanted: whether anything is read twice; if not, nothing is copied.

    Raises:
        OutputError: TMPDIR has no room.
    """
    if not wanted or not any(map(is_stream, paths)):
        yield list(paths)
        return
    with scratch_directory() as directory, ExitStack() as spools:
        copies = {
            path: _spool(path, directory / str(number), spools)
            for number, path in enumerate(set(filter(is_stream, paths)))
        }
        yield [copies.get(path, path) for path in paths]


def _spool(path: Path, directory: Path, spools: ExitStack) -> Path:
    """Copy a stream to a file that can be opened by name while `spools` is open."""
    spool = directory / (SPOOLED_STDIN if path == STANDARD_STREAM else f"<{path.name}>")
    with output_errors(spool), open_bytes(path) as stream:
        directory.mkdir()
        if _OPEN_FILES.exists():
            target = spools.enter_context(scratch_file())
            spool.symlink_to(_OPEN_FILES / str(target.fileno()))
        else:
            target = spools.enter_context(spool.open("wb"))
        shutil.copyfileobj(stream, target, _BLOCK)
        target.flush()
    return spool


def scratch_file() -> BinaryIO:
    """Open a nameless file in TMPDIR that is gone when it is closed."""
    return cast("BinaryIO", tempfile.TemporaryFile())


def remove(path: Path) -> None:
    """Remove a file or a whole directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Tell by its name whether this is a temporary file or directory of ours."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed process was still writing in a directory that belongs to this process alone."""
    for path in sorted(directory.rglob(".*")):
        if is_unfinished(path):
            remove(path)


def remove_unfinished_beside(path: Path) -> None:
    """Remove what a killed process left beside a file or directory that it was making."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if is_unfinished(left):
            remove(left)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, in UTF-8."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a TSV atomically, in UTF-8; what is absent is an empty cell."""
    with atomic_file(path) as stream:
        for row in (header, *rows):
            stream.write(format_row(["" if cell is None else cell for cell in row]))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line, and flush it.

    Raises:
        OutputError: the line could not be written.
    """
    with output_errors(path), path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(value, allow_nan=False) + "\n")


def _copy_permissions(directory: Path, path: Path) -> None:
    """Let whoever may read a directory read a file in it; safetensors' files are for their owner alone."""
    wanted, mode = directory.stat().st_mode & 0o666, path.stat().st_mode
    if wanted & ~mode and path.is_file():
        with suppress(OSError):  # where access lists rule (NFSv4, ZFS), chmod is refused
            path.chmod(stat.S_IMODE(mode) | wanted)


def _flush_to_disk(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} was not written")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _FOLDERS_CANNOT_BE_FLUSHED):
            raise
    finally:
        os.close(descriptor)


def _fsync_directory(path: Path) -> None:
    # Whole files stand there whether or not this succeeds, the older ones or the new.
    with suppress(OSError):
        _flush_to_disk(path.parent)


def _raise_output_error(error: OSError, path: Path) -> None:
    """Turn an OSError of a writing block into an OutputError, but let a broken pipe tell its own story."""
    if isinstance(error, BrokenPipeError):
        raise error
    raise OutputError(str(path), error.strerror or str(error)) from error


def check_is_ours_or_absent(path: Path, marker: str) -> None:
    """Refuse to replace a file or directory that is no result of ours, whatever `--force` says.

    Args:
        path: where a directory is to be made; nothing, or an empty directory, may stand there.
        marker: the file by which our own results are known.

    Raises:
        OutputExistsError: something else stands there.
    """
    is_empty = os.path.isdir(path) and os.access(path, os.R_OK) and not any(path.iterdir())
    if path_exists(path) and not is_empty and not path_exists(path / marker):
        raise OutputExistsError(path, f"holds no {marker}: it is something else", is_replaceable=False)
