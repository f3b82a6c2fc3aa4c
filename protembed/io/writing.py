"""Writing files atomically; no other module opens a file for writing.

A finished file is flushed to disk and then renamed to its final name, so that a reader never sees half a file. If a
disk is full, or a file or a directory cannot be written, an OutputError is raised and no temporary file is left.
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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from protembed.errors import NoTemporaryDirectoryError, OutputError
from protembed.io.limitations import NOT_SUPPORTED, Limitation, note_limitation
from protembed.io.reading import SPOOLED_STDIN, STANDARD_STREAM, is_stream, open_bytes
from protembed.text import format_row, reason_of

_BLOCK = 1 << 20
# The directory in which Linux lets a file without a name be opened again, from its beginning.
_OPEN_FILES = Path("/proc/self/fd")
# Errors of fsync on a directory where only files can be flushed; WSL reports an error of the disk.
_NO_DIRECTORY_FSYNC = (*NOT_SUPPORTED, errno.EIO)
# Errors of a renaming that is impossible, while copying is not: onto an existing file, onto a file that is mounted by
# itself (as containers do), from a lower layer of overlayfs, or at all (object stores).
_NO_RENAMING = (errno.EEXIST, errno.EBUSY, errno.EXDEV, errno.ENOSYS, errno.ENOTSUP)
# What a lock file says about its holder.
_MAX_HOLDER = 1000
# The age from which a scratch directory that nothing locks belongs to no process.
_ABANDONED_SECONDS = 3600
_HOLDER = re.compile(r"process (\d+) on (.+)")
_UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|old)(\..+)?")


# Errors and flushing


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `path`; a BrokenPipeError passes unchanged."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError("<stdout>" if path == STANDARD_STREAM else str(path), reason_of(error)) from error


def _fsync(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} was not written")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _fsync_open(descriptor, path)
    finally:
        os.close(descriptor)


def _fsync_open(descriptor: int, path: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        is_directory = path.is_dir()
        if error.errno not in (_NO_DIRECTORY_FSYNC if is_directory else NOT_SUPPORTED):
            raise
        if not is_directory:
            note_limitation(Limitation.FLUSHING)


def _fsync_directory(path: Path) -> None:
    # Whether or not this succeeds, the directory contains complete files, either the older or the new ones.
    with suppress(OSError):
        _fsync(path.parent)


def flush_to_disk(stream: BinaryIO) -> int:
    """Flush a stream to disk, and return its position in bytes."""
    stream.flush()
    _fsync_open(stream.fileno(), Path(stream.name))
    return stream.tell()


# Removing


def remove(path: Path) -> None:
    """Remove a file or a whole directory, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(directory: Path) -> None:
    """Remove a directory as if in one step: what a killed process leaves of it has the name of a temporary one."""
    doomed = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        directory = directory.rename(doomed)
    with output_errors(directory):
        remove(directory)


def is_unfinished(path: Path) -> bool:
    """Return whether a name is that of a temporary file or directory of protembed."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(directory: Path, names: str = "**/.*") -> None:
    """Remove what killed processes left in a directory, under names that match a pattern."""
    for path in filter(is_unfinished, sorted(directory.glob(names))):
        remove(path)


def remove_unfinished_beside(path: Path) -> None:
    """Remove the temporary files and directories that a killed process left beside its result."""
    remove_unfinished(path.parent, f".{glob.escape(path.name)}.*")


# Renaming


def _rename(source: Path, target: Path) -> None:
    """Rename a file or directory; copy it where a file system cannot, or cannot replace the target."""
    try:
        source.replace(target)
    except OSError as error:
        is_directory = source.is_dir()
        if error.errno not in _NO_RENAMING or (is_directory and os.path.lexists(target)):
            raise
        note_limitation(Limitation.RENAMING)
        _copy_directory(source, target) if is_directory else _copy_file(source, target)
        with suppress(OSError):  # a file that is mounted by itself stays
            remove(source)


def _copy_directory(source: Path, target: Path) -> None:
    try:
        target.mkdir()
        for path in sorted(source.rglob("*")):
            copy = target / path.relative_to(source)
            copy.mkdir() if path.is_dir() else shutil.copyfile(path, copy, follow_symlinks=False)
        flush_directory(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file over another, which keeps its permissions; without another one, leave nothing after an error."""
    is_new = not os.path.lexists(target)
    try:
        shutil.copyfile(source, target)
        _fsync(target)
    except BaseException:
        if is_new:
            target.unlink(missing_ok=True)
        raise


