"""Speed of training and embedding on a GPU, in residues per second and as a fraction of its matrix rate.

    python benchmarks/gpu.py data.fasta [--sizes t6_8M t12_35M] [--seconds 6] [--minutes 8] [--json FILE]

By default four sizes, in at most ten minutes. Training: masked-language-modelling steps in bfloat16 with protembed's
training loop and Muon; the layers as torch's operators (eager), the same on micro-batches of one shape (fixed), and
compiled for these, as `pretrain` does. Embedding: protembed's engine in bfloat16 and in float32, and transformers in
bfloat16 with SDPA on batches sorted by length. Weights are random. The fraction is the rate of the matrix products
divided by that of one large bfloat16 product.
"""

import argparse
import copy
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo

from embed import MAKE_MODEL, MAX_RESIDUES, inference_flops, run_in_subprocess
from embed_competitors import Protein
from pretrain import MASK_RATE, training_flops
from protembed.config.common import DeviceConfig, OptimizerConfig
from protembed.config.model_sizes import SIZES
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import PAD, encode
from protembed.data.batching import MaskedBatch
from protembed.data.fasta import read_fasta
from protembed.device import worker_pool
from protembed.inference.embedding import Embedder
from protembed.inference.engine import inference_engine
from protembed.model.checkpoint import load_checkpoint, new_checkpoint
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.corpus import build_corpora, open_corpora
from protembed.pretraining.initial_model import default_training_tokens
from protembed.training.checkpoints import Checkpoints
from protembed.training.compilation import compile_layers, compiler_directory
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, train
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers
from protembed.training.schedule import make_schedule

