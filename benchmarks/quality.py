"""Quality of a model in one table: perplexity, probes, contacts, variants, homology search.

    python benchmarks/quality.py MODEL --data DIR [--threads 2] [--json FILE]

MODEL is any value of `--model`. DIR holds `corpus/` (`train.fasta.xz`, `valid.fasta.gz`, `clusters.tsv.gz`), `tasks/`
(the tables that `finetune.py` names), `structures/` (with `list.tsv`: columns `file` and `sequence`) and `dms/` (tables
with `mutant`, `mutated_sequence` and `score`). The baselines are a random initialisation of the same shape and methods
that only count residues. Probes are linear, on frozen vectors, with at most 2,000 training and 1,000 test rows. 95 %
intervals over proteins, variants or queries. Prints Markdown.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from Bio.Align import substitution_matrices
from numpy.typing import NDArray
from scipy.stats import spearmanr

import finetune
import homology_search
import perplexity
from bootstrap import bootstrap_interval
from perplexity import MODEL, RANDOM
from protembed import AttentionConfig, ModelConfig, inspect_attention, score_variants
from protembed.attention.contact_predictors import OWN_HEAD
from protembed.config.common import METRIC_NAMES, DeviceConfig, InferenceDeviceConfig
from protembed.config.inspect_attention import AttentionOptions
from protembed.config.score import ScoreOptions
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import read_fasta
from protembed.finetuning.baselines import composition
from protembed.model.catalog import locate_model, model_name
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.pretraining.corpus import build_corpora, open_corpora
from protembed.pretraining.ngrams import NgramModel
from protembed.resources import num_threads

MAX_TRAINING_ROWS, MAX_TEST_ROWS = 2_000, 1_000
NUM_QUERIES, NUM_OTHERS = 2_000, 8_000
# The minimum of the command, because the significance of heads is not used here.
NUM_PERMUTATIONS = 100
METHODS = ("masked-marginals", "wildtype-marginals")
# Each cell of the column COUNTS names what was counted.
COMPOSITION, COUNTS, PUBLISHED = "composition", "counts", "ESM-2 8M, published"
COLUMNS = (MODEL, RANDOM, COMPOSITION, COUNTS, PUBLISHED)
# ESM-2 8M: the README of facebookresearch/esm (another validation set of structures); ProteinGym.
PUBLISHED_LONG_RANGE, PUBLISHED_BLAT = "0.159 (other proteins)", "0.399"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--threads", type=int, default=num_threads(DeviceConfig()))
    parser.add_argument("--json", type=Path, help="results; parts that are not measured again are kept")
    options = parser.parse_args()

    results: dict[str, Any] = {"seconds": {}}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text(encoding="utf-8"))
    results["model"] = model_name(options.model)
    with tempfile.TemporaryDirectory() as folder:
        models = {
            MODEL: locate_model(options.model).directory,
            RANDOM: untrained(options.model, Path(folder) / "random"),
        }
        for name in options.only:
            began = time.monotonic()
            results[name] = PARTS[name](models, options)
            results["seconds"][name] = time.monotonic() - began
            print(f"{name}: {results['seconds'][name]:.0f} s", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


def untrained(model: Path, directory: Path) -> Path:
    """Write a model of the same shape with random weights and the same metadata."""
    trained = load_checkpoint(model)
    checkpoint = new_checkpoint(trained.encoder.shape, "gaussian", seed=0)
    checkpoint.metadata = trained.metadata
    save_checkpoint(checkpoint, directory, "A random initialisation.\n")
    return directory


Models = Mapping[str, Path]


# Perplexity


def measure_perplexity(models: Models, options: argparse.Namespace) -> dict[str, Any]:
    corpus = options.data / "corpus"
    with tempfile.TemporaryDirectory() as folder:
        train, valid = corpus / "train.fasta.xz", corpus / "valid.fasta.gz"
        build_corpora(Path(folder) / "corpus", [train], [valid])
        ngrams = NgramModel(open_corpora(Path(folder) / "corpus").train)
    trained = load_checkpoint(models[MODEL])
    return perplexity.measure(trained, ngrams, valid, corpus / "clusters.tsv.gz", options.threads)


# Homology search


def measure_homology(models: Models, options: argparse.Namespace) -> dict[str, Any]:
    corpus = options.data / "corpus"
    proteins = homology_search.read_proteins(corpus / "train.fasta.xz", corpus / "clusters.tsv.gz")
    retrieval = homology_search.draw(proteins, NUM_QUERIES, NUM_OTHERS, seed=0)
    return homology_search.measure(load_checkpoint(models[MODEL]), retrieval, options.threads)


# Probes


def measure_probes(models: Models, options: argparse.Namespace) -> list[dict[str, Any]]:
    trials = [
        replace(trial, method="frozen", max_training_rows=MAX_TRAINING_ROWS, max_test_rows=MAX_TEST_ROWS)
        for trial in finetune.TRIALS
    ]
    return [finetune.measure(trial, options.data / "tasks", models[MODEL], epochs=1) for trial in trials]


# Contacts


def measure_contacts(models: Models, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Predict the contacts of structures with the best heads and with a regression, on held-out proteins."""
    folder = options.data / "structures"
    with (folder / "list.tsv").open(encoding="utf-8") as stream:
        chains = list(csv.DictReader(stream, delimiter="\t"))
    rows = dict[str, list[dict[str, Any]]]()
    with tempfile.TemporaryDirectory() as scratch:
        fasta = Path(scratch) / "chains.fasta"
        fasta.write_text("".join(f">{chain['file']}\n{chain['sequence']}\n" for chain in chains), encoding="utf-8")
        for name, model in models.items():
            config = AttentionConfig(
                output=Path(scratch) / "attention",
                structures=[folder / chain["file"] for chain in chains],
                save_maps=0,
                num_permutations=NUM_PERMUTATIONS,
                force=True,
            )
            compute = InferenceDeviceConfig(threads=options.threads)
            summary = inspect_attention(
                [fasta], AttentionOptions(model=ModelConfig(model=model), attention=config, compute=compute)
            )
            # The head that a bundled model brings was fitted to these structures.
            rows[name] = [dict(row) for row in summary.precisions if row["predictor"] != OWN_HEAD]
    return rows


