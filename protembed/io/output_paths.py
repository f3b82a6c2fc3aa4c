"""What may be replaced by a result: checks of the path of an output, before anything is computed."""

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from protembed.errors import ConfigError, OutputExistsError
from protembed.io.reading import STANDARD_STREAM, is_stream, is_utf8
from protembed.io.writing import is_unfinished
from protembed.text import pluralize

# Files that file managers and NFS leave in any directory.
_LITTER = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*")


def is_vacant(path: Path) -> bool:
    """Return whether a result may be written to a path because nothing, or only an empty file, exists there.

    Galaxy and other systems create an empty file for each result before the command begins.
    """
    return not os.path.exists(path) or (os.path.isfile(path) and os.path.getsize(path) == 0)


def check_directory(path: Path, *markers: str) -> None:
    """Check that a directory may be replaced, because it is empty, or has one of the files of protembed.

    Raises:
        OutputExistsError: It has none of the files named.
    """
    is_empty = os.path.isdir(path) and os.access(path, os.R_OK) and all(map(is_unfinished, path.iterdir()))
    if os.path.exists(path) and not is_empty and not any(os.path.exists(path / marker) for marker in markers):
        found = f"has no {markers[0]}, so it is not a result of this command"
        raise OutputExistsError(path, found, is_replaceable=False)


def check_not_a_device(output: Path) -> None:
    """Check that a result is not to replace a pipe or a device, such as `/dev/stdout`.

    Raises:
        ConfigError: It is.
    """
    if output != STANDARD_STREAM and (is_stream(output) or output.parent == Path("/dev")):
        raise ConfigError("output", str(output), "a result does not replace a pipe or a device; - is stdout")


def check_has_name(output: Path) -> None:
    """Check that files can be written beside a result, which the current directory, its parent and `/` do not allow.

    Raises:
        ConfigError: They cannot.
    """
    if output.name in ("", ".."):
        expected = "this directory cannot be replaced by a result: name a file or directory in it"
        raise ConfigError("output", str(output), expected)


def check_parent(output: Path) -> None:
    """Check that at most one directory has to be created for a result: more are missing after a typing error.

    Raises:
        ConfigError: More than one does not exist.
    """
    missing = [directory for directory in output.absolute().parents if _is_missing(directory)]
    if len(missing) > 1:
        expected = f"the directory {missing[-1]} does not exist: correct the path, or create {missing[0]} first"
        raise ConfigError("output", str(output), expected)


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:  # a path that may not be looked at; writing to it reports the error
        return False
    return False


def check_contents(directory: Path, contents: Sequence[str]) -> None:
    """Check that a directory that is going to be replaced holds no files of the user.

    Args:
        directory: Path of the directory, which need not exist.
        contents: Patterns of the files that protembed writes there, relative to the directory.

    Raises:
        OutputExistsError: It holds other files.
    """
    files = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = sorted(
        str(path.relative_to(directory))
        for path in files
        if not any(fnmatchcase(path.relative_to(directory).as_posix(), pattern) for pattern in contents)
        and not any(fnmatchcase(path.name, pattern) for pattern in _LITTER)
        and not any(map(is_unfinished, (path, *path.parents)))
    )
    if foreign:
        others = "" if len(foreign) == 1 else f" and {pluralize(len(foreign) - 1, 'other file')}"
        found = f"contains {foreign[0]}{others}, which protembed did not write"
        raise OutputExistsError(directory, found, is_replaceable=False)


def check_utf8_path(output: Path) -> None:
    """Check, before any training, that the path of a model is valid UTF-8, because safetensors opens no other.

    Raises:
        ConfigError: It is not.
    """
    if not is_utf8(output):
        raise ConfigError("output", str(output), "the path of a model must be valid UTF-8")


def check_not_an_input(output: Path, inputs: Iterable[Path]) -> None:
    """Check that an output would not overwrite an input, a file or a directory, even with `--force`.

    Raises:
        OutputExistsError: The output is one of the inputs, or one of them lies within the other.
    """
    for path in inputs:
        if STANDARD_STREAM in (path, output) or not os.path.exists(path):
            continue
        target, source = output.resolve(), path.resolve()
        if target.is_relative_to(source) or (os.path.exists(output) and output.samefile(path)):
            raise OutputExistsError(output, "is read by this command", is_replaceable=False)
        if source.is_relative_to(target):
            raise OutputExistsError(output, f"contains {path}, which is read by this command", is_replaceable=False)
