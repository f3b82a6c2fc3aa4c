"""Nearest neighbours: time and memory of `protembed search` beside scikit-learn and faiss, and what neighbours say.

    python benchmarks/search.py speed [--rows 100000] [--dim 320] [-k 10] [--threads 2] [--rounds 3]
    python benchmarks/search.py memory [--rows 10000 100000 300000] [--queries 2000]
    python benchmarks/search.py transfer labels.csv [--model MODEL] [--finetuned predictions.tsv]
    python benchmarks/search.py relatives proteins.fasta clusters.tsv [--model MODEL] [--queries 2000] [--others 8000]

`speed` searches all of a random data set in all, by cosine, in a separate process for each arm, in turn; vectors have a
part in common, as those of a model have. The time is that of the search alone, after all imports: protembed reads its
vectors from disk and writes the table of hits, the others search in memory and write nothing. `memory` prints the peak
memory of whole `protembed search` processes. `transfer` takes the train split of a table as the database and the test
split as queries, and compares accuracy (macro F1 of several labels) with the nearest protein by k-mers on the same
proteins, and with a table of predictions that `finetune --method frozen` made of the same split. `relatives` counts how
often the nearest hit is a remote relative, of the queries and database that `homology_search.py` draws, beside 3-mers.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bootstrap import bootstrap_interval

Vectors = NDArray[np.float32]
Found = tuple[float, NDArray[np.int64]]
_BLOCK = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    speed, memory, arm = (parts.add_parser(name) for name in ("speed", "memory", "arm"))
    transfer, relatives = (parts.add_parser(name) for name in ("transfer", "relatives"))
    speed.add_argument("--rows", type=int, default=100_000)
    speed.add_argument("--rounds", type=int, default=3)
    memory.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    memory.add_argument("--queries", type=int, default=2_000)
    for part in (speed, memory):
        part.add_argument("--dim", type=int, default=320)
        part.add_argument("-k", type=int, default=10)
        part.add_argument("--threads", type=int, default=2)
    arm.add_argument("name", choices=ARMS)
    arm.add_argument("vectors", type=Path)
    arm.add_argument("k", type=int)
    arm.add_argument("threads", type=int)
    transfer.add_argument("labels", type=Path)
    transfer.add_argument("--finetuned", type=Path)
    relatives.add_argument("fasta", type=Path)
    relatives.add_argument("clusters", type=Path)
    relatives.add_argument("--queries", type=int, default=2_000)
    relatives.add_argument("--others", type=int, default=8_000)
    for part in (transfer, relatives):
        part.add_argument("--model", type=Path)
        part.add_argument("-k", type=int, default=10)
        part.add_argument("--centre", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    run = {"speed": measure_speed, "memory": measure_memory, "arm": run_arm}
    run |= {"transfer": measure_transfer, "relatives": measure_relatives}
    run[options.part](options)


# Time


def measure_speed(options: argparse.Namespace) -> None:
    """Print the seconds and the peak memory of each arm, and the share of equal neighbours."""
    with tempfile.TemporaryDirectory() as folder:
        path = store(Path(folder) / "all.npy", options.rows, options.dim)
        seconds: dict[str, list[float]] = {name: [] for name in ARMS}
        peaks, rows = dict[str, int](), dict[str, NDArray[np.int64]]()
        for _ in range(options.rounds):
            for name in ARMS:
                command = [sys.executable, __file__, "arm", name, path, str(options.k), str(options.threads)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                result = json.loads(output.splitlines()[-1])
                seconds[name].append(result["seconds"])
                peaks[name] = result["peak_bytes"]
                rows[name] = np.load(path.with_name(f"{name}.rows.npy"))
    print(f"| {options.rows:,} × {options.dim} in themselves, k = {options.k} | seconds | peak memory | same |")
    print("|---|---|---|---|")
    for name, times in seconds.items():
        same = np.mean([len(set(a) & set(b)) for a, b in zip(rows[name], rows["protembed"], strict=True)]) / options.k
        times_text = ", ".join(f"{value:.1f}" for value in times)
        print(f"| {name} | {np.median(times):.1f} ({times_text}) | {peaks[name] / 1e6:,.0f} MB | {same:.5f} |")


def store(path: Path, rows: int, dim: int, *, first: str = "p", seed: int = 0) -> Path:
    """Write random vectors with a part in common as a result of `embed`."""
    from protembed.embedding.metadata import IDS, IDS_HEADER
    from protembed.io.arrays import array_file
    from protembed.io.reading import sha256_of_file
    from protembed.io.result import META, sidecar
    from protembed.io.writing import write_table

    rng = np.random.default_rng(seed)
    common = np.random.default_rng(1).normal(size=dim)
    with array_file(path, (dim,), "float32") as array:
        for start in range(0, rows, _BLOCK):
            array.append(common + rng.normal(size=(min(_BLOCK, rows - start), dim)))
    ids = sidecar(path, IDS)
    lines = ((row, f"{first}{row}", 100, 1, "", 0, f"{row:064x}", "") for row in range(1, rows + 1))
    write_table(ids, IDS_HEADER, lines)
    meta = {
        **{"model_name": "random", "model_revision": None, "model_sha256": "a" * 64, "input_sha256": "b" * 64},
        **{"on_illegal": "error", "long": "window", "window_residues": 1022, "shard": None, "per_residue": False},
        **{"layer": [6], "pooling": ["mean"], "precision": "float32", "dtype": "float32", "format": "npy"},
        **{"slices": [{"pooling": "mean", "layer": 6, "start": 0, "stop": dim}], "dim": dim},
        **{"num_proteins": rows, "num_residues": 100 * rows, "num_windowed": 0, "num_refused": 0},
        **{"ids_sha256": sha256_of_file(ids), "sha256": sha256_of_file(path)},
    }
    sidecar(path, META).write_text(json.dumps(meta))
    return path


def run_arm(options: argparse.Namespace) -> None:
    """Search with one tool, and print its seconds and peak memory; the neighbours are written beside the vectors."""
    seconds, rows = ARMS[options.name](options.vectors, options.k, options.threads)
    np.save(options.vectors.with_name(f"{options.name}.rows.npy"), rows)
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(resource.RUSAGE_SELF)}))


def peak_bytes(whose: int) -> int:
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def search_protembed(path: Path, k: int, threads: int) -> Found:
    """Run the whole command: read, verify, search, and write the table."""
    import protembed
    import protembed.search.job  # before the clock starts

    table = path.with_name("hits.tsv")
    options = protembed.SearchOptions.from_values(
        output=table, num_neighbours=k, threads=threads, device="cpu", force=True
    )
    began = time.perf_counter()
    protembed.search_embeddings(path, path, options)
    seconds = time.perf_counter() - began
    with table.open() as stream:
        next(stream)
        rows = np.array([int(line.split("\t", 2)[1][1:]) - 1 for line in stream]).reshape(-1, k)
    table.with_name("hits.tsv.meta.json").unlink()
    table.unlink()
    return seconds, rows


def search_sklearn(path: Path, k: int, threads: int) -> Found:
    """Search with scikit-learn's brute force."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    vectors = normalize(np.load(path))
    with threadpool_limits(threads):
        began = time.perf_counter()
        # Of vectors of length 1, Euclidean distances order neighbours as cosines do, and have the faster code.
        nearest = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=threads).fit(vectors)
        rows = nearest.kneighbors(return_distance=False)
        return time.perf_counter() - began, rows


