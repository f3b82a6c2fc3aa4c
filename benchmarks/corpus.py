"""Speed and memory of building a corpus.

    python benchmarks/corpus.py FASTA [FASTA ...] [--clusters TSV] [--column cluster50]

Each corpus is built in a separate process, with a twentieth held out. Memory should hardly grow with the number of
proteins: pass files of different sizes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path, nargs="+")
    parser.add_argument("--clusters", type=Path)
    parser.add_argument("--column", default="cluster50")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.fasta[0], arguments.clusters, arguments.column)))
        return
    print("| FASTA | proteins | residues/s | seconds | of them reading | peak memory, MB |\n|---|---|---|---|---|---|")
    for fasta in arguments.fasta:
        clusters = ["--clusters", arguments.clusters, "--column", arguments.column] if arguments.clusters else []
        command = [sys.executable, __file__, "--measure", fasta, *clusters]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rate = row["residues"] / row["seconds"]
        seconds = f"{row['seconds']:.1f} | {row['reading']:.1f}"
        print(f"| {fasta.name} | {row['proteins']:,} | {rate:,.0f} | {seconds} | {row['peak'] / 1e6:.0f} |")


def measure(fasta: Path, clusters: Path | None, column: str) -> dict[str, float]:
    # Imported here: a child's peak memory is never below its parent's.
    from protembed.data.clusters import ClusterTable
    from protembed.data.fasta import read_fasta
    from protembed.pretraining.corpus import build_corpora, open_corpora

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table = None if clusters is None else ClusterTable(clusters, column)
        build_corpora(Path(folder) / "corpora", [fasta], [], clusters=table)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_OF_MAXRSS
        corpora = open_corpora(Path(folder) / "corpora")
        sets = [corpora.train, *corpora.valid]
    start = time.perf_counter()
    for _ in read_fasta([fasta]):
        pass
    return {
        "proteins": sum(map(len, sets)),
        "residues": sum(corpus.num_residues for corpus in sets),
        "seconds": seconds,
        "reading": time.perf_counter() - start,
        "peak": peak,
    }


if __name__ == "__main__":
    main()