# Variants


def measure_variants(models: Models, options: argparse.Namespace) -> dict[str, Any]:
    """Correlate measurements with zero-shot scores of models, of the composition and of BLOSUM62."""
    results = dict[str, Any]()
    fractions = composition([record.sequence for record in read_fasta([options.data / "corpus" / "valid.fasta.gz"])])
    log_fractions = dict(zip(AMINO_ACIDS, np.log(fractions.mean(0)), strict=True))
    blosum = substitution_matrices.load("BLOSUM62")
    for table in sorted((options.data / "dms").glob("*.csv")):
        with table.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        measured = np.array([float(row["score"]) for row in rows])
        mutations = [[(part[0], part[-1]) for part in row["mutant"].split(":")] for row in rows]
        scores = {
            COMPOSITION: [
                sum(log_fractions[new] - log_fractions[old] for old, new in variant) for variant in mutations
            ],
            COUNTS: [sum(blosum[old][new] for old, new in variant) for variant in mutations],
        }
        baselines = {name: correlation(np.array(values), measured) for name, values in scores.items()}
        results[table.stem] = {
            method: {
                name: correlation(zero_shot(table, model, method, options.threads), measured)
                for name, model in models.items()
            }
            | baselines
            for method in METHODS
        }
    return results


def zero_shot(table: Path, model: Path, method: Any, threads: int) -> NDArray[np.float64]:
    """Score all variants of a table, (variants,)."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.tsv"
        options = ScoreOptions.from_values(model=[model], output=output, method=method, threads=threads)
        summary = score_variants(table, options)
        lines = output.read_text(encoding="utf-8").splitlines()[1:]
    return np.array([float(row[summary.score_column]) for row in csv.DictReader(lines, delimiter="\t")])


def correlation(scores: NDArray[np.floating], measured: NDArray[np.floating]) -> dict[str, float]:
    def spearman(rows: Any = slice(None)) -> float:
        return float(spearmanr(scores[rows], measured[rows])[0])

    low, high = bootstrap_interval(spearman, len(scores))
    return {"value": spearman(), "low": low, "high": high}


# Output


def markdown(results: Mapping[str, Any]) -> str:
    """Format the table: a line for each metric, a column for the model and each baseline."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for part, rows in SUMMARIES.items():
        if part in results:
            lines += [
                f"| {name} | {' | '.join(cells.get(c, '') for c in COLUMNS)} |" for name, cells in rows(results[part])
            ]
    return "\n".join([*lines, "", *comparison_with_random(results)])