def search_faiss(path: Path, k: int, threads: int) -> Found:
    """Search with faiss's exact index."""
    import faiss

    faiss.omp_set_num_threads(threads)
    vectors = np.load(path)
    faiss.normalize_L2(vectors)
    began = time.perf_counter()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    rows = index.search(vectors, k + 1)[1]
    others = np.stack([found[found != row][:k] for row, found in enumerate(rows)])
    return time.perf_counter() - began, others


ARMS: Mapping[str, Callable[[Path, int, int], Found]] = {
    "protembed": search_protembed,
    "scikit-learn": search_sklearn,
    "faiss": search_faiss,
}


# Memory


def measure_memory(options: argparse.Namespace) -> None:
    """Print the peak memory of `protembed search` against databases of several sizes."""
    print("| proteins in the database | seconds | peak memory |\n|---|---|---|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            database = store(Path(folder) / "database.npy", rows, options.dim)
            queries = store(Path(folder) / "queries.npy", options.queries, options.dim, first="q", seed=2)
            arguments = ["search", queries, database, "-o", Path(folder) / "hits.tsv", "-k", options.k]
            seconds, peak = run_command(*arguments, "--threads", options.threads, "--device", "cpu", "--quiet")
            print(f"| {rows:,} | {seconds:.1f} | {peak / 1e6:,.0f} MB |")


def run_command(*arguments: object) -> tuple[float, int]:
    """Run protembed in a process; return its seconds and peak memory in bytes."""
    began = time.perf_counter()
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = [sys.executable, "-c", code, sys.executable, "-m", "protembed", *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak = int(output.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - began, peak


# Labels and relatives


def measure_transfer(options: argparse.Namespace) -> None:
    """Print how good transferred labels of the test split are, beside k-mers and a fine-tuned model."""
    from protembed.config.finetune import LabelTableConfig
    from protembed.finetuning.labels import read_labels

    proteins = read_labels(options.labels, LabelTableConfig()).proteins
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder) / f"{name}.fasta" for name in ("queries", "database")]
        for side, is_test in zip(sides, (True, False), strict=True):
            chosen = [protein for protein in proteins if (protein.split == "test") == is_test]
            side.write_text("".join(f">{protein.id}\n{protein.sequence}\n" for protein in chosen))
        rows, summary = search_files(folder, sides, labels=options.labels, transfer=True, **search_settings(options))
    truth = {protein.id: protein.label for protein in proteins}
    majority = max(truth.values(), key=list(truth.values()).count)
    labels = [truth[row["query"]] for row in rows]
    guesses = {name: [row[column] or majority for row in rows] for name, column in COLUMNS.items()}
    if options.finetuned:
        with options.finetuned.open() as stream:
            predicted = {row["id"]: row["prediction"] for row in csv.DictReader(stream, delimiter="\t")}
        guesses["finetune"] = [predicted[row["query"]] for row in rows]
    print_transfer(labels, guesses)
    print("\n".join(summary["findings"]))
    right = np.array([fraction_right(a, b) for a, b in zip(guesses["vectors"], labels, strict=True)])
    reliability = np.array([float(row["reliability"]) for row in rows])
    bins = np.array_split(np.argsort(reliability, kind="stable"), 10)
    error = sum(len(part) * abs(reliability[part].mean() - right[part].mean()) for part in bins) / len(rows)
    print(f"calibration error on the test split: {error:.3f}; mean reliability {reliability.mean():.3f}")


COLUMNS = {"vectors": "label", "k-mers": "kmer_label"}


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"model": options.model, "num_neighbours": options.k, "centre": options.centre}


