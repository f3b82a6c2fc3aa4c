"""What protembed promises, and which tests prove it. `python tests/test_promises.py` renews the table in docs."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARANTEES = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- promises: made by tests/test_promises.py -->\n", "<!-- end of promises -->\n"
PROMISES = {
    1: "SIGKILL at any moment of `pretrain`, `finetune`, `embed` or `score` of FASTA costs at most one save interval; "
    "no file under its final name is incomplete; the next run removes what was left",
    2: "a resumed run sees the same records and masks; on the same device and number of processes it ends with the "
    "same bits",
    3: "SIGINT, SIGTERM, SIGHUP and the warnings of schedulers (SIGUSR1, SIGUSR2, SIGXCPU) save and exit with their "
    "status, without a traceback; a second signal exits at once",
    4: "an incomplete checkpoint is never loaded: the message names the file, and the checkpoint before it is used",
    5: "after a full disk, a read-only folder, or a write or rename that fails, the previous result is intact; the "
    "status is 1 and the message one sentence",
    6: "NaN and infinity never reach a file that is kept",
    7: "two runs cannot share a directory; the lock of a dead process is released",
    8: "a run is not resumed with changed settings or data, and the message names what changed",
    9: "the same seed, machine and threads give the same bytes",
    10: "a protein's embedding does not depend on the other sequences in the batch; rows are in order; rows and listed "
    "failures add up to the records",
    11: "hidden states, logits, attentions and contacts equal those of transformers",
    12: "a truncated or damaged archive is an error with status 65 and no output, never a shorter data set; archives "
    "of several members are read whole; the content decides the format, not the name",
    13: "CRLF, CR, no final newline, blank lines, a byte-order mark and lower case change no vector",
    14: "empty files, FASTQ, GenBank, HTML, binary files, folders, and missing or unreadable files are errors of one "
    "line with status 65 or 66; nucleotides cause a warning",
    15: "every byte in a header or a sequence is read as documented, or reported with record, line and column",
    16: "duplicate identifiers, headers of 10 kB, 100,000 tiny records and one record of 100,000 residues are handled",
    17: "identifiers never become paths, markup, formulas or terminal codes, in any format",
    18: "an untrusted model directory executes nothing, reads nothing outside itself, and cannot fill the memory",
    19: "there is no network access unless a hub model was named, and no write outside the output, the cache and "
    "TMPDIR",
    20: "`| head` ends quietly, a full stdout is status 1, control codes go to terminals only, and NO_COLOR is "
    "honoured",
    21: "memory does not grow with the file",
    22: "when a device runs out of memory the batch is halved; a protein that is too large by itself is named",
    23: "the exit status is always one of those that are documented",
    24: "readers, batches, crops, windows, masks, labels and configs are property-tested with Hypothesis",
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
    """Format promises and the files that prove them as a table in Markdown."""
    lines = ["| | promise | tests |", "|---|---|---|"]
    for number, promise in PROMISES.items():
        paths = dict.fromkeys(proof.path for proof in proofs() if proof.promise == number)
        links = ", ".join(f"[{Path(path).stem}](../{path})" for path in paths)
        lines.append(f"| {number} | {promise} | {links} |")
    return "\n".join(lines) + "\n"


def guarantees_with(text: str) -> str:
    """Put a text between the marks of the page of guarantees."""
    before, rest = GUARANTEES.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + text + END + rest.split(END)[1]


@pytest.mark.parametrize("number", PROMISES)
def test_every_promise_has_a_proof(number):
    assert any(proof.promise == number for proof in proofs())


def test_every_proof_is_of_a_promise():
    assert {proof.promise for proof in proofs()} <= set(PROMISES)


def test_the_page_of_guarantees_has_the_table_of_the_tests():
    assert GUARANTEES.read_text(encoding="utf-8") == guarantees_with(table())


if __name__ == "__main__":
    GUARANTEES.write_text(guarantees_with(table()), encoding="utf-8")
