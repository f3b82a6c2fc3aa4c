"""Speed of `embed`: the same proteins and the same random models with protembed and its competitors, in turn.

    python benchmarks/embed.py data.fasta [--sizes t6_8M t12_35M] [--proteins 400] [--threads 2] [--rounds 5]
    python benchmarks/embed.py data.fasta --precision bfloat16 --arms protembed "protembed, float32" …
    python benchmarks/embed.py data.fasta --whole [--sizes t6_8M] [--proteins 500]

Without `--whole` each arm runs in a separate process with its best settings, and is warmed up before the clock starts
(see embed_competitors.py). Proteins longer than 1,022 residues are skipped, because the competitors do not support
windows. The roofline is the speed at which the matrix products alone would run at the best rate measured. On a machine
that others use too, `--clock cpu_seconds` counts only the time on the processor. With `--whole` the clock measures
whole processes: `protembed embed`, and a typical script (embed_script.py).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from embed_competitors import ARMS, FLOAT32_ARMS
from processes import run_measured
from protembed.config.model_sizes import SIZES, EncoderShape, ESMCShape
from protembed.data.fasta import read_fasta
from roofline import machine, matrix_rate_in_subprocess

SHAPES = {**SIZES, "esmc_300m": ESMCShape(num_layers=30, dim=960, num_heads=15)}
MAX_RESIDUES = 1022
ONE_CORE = "protembed, one core"
TOLERANCES = {"float32": {"rtol": 1e-3, "atol": 1e-4}, "bfloat16": {"rtol": 0.1, "atol": 0.02}}
PEERS = ("torch", "transformers", "fair-esm", "onnxruntime", "openvino")
MODULES = {"fair-esm": "esm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["t6_8M", "t12_35M"], choices=SHAPES)
    parser.add_argument("--arms", nargs="+", default=[*FLOAT32_ARMS, ONE_CORE], choices=[*ARMS, ONE_CORE])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--proteins", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--clock", default="seconds", choices=["seconds", "cpu_seconds"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = write_proteins(options.fasta, folder / "proteins.fasta", options.proteins)
        for size in options.sizes:
            run_in_subprocess(["-c", MAKE_MODEL, size, str(folder / size)])
            results.append(whole(options, size, folder) if options.whole else compare(options, size, folder, lengths))
            print(markdown(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def write_proteins(source: Path, target: Path, num_proteins: int) -> list[int]:
    records = (record for record in read_fasta([source]) if len(record.sequence) <= MAX_RESIDUES)
    chosen = list(islice(records, num_proteins))
    target.write_text("".join(f">{record.id}\n{record.sequence}\n" for record in chosen), encoding="utf-8")
    return [len(record.sequence) for record in chosen]


# Without start-up


def compare(options: argparse.Namespace, size: str, folder: Path, lengths: list[int]) -> dict[str, Any]:
    flops = inference_flops(SHAPES[size], lengths)
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in options.arms}
    rates: dict[int, list[float]] = {1: [], options.threads: []}
    reference: list[float] | None = None
    for _ in range(options.rounds):
        for threads in rates:
            rates[threads] += [
                matrix_rate_in_subprocess(threads, library, options.clock) for library in ("MKL", "oneDNN")
            ]
        for arm in options.arms:
            name, threads = ("protembed", 1) if arm == ONE_CORE else (arm, options.threads)
            script = str(Path(__file__).with_name("embed_competitors.py"))
            words = [script, name, str(folder / size), str(folder / "proteins.fasta"), str(threads)]
            words.append(options.precision)
            result = json.loads(run_in_subprocess(words).splitlines()[-1])
            reference = reference or result["mean"]
            np.testing.assert_allclose(result["mean"], reference, **TOLERANCES[options.precision])
            rate = sum(lengths) / result[options.clock]
            runs[arm].append({"rate": rate, "peak_bytes": result["peak_bytes"]})
            print(f"{size}, {arm}: {rate:,.0f} residues/s", file=sys.stderr)
    return {
        "title": f"{size}, {options.precision}, {len(lengths)} proteins, {sum(lengths):,} residues, "
        f"{options.threads} threads",
        "machine": machine([peer for peer in PEERS if find_spec(MODULES.get(peer, peer))]),
        "matrix_gflops": {threads: max(measured) / 1e9 for threads, measured in rates.items()},
        "rooflines": {threads: max(measured) / flops for threads, measured in rates.items()},
        "threads": options.threads,
        "runs": runs,
    }


def inference_flops(shape: EncoderShape, lengths: list[int]) -> float:
    """Count the operations of the matrix products per residue."""
    tokens = np.array(lengths) + 2
    per_token = 2 * shape.num_layer_parameters + 4 * tokens * shape.dim
    return float((shape.num_layers * tokens * per_token).sum() / sum(lengths))


# Whole processes


def whole(options: argparse.Namespace, size: str, folder: Path) -> dict[str, Any]:
    model, fasta, script = folder / size, folder / "proteins.fasta", str(Path(__file__).with_name("embed_script.py"))
    single = folder / "one.fasta"
    single.write_text("".join(fasta.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    commands = {
        "protembed embed": [
            "-m",
            "protembed",
            "embed",
            fasta,
            "-m",
            model,
            "-o",
            folder / "a.npy",
            "--force",
            "--quiet",
        ],
        "transformers script, file order, 8": [script, model, fasta, folder / "b.npy", "8"],
        "transformers script, one by one": [script, model, fasta, folder / "c.npy", "1"],
        "protembed embed, one protein": [
            *("-m", "protembed", "embed", single, "-m", model, "-o", folder / "d.npy", "--force", "--quiet")
        ],
        "import torch": ["-c", "import torch"],
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, words in commands.items():
            usage = run_measured([sys.executable, *words], shows_errors=False)
            runs[name].append({"seconds": usage.seconds, "peak_bytes": usage.peak_bytes})
            print(f"{size}, {name}: {usage.seconds:.1f} s", file=sys.stderr)
        vectors, reference = np.load(folder / "a.npy"), np.load(folder / "c.npy")
        np.testing.assert_allclose(vectors, reference, rtol=1e-3, atol=1e-4)
    return {
        "title": f"{size}, {options.proteins} proteins, whole processes",
        "machine": machine([peer for peer in PEERS if find_spec(MODULES.get(peer, peer))]),
        "runs": runs,
    }


def run_in_subprocess(words: list[str]) -> str:
    # PASSIVE: waiting threads of OpenMP leave the core to those that compute.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stderr}")
    return done.stdout


MAKE_MODEL = """
import sys
from embed import SHAPES
from protembed.model.checkpoint import new_checkpoint, save_checkpoint
save_checkpoint(new_checkpoint(SHAPES[sys.argv[1]], "gaussian", seed=0), sys.argv[2])
"""


# Output


def markdown(results: dict[str, Any]) -> str:
    facts = ", ".join(f"{name} {results['machine'][name]}" for name in PEERS if name in results["machine"])
    title = f"\n{results['title']}; {results['machine']['cores']} cores; {facts}"
    if "rooflines" not in results:
        return "\n".join([title, "", *whole_rows(results["runs"])])
    rooflines, runs = results["rooflines"], results["runs"]
    roofline = ", ".join(
        f"{rooflines[threads]:,.0f} residues/s on {threads} ({results['matrix_gflops'][threads]:.0f} GFLOP/s)"
        for threads in rooflines
    )
    protembed_rates = [run["rate"] for run in runs.get("protembed", [])]
    lines = [
        f"{title}; roofline {roofline}\n",
        "| | residues/s, median | range | fraction of the roofline | peak memory, MB | protembed is faster by |",
        "|---|---|---|---|---|---|",
    ]
    for arm, measured in runs.items():
        rates = [run["rate"] for run in measured]
        middle, peak = statistics.median(rates), statistics.median(run["peak_bytes"] for run in measured)
        fraction = middle / rooflines[1 if arm == ONE_CORE else results["threads"]]
        ratio = "" if arm in ("protembed", ONE_CORE) or not protembed_rates else ratios(protembed_rates, rates)
        lines.append(
            f"| {arm} | {middle:,.0f} | {min(rates):,.0f} – {max(rates):,.0f} | {fraction:.0%} "
            f"| {peak / 1e6:,.0f} | {ratio} |"
        )
    return "\n".join(lines)


def whole_rows(runs: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = ["| | seconds, median | range | peak memory, MB | protembed takes |", "|---|---|---|---|---|"]
    protembed_seconds = [run["seconds"] for run in runs["protembed embed"]]
    for name, measured in runs.items():
        seconds = [run["seconds"] for run in measured]
        peak = statistics.median(run["peak_bytes"] for run in measured)
        ratio = ratios(protembed_seconds, seconds) if "script" in name else ""
        lines.append(
            f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} – {max(seconds):.2f} "
            f"| {peak / 1e6:,.0f} | {ratio} |"
        )
    return lines


def ratios(numerators: list[float], denominators: list[float]) -> str:
    """Format the median and the range of the rounds' ratios."""
    each = [left / right for left, right in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} – {max(each):.2f})"


if __name__ == "__main__":
    main()