def search_files(folder: str, sides: Sequence[Path], **settings: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Embed both FASTA files in a folder, and search; return the rows of the table and its record."""
    import protembed

    results = [side.with_suffix(".npy") for side in sides]
    for side, result in zip(sides, results, strict=True):
        protembed.embed_fasta(side, protembed.EmbedOptions.from_values(output=result, model=settings["model"]))
    table = Path(folder) / "table.tsv"
    options = protembed.SearchOptions.from_values(output=table, sequences=list(sides), **settings)
    protembed.search_embeddings(*results, options)
    with table.open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return rows, json.loads(Path(f"{table}.meta.json").read_text())


def print_transfer(labels: Sequence[str], guesses: Mapping[str, Sequence[str]]) -> None:
    """Print the score of each arm with its 95 % interval, and its difference from that of vectors."""
    is_several = any(";" in label for label in labels)
    names = sorted(
        {name for text in [*labels, *(t for part in guesses.values() for t in part)] for name in split(text)}
    )
    truth = indicators(labels, names)
    matrices = {arm: indicators(texts, names) for arm, texts in guesses.items()}

    def score(arm: str, rows: NDArray[np.int64]) -> float:
        found, expected = matrices[arm][rows], truth[rows]
        if not is_several:
            return float((found & expected).any(1).mean())
        shared, total = (found & expected).sum(0), found.sum(0) + expected.sum(0)
        return float((2 * shared[total > 0] / total[total > 0]).mean())

    metric = "macro F1" if is_several else "accuracy"
    print(f"| {len(labels):,} test proteins | {metric} (95 %) | vectors minus it (95 %) |\n|---|---|---|")
    every = np.arange(len(labels))
    for arm in guesses:
        low, high = bootstrap_interval(lambda rows, arm=arm: score(arm, rows), len(labels))
        gain_low, gain_high = bootstrap_interval(
            lambda rows, arm=arm: score("vectors", rows) - score(arm, rows), len(labels)
        )
        gain = score("vectors", every) - score(arm, every)
        print(f"| {arm} | {score(arm, every):.3f} ({low:.3f} to {high:.3f}) ", end="")
        print("| |" if arm == "vectors" else f"| {gain:+.3f} ({gain_low:+.3f} to {gain_high:+.3f}) |")


def split(text: str) -> list[str]:
    return [name for part in text.split(";") if (name := part.strip())]


def indicators(texts: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    index_of = {name: index for index, name in enumerate(names)}
    found = np.zeros((len(texts), len(names)), np.bool_)
    for row, text in enumerate(texts):
        found[row, [index_of[name] for name in split(text)]] = True
    return found


def fraction_right(guess: str, truth: str) -> float:
    names = set(split(guess))
    return len(names & set(split(truth))) / max(len(names), 1)


def measure_relatives(options: argparse.Namespace) -> None:
    """Print how often the nearest hit outside of the query's 50 % cluster is in its 30 % cluster."""
    from homology_search import count_3mers, draw, finds_relative, read_proteins

    retrieval = draw(read_proteins(options.fasta, options.clusters), options.queries, options.others, 0)
    sides = {"queries": retrieval.queries, "database": retrieval.database}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, proteins in sides.items():
            paths.append(Path(folder) / f"{name}.fasta")
            lines = (f">{number}\n{protein.sequence}\n" for number, protein in enumerate(proteins))
            paths[-1].write_text("".join(lines))
        rows, _ = search_files(folder, paths, **search_settings(options))
    nearest = dict[int, int]()
    for row in rows:
        query, target = int(row["query"]), int(row["target"])
        if retrieval.queries[query].cluster50 != retrieval.database[target].cluster50:
            nearest.setdefault(query, target)
    is_relative = np.array(
        [
            query in nearest and protein.cluster30 == retrieval.database[nearest[query]].cluster30
            for query, protein in enumerate(retrieval.queries)
        ]
    )
    by_kmers = finds_relative(retrieval, count_3mers(retrieval.queries), count_3mers(retrieval.database))
    print(f"| {len(is_relative):,} queries in {len(retrieval.database):,} | nearest is a relative (95 %) |\n|---|---|")
    gains = is_relative.astype(float) - by_kmers
    for name, values in (("protembed search", is_relative), ("3-mers", by_kmers), ("difference", gains)):
        low, high = bootstrap_interval(lambda chosen, values=values: values[chosen].mean(), len(values))
        print(f"| {name} | {values.mean():.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
