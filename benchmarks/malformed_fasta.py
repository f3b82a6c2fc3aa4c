"""How tools handle FASTA files that are damaged, of another format, or unusual.

    apt-get install mmseqs2 diamond-aligner seqkit hmmer
    python benchmarks/malformed_fasta.py [examples/proteins.fasta] [--proteins 40]

Each file is passed to `protembed embed --dry-run`, `mmseqs createdb`, `diamond makedb`, `seqkit stats` and `phmmer`;
tools that are not installed are skipped. A cell has the number of sequences read, the difference in residues from the
intact file, and whether the tool warned; or the exit status with which it rejected the file.
"""

import argparse
import bz2
import datetime
import gzip
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from Bio import bgzf

from protembed.data.fasta import Record, read_fasta

WARNING = re.compile(r"warn|err|invalid|fail|corrupt|truncat|unexpected|cannot|could not|not (found|readable)", re.I)
AS_OTHER_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@dataclass(frozen=True)
class Case:
    """A malformed input.

    Attributes:
        content: The bytes of the file; None for a path that is no file.
        num_proteins: The number of proteins of an intact file; None for a damaged one.
        num_residues: The number of residues of an intact file; None for a damaged one.
    """

    name: str
    content: bytes | None
    num_proteins: int | None = None
    num_residues: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a tool on an input."""

    status: int
    warned: bool
    num_sequences: int | None
    num_residues: int | None


# Inputs


def as_fasta(records: list[Record]) -> bytes:
    return "".join(f">{record.id}\n{record.sequence}\n" for record in records).encode()


def cut_blocks(content: bytes) -> bytes:
    """Compress to BGZF in four blocks, and omit the last one and the empty one that ends the file."""
    written = io.BytesIO()
    writer = bgzf.BgzfWriter(fileobj=written)
    quarter = len(content) // 4
    for number in range(3):
        writer.write(content[number * quarter : (number + 1) * quarter])
        writer.flush()
    return written.getvalue()


def flip(archive: bytes) -> bytes:
    """Flip a bit in the middle of an archive."""
    damaged = bytearray(archive)
    damaged[len(damaged) // 2] ^= 4
    return bytes(damaged)


def cases(records: list[Record]) -> Iterator[Case]:
    """Make the inputs from some proteins."""
    plain, num = as_fasta(records), (len(records), sum(len(record.sequence) for record in records))
    first, rest = as_fasta(records[:1]).decode(), as_fasta(records[1:]).decode()
    header, sequence = first.splitlines()

    def changed(name: str, text: str, *truth: int) -> Case:
        return Case(name, (text + rest).encode(), *truth)

    yield Case("(the plain file)", plain, *num)
    yield Case("gzip", gzip.compress(plain), *num)
    yield Case("bzip2", bz2.compress(plain), *num)
    yield Case("xz", lzma.compress(plain), *num)
    yield Case("gzip cut in half", gzip.compress(plain)[: len(gzip.compress(plain)) // 2])
    yield Case("gzip without its last byte", gzip.compress(plain)[:-1])
    yield Case("gzip with a flipped bit", flip(gzip.compress(plain)))
    yield Case("BGZF cut between blocks", cut_blocks(plain))
    yield Case("bzip2 cut in half", bz2.compress(plain)[: len(bz2.compress(plain)) // 2])
    yield Case("xz cut in half", lzma.compress(plain)[: len(lzma.compress(plain)) // 2])
    yield Case("xz with a flipped bit", flip(lzma.compress(plain)))
    yield Case("gzip in two members, no .gz in its name", gzip.compress(plain[:999]) + gzip.compress(plain[999:]), *num)
    yield Case("FASTQ", b"@read1\nACGT\n+\nIIII\n@read2\nACGT\n+\nIIII\n")
    yield Case("GenBank", b"LOCUS       SCU49845     5028 bp    DNA\nORIGIN\n        1 gatcctccat atacaacggt\n//\n")
    yield Case("an HTML page", b"<!DOCTYPE html>\n<html><body>504 Gateway Timeout</body></html>\n")
    yield Case("binary", bytes(range(256)) * 16)
    yield Case("UTF-16", plain.decode().encode("utf-16"))
    yield Case("empty", b"")
    yield changed("an empty sequence", f"{header}\n")
    yield changed("no identifier", f">\n{sequence}\n")
    yield changed("digits in a sequence", f"{header}\n{sequence[:9]}123{sequence[9:]}\n")
    yield changed("a header within a line", f"{header}\n{sequence}>glued\n{sequence}\n")
    yield changed("NUL bytes in a sequence", f"{header}\n{sequence[:9]}\0\0\0{sequence[12:]}\n")
    yield changed("a `#` comment line", f"{header}\n# CAREFULLY SELECTED\n{sequence}\n")
    yield changed("text before the first `>`", f"Proteins of interest\n{first}")
    yield Case("CR alone ends lines", plain.replace(b"\n", b"\r"), *num)
    yield Case("CRLF ends lines", plain.replace(b"\n", b"\r\n"), *num)
    yield Case("a byte-order mark", "\ufeff".encode() + plain, *num)
    yield Case("lower case", re.sub(rb"(?m)^[A-Z]+$", lambda line: line[0].lower(), plain), *num)
    yield changed("identifier `../../x`", f">../../x\n{sequence}\n", *num)
    yield Case("the same identifier twice", plain + first.encode(), num[0] + 1, num[1] + len(sequence))
    yield changed("J, O, U and a final `*`", f"{header}\n{sequence}JOU*\n", num[0], num[1] + 3)
    yield Case("a folder", None)
    yield Case("no permission", plain)
    yield Case("no such file", None)


def write_case(case: Case, folder: Path) -> Path:
    """Write an input to a folder."""
    path = folder / "proteins.fasta"
    if case.name == "a folder":
        path.mkdir()
    elif case.content is not None:
        # Most tools recognise compression by the file name.
        magic = {b"\x1f\x8b": ".gz", b"BZ": ".bz2", b"\xfd7": ".xz"}.get(case.content[:2], "")
        path = path if "no .gz" in case.name else path.with_name(path.name + magic)
        path.write_bytes(case.content)
    if case.name == "no permission":
        path.chmod(0)
    return path


# Tools


def counted(pattern: str, text: str) -> tuple[int, ...] | None:
    match = re.search(pattern, text)
    return tuple(int(number) for number in match.groups()) if match else None


def count_protembed(folder: Path, output: str) -> tuple[int, ...] | None:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    summary = json.loads(lines[0]) if lines else None
    return (summary["num_proteins"], summary["num_residues"]) if summary else None


def count_mmseqs(folder: Path, output: str) -> tuple[int, ...] | None:
    index = folder / "db.index"
    if not index.exists():
        return None
    # Each sequence ends with a newline and a NUL.
    lengths = [int(line.split("\t")[2]) - 2 for line in index.read_text().splitlines()]
    return len(lengths), sum(lengths)


def count_diamond(folder: Path, output: str) -> tuple[int, ...] | None:
    return counted(r"Database sequences\s+(\d+)\s+Database letters\s+(\d+)", output)


def count_seqkit(folder: Path, output: str) -> tuple[int, ...] | None:
    return counted(r"\n\S+\t\S+\t\S+\t(\d+)\t(\d+)", output)


def count_hmmer(folder: Path, output: str) -> tuple[int, ...] | None:
    return counted(r"Target sequences:\s+(\d+)\s+\((\d+) residues", output)


@dataclass(frozen=True)
class Tool:
    """A command that reads FASTA: its arguments, how to read its counts, and the command that prints its version."""

    name: str
    arguments: Callable[[Path, Path], list[str]]
    count: Callable[[Path, str], tuple[int, ...] | None]
    version: list[str]


PROTEMBED = [sys.executable, "-m", "protembed"]
TOOLS = [
    Tool(
        "protembed embed --dry-run",
        lambda fasta, out: [*PROTEMBED, "embed", str(fasta), "-o", str(out / "emb.npy"), "--dry-run", "--json"],
        count_protembed,
        [*PROTEMBED, "--version"],
    ),
    Tool(
        "mmseqs createdb",
        lambda fasta, out: ["mmseqs", "createdb", str(fasta), str(out / "db")],
        count_mmseqs,
        ["mmseqs", "version"],
    ),
    Tool(
        "diamond makedb",
        lambda fasta, out: ["diamond", "makedb", "--in", str(fasta), "-d", str(out / "db"), "--threads", "1"],
        count_diamond,
        ["diamond", "version"],
    ),
    Tool(
        "seqkit stats",
        lambda fasta, out: ["seqkit", "stats", "-T", str(fasta)],
        count_seqkit,
        ["seqkit", "version"],
    ),
    Tool(
        "phmmer",
        lambda fasta, out: ["phmmer", "--noali", "--cpu", "1", str(out / "query.fasta"), str(fasta)],
        count_hmmer,
        ["phmmer", "-h"],
    ),
]


def run(tool: Tool, case: Case, query: Record) -> Outcome:
    """Run a tool on an input in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="malformed-") as name:
        folder, out = Path(name), Path(name) / "out"
        out.mkdir()
        (out / "query.fasta").write_bytes(as_fasta([query]))
        for path in (folder, out):
            path.chmod(0o777)
        # The superuser can read every file.
        as_other_user = AS_OTHER_USER if case.name == "no permission" and os.geteuid() == 0 else []
        environment = {**os.environ, "HOME": name, "NO_COLOR": "1"}
        fasta = write_case(case, folder)
        done = subprocess.run(
            [*as_other_user, *tool.arguments(fasta, out)],
            capture_output=True,
            timeout=300,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        text = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        counts = tool.count(out, text) or (None, None)
        # The path of the folder must not count as a warning.
        warned = WARNING.search(text.replace(name, "")) is not None
        return Outcome(done.returncode, warned, *counts)


def cell(outcome: Outcome, case: Case) -> str:
    """Format a cell of the table."""
    if outcome.status < 0:
        return f"**crash** (signal {-outcome.status})"
    if outcome.status > 0:
        return f"error ({outcome.status})"
    warned = "warns" if outcome.warned else "silent"
    if outcome.num_sequences is None:
        return f"nothing, status 0, {warned}"
    read = f"{outcome.num_sequences} read"
    if case.num_residues is not None and outcome.num_residues is not None:
        if (outcome.num_sequences, outcome.num_residues) == (case.num_proteins, case.num_residues):
            return f"{read}: all"
        read += f", {outcome.num_residues - case.num_residues:+,} residues"
    return f"{read}, {warned}"


def first_version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"\d+(\.\d+)+\S*|\d+-\S+", done.stdout)
    return match[0] if match else "?"


def table(tools: list[Tool], inputs: list[Case], query: Record) -> Iterator[str]:
    """Run all tools on all inputs; yield a line of Markdown for each input."""
    yield "| input | " + " | ".join(f"`{tool.name}` {first_version(tool.version)}" for tool in tools) + " |"
    yield "|---" * (len(tools) + 1) + "|"
    for case in inputs:
        yield f"| {case.name} | " + " | ".join(cell(run(tool, case, query), case) for tool in tools) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path, nargs="?", default=Path("examples/proteins.fasta"))
    parser.add_argument("--proteins", type=int, default=40)
    options = parser.parse_args()

    records = list(islice(read_fasta([options.fasta]), options.proteins))
    tools = [
        tool
        for tool in TOOLS
        if tool.arguments(Path(), Path())[0] == sys.executable or shutil.which(tool.name.split()[0])
    ]
    print(f"{datetime.date.today():%d %B %Y}, {len(records)} proteins\n")
    for line in table(tools, list(cases(records)), records[0]):
        print(line, flush=True)


if __name__ == "__main__":
    main()
