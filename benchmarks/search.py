"""Nearest neighbours: time and memory of `protembed search` beside scikit-learn and faiss, and what neighbours say.

    python benchmarks/search.py speed [--rows 100000] [--dim 320] [-k 10] [--threads 2] [--rounds 3]
    python benchmarks/search.py memory [--rows 10000 100000 300000] [--queries 2000]
    python benchmarks/search.py transfer labels.csv [--model MODEL] [--folder FOLDER] [--finetuned predictions.tsv]
    python benchmarks/search.py relatives proteins.fasta clusters.tsv [--model MODEL] [--queries 2000] [--others 8000]
        [--folder FOLDER]

`speed` searches all of a random data set in all, by cosine, in a separate process for each arm, in turn; vectors have a
part in common, as those of a model have. The time is that of the search alone, after all imports: protembed reads its
vectors from disk and writes the table of hits, the others search in memory and write nothing. `memory` prints the peak
memory of whole `protembed search` processes. `transfer` takes the train split of a table as the database and the test
split as queries, and compares accuracy (macro F1 of several labels) with the nearest protein by k-mers on the same
proteins, with the head that `finetune --method frozen` fits to the same vectors, and with a table of predictions such
as `finetune` writes. It also compares the reliability of test proteins with the fraction that is right. `relatives`
counts how often the nearest hit is a remote relative, of the queries and database that `homology_search.py` draws,
beside 3-mers. Both keep the embeddings in `--folder`, and use them in the next run.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        part.add_argument("--precision", default="auto")
        part.add_argument("--folder", type=Path)
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
    """Print how good transferred labels of the test split are, beside k-mers and heads of the frozen encoder."""
    from protembed.config.finetune import LabelTableConfig
    from protembed.finetuning.labels import read_labels

    proteins = read_labels(options.labels, LabelTableConfig()).proteins
    sides = {
        name: [protein for protein in proteins if (protein.split == "test") == is_test]
        for name, is_test in (("queries", True), ("database", False))
    }
    with opened_folder(options) as folder:
        files = [
            write_fasta(folder / f"{name}.fasta", ((protein.id, protein.sequence) for protein in part))
            for name, part in sides.items()
        ]
        rows, summary = search_files(files, options, labels=options.labels, transfer=True)
        frozen = predict_frozen(options, vectors_by_sequence(files, list(sides.values())))
    truth = {protein.id: protein.label for protein in proteins}
    majority = max(truth.values(), key=list(truth.values()).count)
    labels = [truth[row["query"]] for row in rows]
    guesses = {name: [row[column] or majority for row in rows] for name, column in COLUMNS.items()}
    guesses["finetune --method frozen"] = [frozen[row["query"]] for row in rows]
    if options.finetuned:
        with options.finetuned.open() as stream:
            predicted = {row["id"]: row["prediction"] for row in csv.DictReader(stream, delimiter="\t")}
        guesses["predictions of the table"] = [predicted[row["query"]] for row in rows]
    print_transfer(labels, guesses)
    print("\n".join(summary["findings"]))
    print_reliability(rows, labels)


COLUMNS = {"vectors": "label", "k-mers": "kmer_label"}


@contextmanager
def opened_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Make the folder of the embeddings, which is temporary unless the user named one."""
    if options.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder


def write_fasta(path: Path, proteins: Iterable[tuple[object, str]]) -> Path:
    path.write_text("".join(f">{identifier}\n{sequence}\n" for identifier, sequence in proteins))
    return path


