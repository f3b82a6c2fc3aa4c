"""The words of protembed: what is called by another name in the field is not written anywhere."""

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PLACES = ("protembed", "tests", "docs", "examples", "benchmarks", "README.md", "CHANGELOG.md")
SUFFIXES = (".py", ".md", ".html", ".js", ".css", ".slurm", ".nf", ".yml", "")

# What is struck, and the word for it.
STRUCK = {
    r"anew": "again",
    r"answers?|answered": "label, target",
    r"bands?": "subgroup",
    r"beside chance": "beside that of random pairs",
    r"clim(b|bs|bed|bing)": "experiment",
    r"company": "other sequences in the batch",
    r"hid(e|es|ing)|hidden (residues?|amino|tokens?|positions?|proteins?)": "mask, masked",
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

# Where a struck word is the right one: the files, what the line holds, and why.
ALLOWED = [
    (r"tests/test_words\.py", r"", "the list itself"),
    (r"CHANGELOG\.md", r"→", "names before they were renamed"),
    (r"protembed/io/fingerprint\.py", r'^ {4}"\w+": "\w+",$', "former names of options, which old files hold"),
    (r".*/(test_)?(comparison|finetune|report)\.py", r"[\"`](ladder|rungs)[\"`]", "keys of older metrics.json"),
    (r"protembed/(model|inference)/.*|protembed/(attention/maps|training/objective)\.py", r"hidden", "hidden states"),
    (r"tests/(model|inference|training|embedding)/.*|docs/python\.md", r"(?i)hidden", "hidden states of an encoder"),
    (r"benchmarks/(embed\w*|gpu|grow_heads)\.py", r"hidden", "hidden states of an encoder"),
    (r"(protembed|tests)/finetuning/.*", r"(?i)hidden", "the hidden layer of a network"),
    (r".*", r"hidden states?|hidden layers?|\"(num_)?hidden_\w+\"", "states and layers of a network"),
    (r"protembed/report/templates/.*|tests/test_readme\.py", r"hidden", "an attribute of HTML and of click"),
    (r"(protembed|tests)/io/(test_)?workbooks\.py|docs/formats\.md", r"hidden", "hidden rows of a spreadsheet"),
    (r"tests/data/test_structures\.py", r"\.hidden\.pdb", "a file whose name begins with a dot"),
    (r".*\.py", r"struct\.pack|\.tell\(\)", "functions of Python"),
]


def files():
    names = subprocess.run(["git", "ls-files", *PLACES], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        is_data = re.search(r"fixtures/|/hostile/|bundled/|gallery/.*\.html", name)
        if Path(name).suffix in SUFFIXES and not is_data:
            yield name


def is_allowed(name, line):
    return any(re.fullmatch(file, name) and re.search(pattern, line) for file, pattern, _ in ALLOWED)


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
