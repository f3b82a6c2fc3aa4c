"""Where a result may be written, and the lock that its writer holds."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protembed.errors import ConfigError, OutputExistsError, RunInUseError
from protembed.io.reading import STANDARD_STREAM, is_utf8, path_exists
from protembed.io.writing import exclusive_lock, remove_unfinished_beside


@contextmanager
def result_lock(output: Path) -> Iterator[None]:
    """Hold a result while it is made, and sweep away what a killed process left beside it; stdout has no rivals.

    Raises:
        RunInUseError: another process is writing this result.
        OutputError: the folder cannot be written.
    """
    if output == STANDARD_STREAM:
        yield
        return
    with exclusive_lock(output.with_name(f".{output.name}.lock"), lambda holder: RunInUseError(output, holder)):
        remove_unfinished_beside(output)
        yield


_OTHER_FORMATS = (".csv", ".xlsx", ".json", ".npy", ".npz", ".h5", ".parquet", ".gz", ".bz2", ".xz", ".zip")


def is_vacant(path: Path) -> bool:
    """Tell whether a result may go to a path because nothing stands there, or an empty file.

    Galaxy and others make one for each result before the command begins.
    """
    return not path_exists(path) or (os.path.isfile(path) and os.path.getsize(path) == 0)


def check_is_path(output: Path) -> None:
    """Refuse `-` where a directory is to be made.

    Raises:
        ConfigError: it is `-`.
    """
    if output == STANDARD_STREAM:
        raise ConfigError("--output", str(output), "a directory is expected")


def check_absent(output: Path, *, force: bool) -> None:
    """Refuse to replace a result that does not say which command made it, unless that is wanted.

    Raises:
        OutputExistsError: something stands there; or, whatever is wanted, a device or a pipe.
    """
    if output == STANDARD_STREAM or is_vacant(output):
        return
    if not os.path.isfile(output) and not os.path.isdir(output):
        raise OutputExistsError(output, "is no file", is_replaceable=False)
    if not force:
        raise OutputExistsError(output)


def check_table_suffix(output: Path) -> None:
    """Refuse a name that promises anything but the tab-separated text that a table is written as.

    Raises:
        ConfigError: it is such a name, or that of a folder.
    """
    if os.path.isdir(output):
        raise ConfigError("--output", str(output), f"this is a folder: name a file, such as {output / 'table.tsv'}")
    if output.suffix.lower() in _OTHER_FORMATS:
        raise ConfigError("--output", str(output), "the table is tab-separated text: name it .tsv")


def check_not_an_input(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write over what is read, whatever `--force` says.

    Args:
        output: where a result is to go; `-` is stdout.
        inputs: what is read: files, directories, `-`.

    Raises:
        OutputExistsError: the output is one of the inputs, or one of them lies in the other.
    """
    for path in inputs:
        if STANDARD_STREAM in (path, output) or not path_exists(path):
            continue
        there, here = output.resolve(), path.resolve()
        if there.is_relative_to(here):
            raise OutputExistsError(output, "is read by this command", is_replaceable=False)
        if here.is_relative_to(there):
            raise OutputExistsError(output, f"holds {path}, which is read by this command", is_replaceable=False)


def check_utf8_path(output: Path) -> None:
    """Refuse a directory for a model whose name is no UTF-8, before anything is trained: safetensors opens no other.

    Raises:
        ConfigError: it is such a name.
    """
    if not is_utf8(output):
        raise ConfigError("--output", str(output), "a model's path is to be UTF-8")
