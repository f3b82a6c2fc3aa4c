"""Reproducibility: do the same proteins give the same bits in new processes and pools on a busy machine?

    python benchmarks/same_bits.py data.fasta [--model MODEL] [--processes 2000] [--pools 2] [--threads 2] [--load 2]
        [--late-kernels]

Each process is forked before any matrix was multiplied, and computes the same micro-batches in several pools of
threads: every second process as `embed` does, the others with the bytes of each operator's result hashed, so that a
difference can be traced to an operator. The reference is computed on one thread. With `--late-kernels`, the kernels are
first used by the threads, as before `device.load_kernels`. A small model allows more processes in the same time. CPUs
only.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from protembed import device
from protembed.data.alphabet import encode
from protembed.data.batching import Batch, concatenate, make_crop, split_by_budget
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.model.pooling import residues_of

TOKENS_PER_BATCH = 1024
FORK = multiprocessing.get_context("fork")

# For each micro-batch, its operators with the hashes of their results, or the hash of its vectors.
Trace = list[list[tuple[str, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--processes", type=int, default=2000)
    parser.add_argument("--pools", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--load", type=int, default=2, help="processes that multiply matrices meanwhile")
    parser.add_argument("--proteins", type=int, default=20)
    parser.add_argument("--late-kernels", action="store_true")
    arguments = parser.parse_args()
    # A process that has used OpenMP's threads cannot be forked.
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.model)
    sequences = [record.sequence for record in read_fasta([arguments.fasta])][: arguments.proteins]
    reference = {traced: in_fork(trace, checkpoint, sequences, 1, 1, traced, False)[0] for traced in (True, False)}
    first_operators = Counter[str]()
    began, num_different = time.monotonic(), 0
    load = [FORK.Process(target=multiply_forever, daemon=True) for _ in range(arguments.load)]
    for busy in load:
        busy.start()
    for number in range(arguments.processes):
        traced = number % 2 == 1
        settings = (arguments.threads, arguments.pools, traced, arguments.late_kernels)
        differences = [
            name
            for process_trace in in_fork(trace, checkpoint, sequences, *settings)
            for name in differing(process_trace, reference[traced])
        ]
        num_different += bool(differences)
        first_operators.update(differences)
    for busy in load:
        busy.terminate()
    print(
        json.dumps(
            {
                "processes": arguments.processes,
                "micro_batches": len(reference[False]),
                "pools": arguments.pools,
                "late_kernels": arguments.late_kernels,
                "different_processes": num_different,
                "first_operators_that_differ": first_operators,
                "seconds": round(time.monotonic() - began),
            },
            indent=2,
        )
    )


def in_fork(function: Any, *arguments: Any) -> list[Trace]:
    """Call a function in a forked process."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()  # so that the death of the child is noticed
    try:
        result: list[Trace] = receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"a process died with status {process.exitcode}") from None
    process.join()
    return result


def trace(
    checkpoint: Checkpoint,
    sequences: Sequence[str],
    num_threads: int,
    num_pools: int,
    is_traced: bool,
    late_kernels: bool,
) -> list[Trace]:
    """Compute all micro-batches in each of several pools, one after the other."""
    if late_kernels:
        device.load_kernels = lambda: None  # type: ignore[assignment]
    crops = [make_crop(encode(sequence), 0, len(sequence)) for sequence in sequences]
    parts = split_by_budget([len(crop) for crop in crops], TOKENS_PER_BATCH)
    batches = [concatenate(crops[part], range(len(crops))[part]) for part in parts]
    if num_threads > 1:
        random.Random(os.getpid()).shuffle(order := list(range(len(batches))))
    else:
        order = list(range(len(batches)))

    def compute(number: int) -> list[tuple[str, str]]:
        with torch.inference_mode():
            return (
                traced(checkpoint, batches[number])
                if is_traced
                else [("the vectors", embed(checkpoint, batches[number]))]
            )

    traces = []
    for _ in range(num_pools):
        with WorkerPool(num_threads) as workers:
            results = dict(zip(order, workers.map(compute, order, num_per_worker=2), strict=True))
        traces.append([results[number] for number in range(len(batches))])
    return traces


def embed(checkpoint: Checkpoint, batch: Batch) -> str:
    layout = checkpoint.encoder.layout(batch.offsets)
    proteins = layout.split(checkpoint.encoder(batch.tokens.long(), layout))
    return digest(torch.stack([residues_of(protein).mean(0) for (protein,) in proteins]))


def traced(checkpoint: Checkpoint, batch: Batch) -> list[tuple[str, str]]:
    with Recorder() as recorder:
        embed(checkpoint, batch)
    return recorder.results


class Recorder(TorchFunctionMode):
    """Hashes the result of each of torch's functions that a thread calls.

    A `TorchDispatchMode` would see the operators beneath them too, but ends processes of several threads now and then
    by a segmentation fault (torch 2.13, in `find_torch_dispatch_rule`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[str, str]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", str(function))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, torch.Tensor) and not name.startswith("empty"):
                self.results.append((name, digest(part)))
        return result


def digest(values: torch.Tensor) -> str:
    return hashlib.blake2b(values.contiguous().view(-1).numpy().tobytes(), digest_size=8).hexdigest()


def differing(process_trace: Trace, reference: Trace) -> list[str]:
    """Name the first operator of each micro-batch whose result differs from the reference."""
    names = []
    for batch, expected in zip(process_trace, reference, strict=True):
        assert [name for name, _ in batch] == [name for name, _ in expected]
        names += [
            name
            for (name, value), (_, reference_value) in zip(batch, expected, strict=True)
            if value != reference_value
        ][:1]
    return names


def multiply_forever() -> None:
    matrix = torch.rand(512, 512)
    while True:
        matrix = (matrix @ matrix).clamp(0, 1)


if __name__ == "__main__":
    main()