Row = tuple[str, Mapping[str, str]]


def perplexity_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    columns = {MODEL: MODEL, RANDOM: RANDOM, "unigram": COMPOSITION, "bigram": COUNTS}
    for name, part in results["sets"].items():
        cells = {columns[predictor]: f"{np.exp(loss['nats']):.2f}" for predictor, loss in part["losses"].items()}
        cells[COUNTS] += " (pairs)"
        yield f"perplexity, `{name}` (less is better)", cells


def probe_rows(results: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for result in results:
        baselines, metric = result["comparison"]["predictors"], result["metric"]
        cells = {
            column: finetune.format_metric(baselines[name][metric])
            for name, column in (("frozen", MODEL), (RANDOM, RANDOM), (COMPOSITION, COMPOSITION))
            if name in baselines
        }
        counts = next(name for name in ("k-mers", "15 letters") if name in baselines)
        cells[COUNTS] = f"{finetune.format_metric(baselines[counts][metric])} ({counts})"
        yield f"probe: `{result['task']}`, {METRIC_NAMES[metric]}", cells


def contact_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    for number, row in enumerate(results[MODEL]):
        if row["range"] not in ("long", "medium") or row["pairs"] not in ("L", "L/5"):
            continue
        cells = {column: format_fraction(rows[number]) for column, rows in results.items()}
        if row["range"] == "long" and row["pairs"] == "L":
            cells[PUBLISHED] = PUBLISHED_LONG_RANGE
        yield f"contacts: {row['predictor']}, {row['range']} range, P@{row['pairs']}; chance {row['random']:.3f}", cells


def format_fraction(row: Mapping[str, Any]) -> str:
    return f"{row['precision']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def variant_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    for name, methods in results.items():
        for method, correlations in methods.items():
            cells = {column: finetune.format_metric(correlation) for column, correlation in correlations.items()}
            cells[COUNTS] += " (BLOSUM62)"
            if name.startswith("BLAT") and method == METHODS[0]:
                cells[PUBLISHED] = PUBLISHED_BLAT
            yield f"variants: {name.split('_')[0]}, {method}, Spearman", cells


def homology_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    columns = {homology_search.COMPOSITION: COMPOSITION, homology_search.BASELINE: COUNTS}
    cells = {
        columns.get(name, name): f"{part['fraction']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
        for name, part in results["fractions"].items()
    }
    cells[COUNTS] += f" ({homology_search.BASELINE})"
    yield f"nearest of {results['num_database']:,} is a remote relative", cells


PARTS: dict[str, Callable[[Models, argparse.Namespace], Any]] = {
    "perplexity": measure_perplexity,
    "probes": measure_probes,
    "contacts": measure_contacts,
    "variants": measure_variants,
    "homology": measure_homology,
}
SUMMARIES: dict[str, Callable[[Any], Iterator[Row]]] = {
    "perplexity": perplexity_rows,
    "probes": probe_rows,
    "contacts": contact_rows,
    "variants": variant_rows,
    "homology": homology_rows,
}


def comparison_with_random(results: Mapping[str, Any]) -> list[str]:
    """List the metrics in which the model is significantly better than a random initialisation of its shape."""
    is_better = dict[str, bool]()
    if "perplexity" in results:
        losses = results["perplexity"]["sets"]["valid"]["losses"]
        is_better["perplexity"] = losses[MODEL]["low"] > losses[RANDOM]["high"]
    if "contacts" in results:
        for row, random_row in zip(results["contacts"][MODEL], results["contacts"][RANDOM], strict=True):
            if (row["range"], row["pairs"]) == ("long", "L"):
                is_better[f"contacts by {row['predictor']}"] = row["low"] > random_row["high"]
    if "homology" in results:
        fractions = results["homology"]["fractions"]
        is_better["remote relatives"] = fractions[MODEL]["low"] > fractions[RANDOM]["high"]
    if "probes" in results:
        for result in results["probes"]:
            is_better[f"probe {result['task']}"] = result["comparison"]["differences"][RANDOM]["low"] > 0
    better = ", ".join(name for name, is_significant in is_better.items() if is_significant)
    others = ", ".join(name for name, is_significant in is_better.items() if not is_significant)
    return [f"Significantly better than {RANDOM}: {better or 'none'}. Not: {others or 'none'}."]


if __name__ == "__main__":
    main()
