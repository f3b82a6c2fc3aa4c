"""Measure `protembed score`: whole processes that alternate, and the number of residues in a second.

Pseudo-log-likelihoods against a typical script with transformers, and a scan against one mutation of each position:

    python benchmarks/score.py likelihoods proteins.fasta --num-proteins 1000 --rounds 1 [--precision bfloat16]
    python benchmarks/score.py scan protein.fasta --rounds 5
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import read_fasta
from protembed.model.catalog import locate_model

_SCRIPT = Path(__file__).with_name("score_script.py")


def alternate(commands: Mapping[str, Sequence[object]], rounds: int, threads: int) -> dict[str, list[float]]:
    """Run commands in turn, and return the seconds of each; every second round begins with the last one."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in sorted(commands, reverse=number % 2 == 1):
            began = time.monotonic()
            subprocess.run([*map(str, commands[name])], check=True, env=environment, stderr=subprocess.DEVNULL)
            seconds[name].append(time.monotonic() - began)
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def protembed_score(*words: object) -> list[object]:
    """Return the command line of `protembed score`."""
    return [sys.executable, "-m", "protembed", "score", *words, "--force"]


def read_scores(path: Path, id_column: int, column: int) -> dict[str, float]:
    """Read the scores of a TSV by their identifiers, without comments and header."""
    with path.open() as stream:
        rows = [row for row in csv.reader(stream, delimiter="\t") if not row[0].startswith("# ")]
    return {row[id_column]: float(row[column]) for row in rows if row[id_column] != "id"}


def measure_likelihoods(options: argparse.Namespace, folder: Path) -> None:
    """Compare the pseudo-log-likelihoods of some proteins with those of the script, and print the speed of both."""
    low, high = options.residues
    fitting = (record for record in read_fasta([options.fasta]) if low <= len(record.sequence) <= high)
    records = list(islice(fitting, options.num_proteins))
    fasta, model = folder / "some.fasta", locate_model(options.model).directory
    fasta.write_text("".join(f">{row}\n{record.sequence}\n" for row, record in enumerate(records)))
    common = [model, fasta, folder / "script.tsv", options.batch_size]
    settings = ["--threads", options.threads, "--precision", options.precision]
    ours = protembed_score(fasta, "-m", model, "-o", folder / "ours.tsv", *settings)
    commands = {"protembed": ours, "script": [sys.executable, _SCRIPT, *common]}
    seconds = alternate(commands, options.rounds, options.threads)
    scores = read_scores(folder / "ours.tsv", 0, 2), read_scores(folder / "script.tsv", 0, 1)
    largest = max(abs(scores[0][name] - scores[1][name]) for name in scores[0])
    num_residues = sum(len(record.sequence) for record in records)
    print(f"{len(records):,} proteins, {num_residues:,} residues; largest difference {largest:.1e}")
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values):.1f} s, {num_residues / statistics.median(values):,.0f}/s")
    ratios = [script / ours for ours, script in zip(seconds["protembed"], seconds["script"], strict=True)]
    print(f"protembed is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


def measure_scan(options: argparse.Namespace, folder: Path) -> None:
    """Compare a scan of the first protein with scoring one mutation of each position."""
    record = next(read_fasta([options.fasta]))
    fasta, table = folder / "protein.fasta", folder / "one.csv"
    fasta.write_text(f">{record.id}\n{record.sequence}\n")
    mutants = [
        f"{letter}{position}{next(other for other in AMINO_ACIDS if other != letter)}"
        for position, letter in enumerate(record.sequence, start=1)
        if letter in AMINO_ACIDS
    ]
    table.write_text("mutant\n" + "".join(f"{mutant}\n" for mutant in mutants))
    common = ["-m", locate_model(options.model).directory, "--threads", options.threads]
    commands = {
        "one mutation": protembed_score(table, "--wild-type", fasta, *common, "-o", folder / "one.tsv"),
        "scan": protembed_score(fasta, "--scan", *common, "-o", folder / "all.scan"),
    }
    seconds = alternate(commands, options.rounds, options.threads)
    ratios = [scan / one for one, scan in zip(seconds["one mutation"], seconds["scan"], strict=True)]
    print(
        f"{len(mutants):,} positions: a scan takes {statistics.median(ratios):.2f} times as long as one mutation each"
    )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["likelihoods", "scan"])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--model", type=Path, help="a model directory; the bundled model by default")
    parser.add_argument("--num-proteins", type=int, default=1000)
    parser.add_argument("--residues", type=int, nargs=2, default=(80, 120), help="shortest and longest protein")
    parser.add_argument("--batch-size", type=int, default=32, help="masked copies in a batch of the script")
    parser.add_argument("--precision", default="float32", help="of likelihoods by protembed; the script has float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        {"likelihoods": measure_likelihoods, "scan": measure_scan}[options.what](options, Path(name))


if __name__ == "__main__":
    main()
