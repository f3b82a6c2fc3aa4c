"""What protembed promises, and which tests prove it. `python tests/test_promises.py` renews the README's table."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- promises: made by tests/test_promises.py -->\n", "<!-- end of promises -->\n"
PROMISES = {
    1: "SIGKILL at any moment of `pretrain`, `finetune` or `embed` costs one save interval at most; no final name is "
    "half-written; the next run leaves nothing stray",
    2: "a run that is taken up sees the same records and masks; on the same device and number of processes it ends "
    "with the same bits",
    3: "SIGINT, SIGTERM, SIGHUP and a scheduler's warnings (SIGUSR1, SIGUSR2, SIGXCPU) save and leave with their "
    "status, without a traceback; a second leaves at once",
    4: "a torn checkpoint is never loaded: the message names the file, and the one before it is used",
    5: "a full disk, a read-only folder, a write or rename that fails: the old result stays, status 1, one sentence",
    6: "NaN and infinity never reach a file that is kept",
    7: "two runs cannot share a directory; the lock of a dead one is taken over",
    8: "a run with changed settings or data is not taken up, and what changed is named",
    9: "the same seed, machine and threads give the same bytes",
    10: "a protein's embedding does not depend on its company; rows are in order; rows and listed failures add up to "
    "the records",
    11: "hidden states, logits, attentions and contacts equal those of transformers",
    12: "a truncated or damaged archive is an error with status 65 and no output, never a shorter data set; several "
    "members are read whole; content decides, not the name",
    13: "CRLF, CR, no final newline, blank lines, a byte-order mark and lower case change no vector",
    14: "empty, FASTQ, GenBank, HTML, binary, a folder, vanished, unreadable: a line, status 65 or 66; nucleotides are "
    "noticed",
    15: "every byte in a header or a sequence is taken as documented, or reported with record, line and column",
    16: "duplicate identifiers, headers of 10 kB, 100,000 tiny records, one of 100,000 residues",
    17: "identifiers never become paths, markup, formulas or terminal codes, in any format",
    18: "a model directory of a stranger runs nothing, reads nothing outside itself, and cannot fill the memory",
    19: "no network unless a hub model was named; no write outside the output, the cache and TMPDIR",
    20: "`| head` is quiet, a full stdout is status 1, control codes only on a terminal, NO_COLOR is honoured",
    21: "memory does not grow with the file",
    22: "out of memory on a device halves the batch; a protein that is too large alone is named",
    23: "the exit status is one of those that are documented, whatever fails",
    24: "readers, batches, crops, windows, masks, labels and configs hold for whatever hypothesis thinks of",
}


@dataclass(frozen=True)
class Proof:
    """A test, and the promise that it proves."""

    promise: int
    path: str
    name: str


@cache
def proofs() -> list[Proof]:
    """Find the marks `promise(n, ...)` of test functions, in the order of the promises and of the files."""
    found = [proof for path in sorted((ROOT / "tests").rglob("test_*.py")) for proof in _proofs_in(path)]
    return sorted(found, key=lambda proof: (proof.promise, proof.path))


def _proofs_in(path: Path) -> Iterator[Proof]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    for number in mark.args:
                        yield Proof(ast.literal_eval(number), path.relative_to(ROOT).as_posix(), node.name)


def table() -> str:
    """Spell promises and proofs in Markdown."""
    lines = ["| | promise | tests in |", "|---|---|---|"]
    for number, promise in PROMISES.items():
        files = Counter(proof.path for proof in proofs() if proof.promise == number)
        proven = ", ".join(f"[{Path(path).stem}]({path}) {num}" for path, num in files.items())
        lines.append(f"| {number} | {promise} | {proven} |")
    return "\n".join(lines) + "\n"


def readme_with(text: str) -> str:
    """Put a text between the marks of the README."""
    before, rest = (ROOT / "README.md").read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + text + END + rest.split(END)[1]


@pytest.mark.parametrize("number", PROMISES)
def test_every_promise_has_a_proof(number):
    assert any(proof.promise == number for proof in proofs())


def test_every_proof_is_of_a_promise():
    assert {proof.promise for proof in proofs()} <= set(PROMISES)


def test_the_table_of_the_readme_is_that_of_the_tests():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme_with(table())


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme_with(table()), encoding="utf-8")
