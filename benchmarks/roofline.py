"""The roofline of a machine: the rate of its matrix products, which no model can exceed."""

import functools
import importlib.metadata
import multiprocessing
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Literal

MATRIX_SIZE, NUM_PRODUCTS = 2048, 12


def matrix_rate_in_subprocess(
    threads: int, library: Literal["MKL", "oneDNN"] = "MKL", clock: Literal["seconds", "cpu_seconds"] = "seconds"
) -> float:
    """Measure `matrix_rate` in a separate process, so that this one does not load torch.

    A child's peak memory is never below its parent's.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(matrix_rate, threads, library, clock).result()


def matrix_rate(
    threads: int, library: Literal["MKL", "oneDNN"] = "MKL", clock: Literal["seconds", "cpu_seconds"] = "seconds"
) -> float:
    """Measure float32 matrix products in parallel, each on one thread, in operations per second.

    Torch uses MKL for `torch.mm`; protembed uses oneDNN in inference. CPU seconds are those of all threads, divided by
    their number.
    """
    import torch

    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    product = torch.mm
    if library == "oneDNN":
        product = functools.partial(torch.ops.mkldnn._linear_pointwise, B=None, attr="none", scalars=[], algorithm="")

    def multiply(_: int) -> None:
        torch.set_num_threads(1)
        for _ in range(NUM_PRODUCTS):
            product(matrix, matrix)

    now = time.perf_counter if clock == "seconds" else lambda: time.process_time() / threads
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            began = now()
            list(pool.map(multiply, range(threads)))
            seconds.append(now() - began)
    return threads * NUM_PRODUCTS * 2 * MATRIX_SIZE**3 / min(seconds)


def machine(packages: Sequence[str] = ("torch", "transformers")) -> dict[str, Any]:
    """Describe the machine and the versions of packages."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "load_at_the_end": round(os.getloadavg()[0], 1),
        **{name: importlib.metadata.version(name) for name in packages},
    }