def search_files(
    files: Sequence[Path], options: argparse.Namespace, **settings: Any
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Embed the FASTA files of queries and database, and search; return the rows of the table and its record."""
    import protembed

    results = [file.with_suffix(".npy") for file in files]
    for file, result in zip(files, results, strict=True):
        embedding = {"output": result, "model": options.model, "precision": options.precision}
        protembed.embed_fasta(file, protembed.EmbedOptions.from_values(**embedding))
    table = files[0].with_name("table.tsv")
    settings |= {"output": table, "sequences": list(files), "model": options.model, "force": True}
    settings |= {"num_neighbours": options.k, "centre": options.centre}
    protembed.search_embeddings(*results, protembed.SearchOptions.from_values(**settings))
    with table.open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return rows, json.loads(Path(f"{table}.meta.json").read_text())


def vectors_by_sequence(files: Sequence[Path], sides: Sequence[Sequence[Any]]) -> dict[str, NDArray[np.float32]]:
    """Read the vectors that were made of FASTA files, whose proteins are given in the same order."""
    return {
        protein.sequence: vector
        for file, proteins in zip(files, sides, strict=True)
        for protein, vector in zip(proteins, np.load(file.with_suffix(".npy")), strict=True)
    }


def predict_frozen(options: argparse.Namespace, vectors: dict[str, NDArray[np.float32]]) -> dict[str, str]:
    """Fit the head of `finetune --method frozen` to vectors by sequence; return the label of each test protein."""
    import torch

    from protembed.config.finetune import FinetuneConfig, LabelTableConfig
    from protembed.device import WorkerPool
    from protembed.finetuning.baselines import FrozenEncoder
    from protembed.finetuning.label_inference import infer_labels
    from protembed.finetuning.labels import read_labels
    from protembed.finetuning.prediction import prediction_cells
    from protembed.finetuning.splits import split_table
    from protembed.finetuning.targets import TaskTable
    from protembed.inference.embedding import Embedder
    from protembed.inference.engine import Engine
    from protembed.model.catalog import locate_model
    from protembed.model.checkpoint import load_checkpoint

    config = LabelTableConfig()
    inferred = infer_labels(read_labels(options.labels, config))
    split = split_table(inferred.labels, inferred.task, config, FinetuneConfig().seed)
    table = TaskTable.from_table(split.final, inferred.task)
    embedder = Embedder.from_checkpoint(load_checkpoint(locate_model(options.model)))
    with WorkerPool(1) as pool:  # which has nothing to embed, because all vectors are known
        frozen = FrozenEncoder(embedder=embedder, engine=Engine(pool=pool), known=vectors)
        head, _ = frozen.fit_head(table, FinetuneConfig())
    tested = table.splits["test"]
    with torch.no_grad():
        predictions = head.predict(torch.from_numpy(np.stack([vectors[protein.sequence] for protein in tested])))
    cells = (prediction_cells(prediction, head)[0] for prediction in predictions.numpy())
    return {protein.id: cell for protein, cell in zip(tested, cells, strict=True)}


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


def print_reliability(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> None:
    """Print how far the reliability is from the fraction that is right, and what chance alone would give."""
    from protembed.search.reliability import calibration_error

    right = np.array([fraction_right(row["label"], label) for row, label in zip(rows, labels, strict=True)])
    reliability, low, high = (
        np.array([float(row[name]) for row in rows]) for name in ("reliability", "reliability_low", "reliability_high")
    )
    numbers, rng = np.array([len(split(row["label"])) for row in rows]), np.random.default_rng(0)
    chance = np.mean([calibration_error(reliability, rng.binomial(numbers, reliability) / numbers) for _ in range(200)])
    fits = []
    for part in np.array_split(np.argsort(reliability, kind="stable"), 10):
        variance = (reliability * (1 - reliability) / numbers)[part].mean() / len(part)
        errors = (high[part] - low[part]).mean() / 2, 1.96 * variance**0.5
        fits.append(abs(reliability[part].mean() - right[part].mean()) <= np.hypot(*errors))
    ends = bootstrap_interval(lambda chosen: float(right[chosen].mean()), len(right))
    print(f"calibration error on the test split: {calibration_error(reliability, right):.4f}; {chance:.4f} by chance")
    print(
        f"mean reliability: {reliability.mean():.4f} [{low.mean():.4f}, {high.mean():.4f}]; max {reliability.max():.4f}"
    )
    print(f"right: {right.mean():.4f} [{ends[0]:.4f}, {ends[1]:.4f}]; within the intervals in {sum(fits)} of 10 tenths")


def measure_relatives(options: argparse.Namespace) -> None:
    """Print how often the nearest hit outside of the query's 50 % cluster is in its 30 % cluster."""
    from homology_search import count_3mers, draw, finds_relative, read_proteins

    retrieval = draw(read_proteins(options.fasta, options.clusters), options.queries, options.others, 0)
    sides = {"queries": retrieval.queries, "database": retrieval.database}
    with opened_folder(options) as folder:
        files = [
            write_fasta(folder / f"{name}.fasta", enumerate(protein.sequence for protein in proteins))
            for name, proteins in sides.items()
        ]
        rows, _ = search_files(files, options)
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
