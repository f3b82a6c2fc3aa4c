"""Stress test: embed 100,000 proteins in one process, and watch memory, open files and every row of the result.

    python benchmarks/stress.py proteins.fasta.gz [--model DIRECTORY] [--proteins 100000] [--residues 200] [--threads 2]

The proteins are those of the FASTA file, cut to --residues residues, under new identifiers. If the file is read more
than once, they are cut at another start each time, so that few are identical. The default model is a random t4_1M.
Afterwards every line of the table of identifiers is compared with its protein by row, identifier, residues and hash,
and the vectors of 500 proteins are recomputed.
"""

import argparse
import csv
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from protembed.callbacks import Callbacks
from protembed.config.common import InferenceDeviceConfig, ModelConfig
from protembed.config.embed import CheckConfig, CheckOptions, EmbedConfig, EmbedOptions
from protembed.config.model_sizes import SIZES
from protembed.data.fasta import read_fasta
from protembed.embedding.check import check_embeddings
from protembed.embedding.embed import embed_fasta
from protembed.embedding.metadata import IDS
from protembed.io.result import sidecar
from protembed.model.checkpoint import new_checkpoint, save_checkpoint

NUM_LINES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--proteins", type=int, default=100_000)
    parser.add_argument("--residues", type=int, default=200)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or random_model(folder / "random_t4_1M")
        fasta, output = folder / "stress.fasta", folder / "stress.npy"
        write(fasta, renamed(arguments.fasta, arguments.residues), arguments.proteins)
        watch = Watch(arguments.proteins)
        compute = InferenceDeviceConfig(threads=arguments.threads)
        config = ModelConfig(model=model)
        summary = embed_fasta(
            [fasta],
            EmbedOptions(model=config, embedding=EmbedConfig(output=output), compute=compute),
            Callbacks(on_progress=watch.advance),
        )
        watch.print_table()
        check_rows(fasta, output, summary.num_proteins, arguments.proteins)
        checked = check_embeddings(
            [output, fasta], CheckOptions(model=config, check=CheckConfig(sample_size=500), compute=compute)
        )
        print(
            f"\nrows: {summary.num_proteins:,} of {arguments.proteins:,}, in order, each with the hash of its sequence"
        )
        print(f"recomputed: {checked.num_recomputed}, worst difference {checked.worst_difference:.1g}")
        print(f"files in the folder: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def random_model(directory: Path) -> Path:
    save_checkpoint(new_checkpoint(SIZES["t4_1M"], "gaussian", seed=0), directory, "# random\n")
    return directory


def renamed(fasta: Path, num_residues: int) -> Iterator[tuple[str, str]]:
    """Yield the proteins of a file, cut and under new identifiers, as often as needed."""
    row = 0
    for start in range(0, 10**6, num_residues // 4):
        for record in read_fasta([fasta]):
            piece = record.sequence[start : start + num_residues] or record.sequence[:num_residues]
            yield f"stress_{row:06d}", piece
            row += 1


def write(path: Path, proteins: Iterator[tuple[str, str]], num_proteins: int) -> None:
    with path.open("w") as stream:
        for _ in range(num_proteins):
            name, sequence = next(proteins)
            stream.write(f">{name}\n{sequence}\n")


class Watch:
    """Records time, memory and open files at regular intervals."""

    def __init__(self, num_proteins: int) -> None:
        self.every, self.began = max(1, num_proteins // NUM_LINES), time.perf_counter()
        self.num_proteins = self.num_residues = 0
        self.lines: list[tuple[int, float, int, float, float, int]] = []

    def advance(self, num_residues: int) -> None:
        self.num_proteins += 1
        self.num_residues += num_residues
        if self.num_proteins % self.every == 0:
            seconds = time.perf_counter() - self.began
            rate = self.num_residues / seconds
            self.lines.append((self.num_proteins, seconds, int(rate), resident(), peak(), open_files()))

    def print_table(self) -> None:
        print("| proteins | seconds | residues/s | resident, MB | peak, MB | open files |\n|---|---|---|---|---|---|")
        for proteins, seconds, rate, current, highest, files in self.lines:
            print(f"| {proteins:,} | {seconds:,.0f} | {rate:,} | {current:.0f} | {highest:.0f} | {files} |")


def resident() -> float:
    """Return the resident memory of this process in megabytes (Linux)."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * os.sysconf("SC_PAGESIZE") / 2**20


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def check_rows(fasta: Path, output: Path, num_rows: int, num_expected: int) -> None:
    """Compare the table of identifiers, line by line, with the proteins that were embedded."""
    vectors = np.load(output, mmap_mode="r")
    assert len(vectors) == num_rows == num_expected
    assert np.isfinite(vectors).all()
    with sidecar(output, IDS).open(newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t")
        for record, line in zip(read_fasta([fasta]), table, strict=True):
            row = (line["row"], line["id"], line["residues"], line["sha256"])
            digest = hashlib.sha256(record.sequence.encode()).hexdigest()
            assert row == (str(record.row), record.id, str(len(record.sequence)), digest), line


if __name__ == "__main__":
    main()
