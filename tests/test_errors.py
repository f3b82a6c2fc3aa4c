import pickle
import re
from pathlib import Path

import pytest

from protembed import errors
from protembed.errors import (
    DamagedRunError,
    DataError,
    DivergedError,
    HubError,
    IllegalResidueError,
    InputError,
    InputNotFoundError,
    InsufficientResourcesError,
    NotEnoughMemoryError,
    NotFinetunedError,
    PeerProcessError,
    ProtembedError,
    ResourceError,
    RunError,
    RunInUseError,
    RunMismatchError,
    TableError,
    TooLongForMemoryError,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ProtembedError)]


def subclasses_of(family):
    """List the errors of a family."""
    return {error for error in CLASSES if issubclass(error, family)} - {family}


def listed_errors():
    """Read the tree in the docstring: for each error its parent and its exit status, None where it is inherited."""
    parents, listed = {}, {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+Error) +(\d+)?", line):
            depth = len(match[1]) // 4
            parents[depth] = match[2]
            listed[match[2]] = (parents.get(depth - 1), match[3] and int(match[3]))
    return listed


def test_the_docstring_lists_every_error_with_its_parent_and_exit_status():
    listed = listed_errors()

    assert list(listed) == [error.__name__ for error in CLASSES]
    for error in CLASSES[1:]:
        parent, exit_status = listed[error.__name__]
        assert error.__base__.__name__ == parent
        assert exit_status in (error.exit_status, None)
        assert exit_status is not None or error.exit_status == error.__base__.exit_status


@pytest.mark.parametrize(
    ("family", "members"),
    [
        (InputError, {InputNotFoundError, NotFinetunedError, HubError, DataError, *subclasses_of(DataError)}),
        (RunError, {RunMismatchError, RunInUseError, DamagedRunError, PeerProcessError, DivergedError}),
        (ResourceError, {NotEnoughMemoryError, InsufficientResourcesError, TooLongForMemoryError}),
    ],
)
def test_errors_of_a_family_can_be_caught_together(family, members):
    assert subclasses_of(family) == members


def test_an_input_error_says_what_was_found_where_and_what_to_do():
    assert str(InputError("x.csv", "it is empty", "remove it")) == "x.csv: it is empty; remove it"
    assert str(InputError("x.csv", "it is empty", "remove it", line=3)) == "x.csv, line 3: it is empty; remove it"
    assert str(InputError(None, "there is none", "give one")) == "there is none; give one"


@pytest.mark.parametrize(
    "error",
    [
        TableError("x.csv", "it is empty", "remove it", line=3),
        IllegalResidueError("x.fasta", 3, "p1", 8, "1"),
        RunInUseError(Path("x.run"), "process 7"),
    ],
)
def test_errors_survive_the_way_between_processes(error):
    copied = pickle.loads(pickle.dumps(error))

    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
