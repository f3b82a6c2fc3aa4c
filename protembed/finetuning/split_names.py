"""Names of splits, as tables and tools write them, and the choice among several test sets."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

Split = Literal["train", "valid", "test"]

_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing", "holdout", "heldout"),
}
# Names of splits whose labels are not known, because they are to be predicted.
_UNLABELLED = ("pred", "predict", "prediction")
_SPLITS = {name: split for split, names in _NAMES.items() for name in names}
# Further test sets, such as `test2` and `test_ood`.
_FURTHER_TEST = re.compile(r"test(\d+|[\s_.-]+\w[\w\s.-]*)")
_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
# The test set that is evaluated if there are several.
_FIRST_TEST_SETS = ("test", "testing")


def parse_split(cell: str) -> Split | None:
    """Read the name of a split, in any case; None if it is unknown.

    >>> parse_split("Training"), parse_split("test_2"), parse_split("hold-out"), parse_split("pred")
    ('train', 'test', 'test', None)
    """
    name = cell.lower()
    split = _SPLITS.get(_BETWEEN_WORDS.sub("", name))
    return "test" if split is None and _FURTHER_TEST.fullmatch(name) else split


def is_unlabelled(cell: str) -> bool:
    """Return whether a cell names the split of proteins that are to be predicted.

    >>> is_unlabelled("pred"), is_unlabelled("test")
    (True, False)
    """
    return cell.lower() in _UNLABELLED


def choose_test_set(names: Iterable[str], chosen: str | None) -> tuple[str | None, Counter[str]]:
    """Choose the test set that is evaluated: the one that the user named, else `test`, else the first.

    Args:
        names: Name of the test set of each test protein, in any case.
        chosen: Name that the user gave; None if the user gave none.

    Returns:
        The name in lower case, None if there is no such test set; and the number of proteins of each.

    >>> choose_test_set(["holdout", "Test", "test"], None)
    ('test', Counter({'test': 2, 'holdout': 1}))
    """
    counts = Counter(name.lower() for name in names)
    if chosen is not None:
        return (chosen.lower() if chosen.lower() in counts else None), counts
    return next((name for name in (*_FIRST_TEST_SETS, *counts) if name in counts), None), counts
