"""What may not stand where a result is to go: somebody else's work, and what is being read.

`os.path` says of a name that cannot be looked up, since it is too long or its folder is closed, that nothing is there;
whoever opens or writes it tells why. pathlib would raise.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from protembed.errors import ConfigError, OutputExistsError
from protembed.inputs import STANDARD_STREAM


def refuse_stdout(output: Path) -> None:
    """Refuse `-` where a directory is to be made.

    Raises:
        ConfigError: it is `-`.
    """
    if output == STANDARD_STREAM:
        raise ConfigError("--output", str(output), "a directory is expected")


def refuse_existing(output: Path, *, force: bool) -> None:
    """Refuse to replace a result that does not say which command made it, unless that is wanted.

    Raises:
        OutputExistsError: something stands there.
    """
    if output != STANDARD_STREAM and os.path.exists(output) and not force:
        raise OutputExistsError(output, "may be another result")


def refuse_stranger(path: Path, marker: str) -> None:
    """Refuse to replace a file or directory that is no result of ours, whatever `--force` says.

    Args:
        path: where a directory is to be made; nothing, or an empty directory, may stand there.
        marker: the file by which our own results are known.

    Raises:
        OutputExistsError: something else stands there.
    """
    is_empty = os.path.isdir(path) and not any(path.iterdir())
    if os.path.exists(path) and not is_empty and not os.path.exists(path / marker):
        raise OutputExistsError(path, f"holds no {marker}: it is something else", is_ours=False)


def refuse_input(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write over what is read, whatever `--force` says.

    Args:
        output: where a result is to go; `-` is stdout.
        inputs: what is read: files, directories, `-`.

    Raises:
        OutputExistsError: the output is one of the inputs, or lies in one that is a directory.
    """
    for path in inputs:
        is_file = STANDARD_STREAM not in (path, output) and os.path.exists(path)
        if is_file and output.resolve().is_relative_to(path.resolve()):
            raise OutputExistsError(output, "is read by this command", is_ours=False)
