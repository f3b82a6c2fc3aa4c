"""Time and peak memory of `protembed embed` against the size of the input, threads and shards.

    python benchmarks/scaling.py number [--numbers 1000 10000 100000 1000000] [--residues 30] [--suffix .npy]
    python benchmarks/scaling.py length [--model protembed_t6_8M] [--lengths 350 1000 3500 10000 35000]
    python benchmarks/scaling.py threads [--model protembed_t6_8M] [--fasta examples/proteins.fasta] [--rounds 3]
    python benchmarks/scaling.py shards [--model protembed_t6_8M] [--fasta examples/proteins.fasta] [--shards 1 2 4 8]

Each line is a whole process, from its start to its end. The default model is a random one of one layer of width 16, so
that almost all of the time is protembed's: reading, batching, pooling and writing. For `number` and `length` the
proteins are random. Shards run one after the other, each with all threads, as if on computers of their own; the joined
result is compared with that of a single run, byte for byte. The peak is that of the process itself, from the kernel
(VmHWM); the private part is without the pages of mapped files, which the system may drop.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from processes import Usage, run_measured
from protembed.config.model_sizes import ESM2Shape
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import read_fasta
from protembed.model.checkpoint import new_checkpoint, save_checkpoint
from roofline import machine

TINY = ESM2Shape(num_layers=1, dim=16, num_heads=1)
PROTEINS_AT_ONCE = 10_000

Row = dict[str, str | int | float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("--model", default="tiny", help="a name or directory, as for protembed; or tiny, a random one")
    parser.add_argument("--suffix", default=".npy", choices=[".npy", ".npz", ".h5"])
    parser.add_argument("--numbers", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--residues", type=int, default=30, help="residues of each protein, for `number`")
    parser.add_argument("--lengths", type=int, nargs="+", default=[350, 1_000, 3_500, 10_000, 35_000])
    parser.add_argument("--longest-pass", type=int, default=10_000, help="the longest protein computed in one pass")
    parser.add_argument("--fasta", type=Path, default=Path("examples/proteins.fasta"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=1, help="runs of each line of `threads`, in turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model == "tiny":
            options.model = folder / "tiny"
            save_checkpoint(new_checkpoint(TINY, "gaussian", seed=0), options.model, "# random\n")
        rows = list(shown(AXES[options.axis](options, folder)))
    if options.json:
        results = {"axis": options.axis, "machine": machine(["torch"]), "rows": rows}
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def shown(rows: Iterable[Row]) -> Iterator[Row]:
    """Print rows as lines of a table while they are measured, and yield them."""
    for number, row in enumerate(rows):
        if number == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = (value if isinstance(value, str) else format_number(value) for value in row.values())
        print(f"| {' | '.join(cells)} |", flush=True)
        yield row


def format_number(value: int | float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


# Axes


def number(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Embed more and more proteins of the same length."""
    for num_proteins in options.numbers:
        fasta = folder / "proteins.fasta"
        write_random(fasta, num_proteins, options.residues)
        usage = embed(options, fasta, folder / f"all{options.suffix}")
        size = sum(path.stat().st_size for path in folder.glob("all*") if path.is_file())
        speed = num_proteins / usage.seconds
        yield {"proteins": num_proteins, **columns(usage), "proteins/s": round(speed), "result, MB": size / 1e6}


def length(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Embed one protein after the other, in the model's windows and in one pass."""
    for num_residues in options.lengths:
        fasta = folder / "protein.fasta"
        write_random(fasta, 1, num_residues)
        windows = columns(embed(options, fasta, folder / "windows.npy"))
        row: Row = {"residues": num_residues, **{f"in windows: {name}": value for name, value in windows.items()}}
        one_pass = dict.fromkeys((f"in one pass: {name}" for name in windows), "")
        if num_residues <= options.longest_pass:
            usage = embed(options, fasta, folder / "pass.npy", "--window-residues", num_residues)
            one_pass = dict(zip(one_pass, columns(usage).values(), strict=True))
        yield row | one_pass


def threads(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Embed the same proteins with more and more threads, in turn."""
    num_residues = sum(len(record.sequence) for record in read_fasta([options.fasta]))
    usages: dict[int, list[Usage]] = {num_threads: [] for num_threads in options.threads}
    for _ in range(options.rounds):
        for num_threads, runs in usages.items():
            runs.append(embed(options, options.fasta, folder / "all.npy", num_threads=num_threads))
    slowest = statistics.median(usage.seconds for usage in usages[options.threads[0]])
    for num_threads, runs in usages.items():
        middle = sorted(runs, key=lambda usage: usage.seconds)[len(runs) // 2]
        yield {
            "threads": num_threads,
            **columns(middle),
            "residues/s": round(num_residues / middle.seconds),
            "faster by": f"{slowest / middle.seconds:.2f}",
        }


def shards(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Embed the same proteins in more and more shards, and join them."""
    embed(options, options.fasta, folder / "single.npy")
    for num_shards in options.shards:
        output = folder / f"{num_shards}.npy"
        paths = [output.with_suffix(f".{shard}.npy") for shard in range(1, num_shards + 1)]
        parts = [
            embed(options, options.fasta, path, "--shard", f"{shard}/{num_shards}")
            for shard, path in enumerate(paths, start=1)
        ]
        joined = run_measured([sys.executable, "-m", "protembed", "join", *paths, "-o", output, "--quiet"])
        assert output.read_bytes() == (folder / "single.npy").read_bytes()
        yield {
            "shards": num_shards,
            "longest, seconds": max(part.seconds for part in parts),
            "all, seconds": sum(part.seconds for part in parts),
            "all, CPU seconds": sum(part.cpu_seconds for part in parts),
            "highest peak, MB": round(max(part.peak_bytes for part in parts) / 1e6),
            "join, seconds": joined.seconds,
            "join, peak, MB": round(joined.peak_bytes / 1e6),
        }


AXES = {"number": number, "length": length, "threads": threads, "shards": shards}


# Runs


def embed(
    options: argparse.Namespace, fasta: Path, output: Path, *words: object, num_threads: int | None = None
) -> Usage:
    command = [sys.executable, "-m", "protembed", "embed", fasta, "-m", options.model, "-o", output, *words]
    command += ["--threads", num_threads or max(options.threads), "--device", "cpu", "--quiet", "--force"]
    return run_measured(command)


def columns(usage: Usage) -> Row:
    return {
        "seconds": usage.seconds,
        "CPU seconds": usage.cpu_seconds,
        "peak, MB": round(usage.peak_bytes / 1e6),
        "of it private, MB": round(usage.private_bytes / 1e6),
    }


def write_random(path: Path, num_proteins: int, num_residues: int) -> None:
    """Write random proteins of the 20 amino acids; with the same seed each time, so that more begin with the same."""
    letters, rng = np.frombuffer(AMINO_ACIDS.encode(), dtype=np.uint8), np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, num_proteins, PROTEINS_AT_ONCE):
            num = min(PROTEINS_AT_ONCE, num_proteins - start)
            sequences = letters[rng.integers(len(letters), size=(num, num_residues))]
            stream.writelines(
                f">protein_{start + row:07d}\n{sequence.tobytes().decode()}\n" for row, sequence in enumerate(sequences)
            )


if __name__ == "__main__":
    main()