CROP_RESIDUES = 512
TOKENS_PER_BATCH = 131_072
ARMS = ("eager", "fixed", "compiled")
# The sizes whose fraction of the matrix rate is known or aimed at.
SIZES_OF_AIMS = ("t6_8M", "t12_35M", "t30_150M", "t33_650M")
WARMUP_STEPS = 4
PROFILED_STEPS = 3
NUM_WARMUP_PROTEINS, MAX_EMBEDDING_RUNS = 500, 3
# The largest batch of transformers, padding included.
TOKENS_PER_PADDED_BATCH = 65_536
DEVICE = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES_OF_AIMS), choices=SIZES)
    parser.add_argument(
        "--micro-batches",
        nargs="+",
        type=int,
        help="tokens computed at once in training (default: as `pretrain` chooses)",
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds of each arm, without warming up")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, help="how the layers are trained")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no arm after this time")
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--no-embedding", action="store_true")
    parser.add_argument("--profile", action="store_true", help="also show where the time of training goes")
    parser.add_argument("--proteins", type=int, default=4000, help="proteins to embed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    deadline, peak = time.monotonic() + 60 * options.minutes, matrix_rate()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {peak / 1e12:.0f} TFLOP/s in bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            arms = () if options.no_training else training_arms(options, size, Path(folder))
            arms = (*arms, *(() if options.no_embedding else embedding_arms(options, size, Path(folder))))
            for name, measure in arms:
                if time.monotonic() > deadline:
                    print(f"| {size} | {name} | not measured: the time was over | | |", flush=True)
                    continue
                try:
                    rate, flops = measure()
                except Exception as error:  # the other arms run even if one fails
                    print(f"| {size} | {name} | failed: {str(error)[:300]} | | |", flush=True)
                    continue
                memory = torch.cuda.max_memory_allocated() / 1e9
                torch.cuda.reset_peak_memory_stats()
                print(f"| {size} | {name} | {rate:,.0f} | {rate * flops / peak:.1%} | {memory:.1f} |", flush=True)
                rows.append(
                    {"size": size, "arm": name, "rate": rate, "fraction": rate * flops / peak, "memory": memory}
                )
    if options.json:
        options.json.write_text(json.dumps({"peak": peak, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def matrix_rate() -> float:
    matrix = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    for repeats in (3, 20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(repeats):
            matrix @ matrix
        torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began)


# Training

Arm = tuple[str, Callable[[], tuple[float, float]]]


def training_arms(options: argparse.Namespace, size: str, folder: Path) -> Iterator[Arm]:
    corpus = folder / "corpus"
    if not corpus.exists():
        build_corpora(corpus, [options.fasta], [options.fasta])
    for micro_batch_tokens in options.micro_batches or [default_training_tokens(SIZES[size], DEVICE)]:
        for arm in options.arms:
            measure = functools.partial(measure_training, options, size, corpus, micro_batch_tokens, arm)
            yield f"training, {arm}, micro-batches of {micro_batch_tokens:,}", measure


def micro_batches_of(
    arm: str, objective: MaskedLM, batches: PretrainingBatches, executor: Executor
) -> Callable[[int], Sequence[MaskedBatch]]:
    """Compile the layers if the arm says so, and return the function that draws its micro-batches."""
    if arm == "compiled":
        began = time.perf_counter()
        failure = compile_layers(objective, batches.shape.dummy(), executor)
        if failure is not None:
            raise RuntimeError(failure)
        print(f"compiled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return batches.micro_batches if arm == "eager" else batches.fixed_micro_batches


def measure_training(
    options: argparse.Namespace, size: str, corpus: Path, micro_batch_tokens: int, arm: str
) -> tuple[float, float]:
    proteins = open_corpora(corpus).train
    config = BatchConfig(crop_residues=CROP_RESIDUES, batch_tokens=TOKENS_PER_BATCH)
    batches = PretrainingBatches(proteins, config, micro_batch_tokens, MaskingConfig(), seed=0)
    checkpoint = new_checkpoint(SIZES[size], "gaussian", 0).to(DEVICE)
    objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)
    with ExitStack() as stack:
        stack.enter_context(compiler_directory(DEVICE))
        pool = stack.enter_context(worker_pool(DeviceConfig(device="cuda"), DEVICE))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        executor = Executor(pool=pool, precision=torch.bfloat16)
        training = TrainingSetup(
            objective=objective,
            micro_batches=micro_batches_of(arm, objective, batches, executor),
            optimizers=make_optimizers(objective, "muon", 0.01, executor),
            executor=executor,
        )
        plan = make_schedule(OptimizerConfig(), 10_000, {"muon": 1e-3}, save_every=1_000_000)
        run, began = Checkpoints(Path(folder), num_checkpoints=1, save_seconds=1e9), time.perf_counter()
        steps = train(training, plan, run)
        first = [next(steps).train_loss for _ in range(WARMUP_STEPS)]
        print(f"{size}: {WARMUP_STEPS} steps in {time.perf_counter() - began:.1f} s, loss {first}", file=sys.stderr)
        residues, began = run.progress.num_residues, time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            report = next(steps)
        rate = (report.num_residues - residues) / (time.perf_counter() - began)
        print(f"{arm}: {torch._dynamo.utils.counters['stats']['unique_graphs']} graphs", file=sys.stderr)
        torch._dynamo.utils.counters.clear()
        if options.profile:
            profile(steps)
    return rate, training_flops(SIZES[size], proteins.lengths, CROP_RESIDUES, MASK_RATE)


def profile(steps: Iterator[Any]) -> None:
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(PROFILED_STEPS):
            next(steps)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=70)
    num_kernels, busy = kernel_time(profiler.events() or [])
    kernels = f"{num_kernels // PROFILED_STEPS:,} kernels in each, busy for {busy:.3f} s ({busy / seconds:.0%})"
    print(f"{PROFILED_STEPS} steps in {seconds:.3f} s, {kernels}\n{table}", file=sys.stderr)


def kernel_time(events: Iterable[Any]) -> tuple[int, float]:
    """Count the kernels and copies of a profile, and the seconds in which at least one of them ran.

    The times of `key_averages()` do not add up to it: there a kernel counts once in its own row and once in that of the
    operator that launched it, and the range of an optimiser's step counts again.
    """
    intervals = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    busy, end = 0.0, 0.0
    for start, stop in intervals:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return len(intervals), busy / 1e6  # the profiler counts microseconds


# Embedding


def embedding_arms(options: argparse.Namespace, size: str, folder: Path) -> Iterator[Arm]:
    model = folder / size
    run_in_subprocess(["-c", MAKE_MODEL, size, str(model)])
    every = (record.sequence for record in read_fasta([options.fasta]) if len(record.sequence) <= MAX_RESIDUES)
    sequences = list(islice(every, options.proteins))
    flops = inference_flops(SIZES[size], [len(sequence) for sequence in sequences])
    reference = []
    for name, make in (
        ("protembed, bfloat16", lambda: protembed(model, torch.bfloat16)),
        ("protembed, float32", lambda: protembed(model, torch.float32)),
        ("transformers, bfloat16, SDPA, sorted", lambda: transformers(model)),
    ):

        def measure(make: Any = make, name: str = name) -> tuple[float, float]:
            embed = make()
            embed(sequences[:NUM_WARMUP_PROTEINS])
            seconds: list[float] = []
            while len(seconds) < MAX_EMBEDDING_RUNS and sum(seconds) < options.seconds:
                began = time.perf_counter()
                vectors = embed(sequences)
                seconds.append(time.perf_counter() - began)
            reference.append(vectors)
            error = np.linalg.norm(vectors - reference[0]) / np.linalg.norm(reference[0])
            print(f"{size}, {name}: differs from the first arm by {error:.1e}", file=sys.stderr)
            return sum(map(len, sequences)) / statistics.median(seconds), flops

        yield f"embedding: {name}", measure


def protembed(model: Path, precision: torch.dtype) -> Callable[[Sequence[str]], Any]:
    checkpoint = load_checkpoint(model).to(DEVICE)
    checkpoint.encoder.set_compute_dtype(precision)
    embedder = Embedder.from_checkpoint(checkpoint)

    def embed(sequences: Sequence[str]) -> Any:
        compute = DeviceConfig(device="cuda")
        with inference_engine(compute, DEVICE, checkpoint.encoder.shape, checkpoint.encoder.shape.dim) as engine:
            records = [Protein(sequence) for sequence in sequences]
            return np.stack([embedding.values for _, embedding in engine.run(embedder.proteins(), records)])

    return embed


def transformers(model: Path) -> Callable[[Sequence[str]], Any]:
    from transformers import EsmModel

    esm = EsmModel.from_pretrained(model, add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.bfloat16)
    esm = copy.deepcopy(esm).eval().to(DEVICE)

    def embed(sequences: Sequence[str]) -> Any:
        rows = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
        vectors, start = np.empty((len(rows), esm.config.hidden_size), np.float32), 0
        while start < len(rows):
            longest = len(sequences[rows[start]]) + 2
            part = rows[start : start + max(1, TOKENS_PER_PADDED_BATCH // longest)]
            start += len(part)
            tokens = torch.full((len(part), longest), PAD)
            for index, row in zip(count(), part, strict=False):
                residues = torch.from_numpy(encode(sequences[row]).astype(np.int64))
                tokens[index, 0], tokens[index, 1 : len(residues) + 1], tokens[index, len(residues) + 1] = (
                    0,
                    residues,
                    2,
                )
            tokens = tokens.pin_memory().to(DEVICE, non_blocking=True)
            with torch.inference_mode():
                hidden = esm(tokens, attention_mask=tokens != PAD).last_hidden_state
                inside = (tokens > 2)[:, :, None]  # neither <cls>, <pad> nor <eos>
                vectors[part] = ((hidden.float() * inside).sum(1) / inside.sum(1)).cpu().numpy()
        return vectors

    return embed


if __name__ == "__main__":
    main()
