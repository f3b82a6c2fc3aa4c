"""The words of protembed: what is called by another name in the field is not written anywhere."""

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PLACES = ("protembed", "tests", "docs", "examples", "README.md", "CHANGELOG.md")
SUFFIXES = (".py", ".md", ".html", ".js", ".css", ".slurm", ".yml", "")

# What is struck, and the word for it.
STRUCK = {
    r"anew": "again",
    r"answers?|answered": "label, target",
    r"bands?": "subgroup",
    r"beside chance": "beside that of random pairs",
    r"clim(b|bs|bed|bing)": "experiment",
    r"company": "other sequences in the batch",
    r"hidden": "masked",
    r"homes": "split, module",
    r"in the box": "bundled",
    r"knowing nothing": "uniform",
    r"ladders?": "comparison",
    r"nobody|whoever": "the user, the caller",
    r"of ours": "protembed's",
    r"as it stands|stands? there": "is",
    r"packs?|packing": "batch, micro-batch",
    r"reckon(s|ed)?": "estimate",
    r"refuse_\w+": "check_…",
    r"rungs?": "baseline",
    r"spell(s|ed|ing)?": "format",
    r"strangers?|strange": "untrusted, unrecognised",
    r"stretch(es)?": "window, segment",
    r"take(s|n)? up|took up|goes on|go on": "resume",
    r"takes? in|taken in": "add, collect",
    r"that is so now": "",
    r"tells?|told|telling": "report, show, describe",
    r"torn": "incomplete, corrupted",
    r"wanted": "requested",
    r"watchers?": "callbacks",
    r"weigh(s|ed|ing)?": "evaluate, weight",
}

# Where a struck word is the right one: a pattern of the file, a pattern of the line, and the reason.
ALLOWED = [
    (r"tests/test_words\.py", r".*", "the list itself"),
]


def files():
    names = subprocess.run(["git", "ls-files", *PLACES], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        is_data = re.search(r"fixtures/|/hostile/|bundled/", name)
        if Path(name).suffix in SUFFIXES and not is_data:
            yield name


def is_allowed(name, line):
    return any(re.fullmatch(file, name) and re.search(pattern, line, re.IGNORECASE) for file, pattern, _ in ALLOWED)


@pytest.mark.parametrize("struck", STRUCK)
def test_struck_words_are_not_written(struck):
    word = re.compile(rf"(?<![\w-])_?({struck})(?![\w])", re.IGNORECASE)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in files()
        for number, line in enumerate((TOP / name).read_text(encoding="utf-8").splitlines(), start=1)
        if word.search(line.replace("_", " ") if name.endswith(".py") else line) and not is_allowed(name, line)
    ]

    assert found == [], f"write {STRUCK[struck]!r}"
