"""Where a result may be written, and the lock that its writer holds."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protembed.errors import ConfigError, OutputExistsError, RunInUseError
from protembed.io.reading import STANDARD_STREAM, is_utf8, path_exists
from protembed.io.writing import exclusive_lock, remove_unfinished_beside

_OTHER_FORMATS = (".csv", ".xlsx", ".json", ".npy", ".npz", ".h5", ".parquet", ".gz", ".bz2", ".xz", ".zip")


def is_vacant(path: Path) -> bool:
    """Return whether a result may be written to a path because nothing, or only an empty file, exists there.

    Galaxy and other systems create an empty file for each result before the command begins.
    """
    return not path_exists(path) or (os.path.isfile(path) and os.path.getsize(path) == 0)


def check_is_path(output: Path) -> None:
    """Check that the path of a directory is not `-`.

    Raises:
        ConfigError: It is `-`.
    """
    if output == STANDARD_STREAM:
        raise ConfigError("output", str(output), "a directory is expected")


def check_utf8_path(output: Path) -> None:
    """Check, before any training, that the path of a model is valid UTF-8, because safetensors opens no other.

    Raises:
        ConfigError: It is not.
    """
    if not is_utf8(output):
        raise ConfigError("output", str(output), "the path of a model must be valid UTF-8")


def check_table_suffix(output: Path) -> None:
    """Check that the name of a table does not promise another format than tab-separated text.

    Raises:
        ConfigError: The name has the suffix of another format, or is that of a directory.
    """
    if os.path.isdir(output):
        raise ConfigError("output", str(output), f"this is a directory: name a file, such as {output / 'table.tsv'}")
    if output.suffix.lower() in _OTHER_FORMATS:
        raise ConfigError("output", str(output), "the table is tab-separated text: name it .tsv")


def check_absent(output: Path, *, force: bool) -> None:
    """Check that no result is replaced without `force`, where a result does not record which command made it.

    Raises:
        OutputExistsError: A file or directory exists there, or, even with `force`, a device or a pipe.
    """
    if output == STANDARD_STREAM or is_vacant(output):
        return
    if not os.path.isfile(output) and not os.path.isdir(output):
        raise OutputExistsError(output, "is not a file", is_replaceable=False)
    if not force:
        raise OutputExistsError(output)


def check_not_an_input(output: Path, inputs: Sequence[Path]) -> None:
    """Check that an output would not overwrite an input, even with `--force`.

    Args:
        output: Path of the result; `-` is stdout.
        inputs: Paths of files and directories that are read; `-` is stdin.

    Raises:
        OutputExistsError: The output is one of the inputs, or one of them lies within the other.
    """
    for path in inputs:
        if STANDARD_STREAM in (path, output) or not path_exists(path):
            continue
        target, source = output.resolve(), path.resolve()
        if target.is_relative_to(source):
            raise OutputExistsError(output, "is read by this command", is_replaceable=False)
        if source.is_relative_to(target):
            raise OutputExistsError(output, f"contains {path}, which is read by this command", is_replaceable=False)


@contextmanager
def result_lock(output: Path) -> Iterator[None]:
    """Hold the lock of a result during the block, and first remove what a killed process left beside the result.

    Stdout has no lock.

    Raises:
        RunInUseError: Another process is writing this result.
        OutputError: The directory cannot be written.
    """
    if output == STANDARD_STREAM:
        yield
        return
    with exclusive_lock(output.with_name(f".{output.name}.lock"), lambda holder: RunInUseError(output, holder)):
        remove_unfinished_beside(output)
        yield
