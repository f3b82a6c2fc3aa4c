"""Paths as they are given: texts become paths, `~` a home folder, and a link leads to its target."""

import os
from collections.abc import Iterable
from pathlib import Path

from protembed.errors import ConfigError

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