# Locks and scratch files


@contextmanager
def exclusive_lock(path: Path, make_error: Callable[[str], Exception], *, output: Path | None = None) -> Iterator[None]:
    """Hold a lock file during the block; the kernel releases it if the process dies.

    Args:
        path: Path of the lock file, which names its holder and is removed at the end.
        make_error: Function from the holder's name to the exception that is raised if another process holds the lock.
        output: Path of what is locked; an error names it where the lock cannot be made. None is the lock itself.
    """
    # A killed process of another user may have left a lock that only that user may write.
    with output_errors(path if output is None or os.path.exists(path) else output):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        holder = os.pread(descriptor, _MAX_HOLDER, 0).decode(errors="replace").strip()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise make_error(holder or "another process") from None
        except OSError:
            if _is_running(holder):
                raise make_error(holder) from None
            note_limitation(Limitation.LOCKS)
        own = f"process {os.getpid()} on {platform.node()}\n".encode()
        try:
            with output_errors(output or path):
                os.ftruncate(descriptor, 0)
                # On a disk that is nearly full, a stream writes all or fails.
                with open(descriptor, "wb", closefd=False) as stream:
                    stream.write(own)
            # The former holder may have removed the file that was just locked, and another process may have created a
            # new one under its name. Its content decides, because some network file systems invent inode numbers.
            if _read_bytes(path) != own:
                raise make_error("another process")
            yield
        finally:
            content = _read_bytes(path)
            if content is not None and own.startswith(content):  # shorter if the disk is full
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _read_bytes(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _is_running(holder: str) -> bool:
    """Return whether the holder of a lock is another process of this machine that still runs."""
    named = _HOLDER.fullmatch(holder)
    if named is None or named[2] != platform.node() or int(named[1]) == os.getpid():
        return False
    try:
        os.kill(int(named[1]), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def check_temporary_directory() -> None:
    """Check that there is a directory for temporary files, which torch's optimisers and matplotlib need too.

    Raises:
        NoTemporaryDirectoryError: There is none that can be written.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise NoTemporaryDirectoryError from None


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Create a directory in TMPDIR, and remove it with its contents at the end of the block.

    What killed processes of this machine have left there is removed first.
    """
    check_temporary_directory()
    prefix = f"protembed-{platform.node()}-"
    for path in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        _remove_abandoned(path)
    with tempfile.TemporaryDirectory(prefix=prefix) as name, _locked_directory(Path(name)):
        yield Path(name)


@contextmanager
def _locked_directory(path: Path) -> Iterator[bool]:
    """Hold a lock on a directory during the block, if that is possible; yield whether it is held."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        is_held = False
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = True
        yield is_held
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove a scratch directory whose process was killed, so that nothing locks it; spare one that is just begun."""
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
            with _locked_directory(path) as is_held:
                if is_held:
                    remove(path)


def _spool(path: Path, directory: Path, spools: ExitStack) -> Path:
    """Copy a stream to a file that can be opened by name while `spools` is open."""
    spool = directory / (SPOOLED_STDIN if path == STANDARD_STREAM else f"<{path.name}>")
    with output_errors(spool), open_bytes(path) as stream:
        directory.mkdir()
        if _OPEN_FILES.exists():
            target = spools.enter_context(cast("BinaryIO", tempfile.TemporaryFile()))
            spool.symlink_to(_OPEN_FILES / str(target.fileno()))
        else:
            target = spools.enter_context(spool.open("wb"))
        shutil.copyfileobj(stream, target, _BLOCK)
        target.flush()
    return spool


@contextmanager
def seekable_inputs(paths: Sequence[Path], *, needed: bool = True) -> Iterator[list[Path]]:
    """Replace stdin and other pipes by copies in TMPDIR, so that they can be read twice; files stay unchanged.

    On Linux the copies have no name, so that a killed process leaves nothing. Nothing is copied if not `needed`.
    """
    if not needed or not any(map(is_stream, paths)):
        yield list(paths)
        return
    with scratch_directory() as directory, ExitStack() as spools:
        copies = {
            path: _spool(path, directory / str(number), spools)
            for number, path in enumerate(set(filter(is_stream, paths)))
        }
        yield [copies.get(path, path) for path in paths]


# Atomic files and directories


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, for libraries that write by name; rename it on success."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _fsync(temporary)
            _rename(temporary, path)
            _fsync_directory(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for binary writing that appears under its name only when it is complete."""
    with atomic_path(path) as temporary, temporary.open("w+b") as stream:
        yield stream


def _copy_permissions(directory: Path, path: Path) -> None:
    """Make a file readable for all users that may read its directory; safetensors lets only the owner read it."""
    required, mode = directory.stat().st_mode & 0o666, path.stat().st_mode
    if required & ~mode and path.is_file():
        try:
            path.chmod(stat.S_IMODE(mode) | required)
        except OSError:  # access control lists (NFSv4, ZFS) do not allow it
            note_limitation(Limitation.PERMISSIONS)


def flush_directory(directory: Path) -> None:
    """Flush a directory and all that it contains to disk, readable for all users that may read it."""
    for file in directory.rglob("*"):
        _copy_permissions(directory, file)
        _fsync(file)
    _fsync(directory)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary directory beside `path`; rename it to `path`, which may exist, on success."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    displaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        with output_errors(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            flush_directory(temporary)
            if path.exists() or path.is_symlink():
                _rename(path, displaced)
            try:
                _rename(temporary, path)
            except BaseException:  # also after a second Ctrl-C
                if displaced.exists() and not path.exists():
                    _rename(displaced, path)
                raise
            _fsync_directory(path)
    finally:
        with suppress(OSError):
            remove(temporary)
            remove(displaced)


def create_directory(path: Path) -> None:
    """Create an empty directory, in place of whatever is there."""
    with output_errors(path):
        remove(path)
        path.mkdir(parents=True)


@contextmanager
def existing_directory(path: Path, on_created: Callable[[Path], None]) -> Iterator[None]:
    """Create a directory for the block if it does not exist; if it is empty at the end, remove it again.

    Args:
        path: Path of the directory, whose parent exists.
        on_created: Function that is called with `path` if it was created.
    """
    is_new = not os.path.exists(path)
    if is_new:
        with output_errors(path):
            path.mkdir(exist_ok=True)
        on_created(path)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def move_into_place(source: Path, target: Path) -> None:
    """Rename a finished file or directory to its final name in one step."""
    with output_errors(target):
        flush_directory(source) if source.is_dir() else _fsync(source)
        _rename(source, target)
        _fsync_directory(target)


# Files that grow


def open_append(path: Path, size: int = 0) -> BinaryIO:
    """Open a file to continue writing after its first `size` bytes; cut off what a killed process wrote after them.

    Raises:
        OutputError: It cannot be opened, or is shorter than `size`.
    """
    with output_errors(path):
        if size and path.stat().st_size < size:
            raise OutputError(str(path), f"it is shorter than the {size:,} bytes it should have")
        stream = path.open("r+b" if size else "w+b")
        stream.truncate(size)
        stream.seek(size)
    return stream


def open_log(path: Path) -> BinaryIO:
    """Open a log file to append lines, each of which is on disk when it is written; create its directory.

    Raises:
        OutputError: It cannot be opened, or more than one directory is missing.
    """
    with output_errors(path):
        path.parent.mkdir(exist_ok=True)
        return path.open("ab", buffering=0)


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line, and flush it."""
    with output_errors(path), path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(value, allow_nan=False) + "\n")


# Whole files


def copy_to_stdout(stream: BinaryIO) -> None:
    """Write the rest of a stream to stdout.

    Raises:
        OutputError: Stdout cannot be written. A BrokenPipeError passes unchanged: the reader has closed the pipe.
    """
    with output_errors(STANDARD_STREAM):
        shutil.copyfileobj(stream, sys.stdout.buffer, _BLOCK)
        sys.stdout.buffer.flush()


def write_blocks(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    """Write blocks of bytes to a temporary path, for which its context handles errors."""
    with path.open("wb") as stream:
        stream.writelines(blocks)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, in UTF-8."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a TSV atomically, in UTF-8; None is an empty cell."""
    with atomic_file(path) as stream:
        stream.writelines(format_row(["" if cell is None else cell for cell in row]) for row in (header, *rows))


def write_json_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON object per line atomically, keys in the order given."""
    write_text(path, "".join(json.dumps(value, allow_nan=False) + "\n" for value in values))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
