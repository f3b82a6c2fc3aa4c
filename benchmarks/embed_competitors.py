"""Embed proteins with protembed or with one of its competitors, in a separate process; `embed.py` runs all in turn.

    python benchmarks/embed_competitors.py ARM MODEL proteins.fasta THREADS [float32|bfloat16]

MODEL is a directory that transformers reads. The precision is that of protembed and of transformers, unless the name of
the arm says another; the others compute in float32, except for OpenVINO at its default precision, which is bfloat16 on
CPUs that have it. Every arm has its best settings for a CPU: THREADS processes or streams of one thread each, started
and warmed up before the clock starts. Prints one line of JSON: the seconds, the CPU seconds per thread, the peak
memory, and the mean of all vectors, which must agree between arms.
"""

import json
import multiprocessing
import os
import queue
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import CLS, EOS, PAD, encode
from protembed.data.fasta import read_fasta

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
NUM_WARMUP = 4
# The default of fair-esm for `esm-extract --toks_per_batch`, and the budget of the sorted batches.
TOKENS_PER_BATCH = 4096
SEQUENCES_PER_BATCH = 8
PRECISION = "BENCHMARK_PRECISION"
AUTOCAST = "autocast"  # transformers in float32, within torch.autocast to bfloat16


def main() -> None:
    arm, model, fasta, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    os.environ[PRECISION] = sys.argv[5] if len(sys.argv) > 5 else "float32"  # the processes of a pool read it
    sequences = [record.sequence for record in read_fasta([fasta])]
    with ARMS[arm](model, threads) as embed:
        embed(sequences[:NUM_WARMUP] * threads)
        _state["cpu_seconds"] = 0.0
        began, cpu_began = time.perf_counter(), time.process_time()
        vectors = embed(sequences)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began + _state["cpu_seconds"]
    assert len(vectors) == len(sequences)
    # The processes of a pool have ended, and only the peak of the largest one is known.
    peak = usage(resource.RUSAGE_SELF) + threads * usage(resource.RUSAGE_CHILDREN)
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds / threads}
    print(json.dumps({**times, "peak_bytes": peak, "mean": vectors.mean(0).astype(float).tolist()}))


def usage(whose: int) -> int:
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# protembed


@contextmanager
def protembed(model: Path, threads: int) -> Iterator[Embed]:
    import torch

    from protembed.config.common import DeviceConfig
    from protembed.device import choose_device, worker_pool
    from protembed.inference.embedding import Embedder
    from protembed.inference.engine import Engine
    from protembed.model.checkpoint import load_checkpoint

    compute = DeviceConfig(device="cpu", threads=threads)
    embedder = Embedder.from_checkpoint(load_checkpoint(model, precision=getattr(torch, os.environ[PRECISION])))
    with worker_pool(compute, choose_device(compute)) as pool:
        engine = Engine(pool=pool)

        def embed(sequences: Sequence[str]) -> Vectors:
            records = [Protein(sequence) for sequence in sequences]
            return np.stack([embedding.values for _, embedding in engine.run(embedder.proteins(), records)])

        yield embed


class Protein:
    def __init__(self, sequence: str) -> None:
        self.sequence = sequence


# Processes of one thread each: PyTorch peers


_state: dict[str, Any] = {}


@contextmanager
def in_processes(
    threads: int, start: Callable[[Path], None], model: Path, batch: Callable[[Sequence[str]], list[list[int]]]
) -> Iterator[Embed]:
    """Distribute batches to processes; each gets the next one when it has finished one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(threads, mp_context=context, initializer=start, initargs=(model,)) as pool:

        def embed(sequences: Sequence[str]) -> Vectors:
            batches = batch(sequences)
            parts = list(pool.map(_compute, [[sequences[row] for row in rows] for rows in batches]))
            _state["cpu_seconds"] = sum(seconds for _, seconds in parts)
            rows = np.concatenate([np.array(rows) for rows in batches])
            return np.concatenate([vectors for vectors, _ in parts])[np.argsort(rows)]

        yield embed


def _compute(sequences: Sequence[str]) -> tuple[Vectors, float]:
    """Return the vectors and the seconds of CPU time that they took."""
    began = time.process_time()
    vectors: Vectors = _state["compute"](sequences)
    return vectors, time.process_time() - began


def start_transformers(model: Path, is_compiled: bool = False) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    is_mixed = os.environ[PRECISION] == AUTOCAST
    dtype = torch.float32 if is_mixed else getattr(torch, os.environ[PRECISION])
    esm = AutoModelForMaskedLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa").base_model.eval()
    if is_compiled:
        esm = torch.compile(esm, dynamic=True)  # one graph for all lengths

    def compute(sequences: Sequence[str]) -> Vectors:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            inputs = tokenizer(list(sequences), return_tensors="pt", padding=len(sequences) > 1)
            hidden = esm(**inputs).last_hidden_state
            return np.stack(
                [
                    states[1 : len(sequence) + 1].float().mean(0).numpy()
                    for states, sequence in zip(hidden, sequences, strict=True)
                ]
            )

    _state["compute"] = compute


def start_fair_esm(model: Path) -> None:
    """Load the weights into fair-esm's class, and embed as its `scripts/extract.py` does."""
    import esm
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    config = json.loads((model / "config.json").read_text())
    network = esm.ESM2(config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]).eval()
    missing = network.load_state_dict(dict(fair_esm_names(load_file(model / "model.safetensors"))), strict=False)
    assert not missing.unexpected_keys
    assert all("inv_freq" in name or "contact" in name or "lm_head" in name for name in missing.missing_keys)
    convert = network.alphabet.get_batch_converter(1022)

    def compute(sequences: Sequence[str]) -> Vectors:
        with torch.no_grad():
            _, _, tokens = convert([(str(row), sequence) for row, sequence in enumerate(sequences)])
            hidden = network(tokens, repr_layers=[network.num_layers], return_contacts=False)
            states = hidden["representations"][network.num_layers]
            return np.stack(
                [states[row, 1 : len(sequence) + 1].mean(0).numpy() for row, sequence in enumerate(sequences)]
            )

    _state["compute"] = compute


def fair_esm_names(weights: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Translate transformers' weight names to those of fair-esm."""
    table = {
        "esm.embeddings.word_embeddings": "embed_tokens",
        "esm.encoder.emb_layer_norm_after": "emb_layer_norm_after",
        "esm.encoder.layer.": "layers.",
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.out_proj",
        "attention.LayerNorm": "self_attn_layer_norm",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "LayerNorm": "final_layer_norm",
        ".gamma": ".weight",
        ".beta": ".bias",
    }
    for name, value in weights.items():
        if name.startswith("esm.") and "inv_freq" not in name and "contact_head" not in name:
            for old, new in table.items():
                name = name.replace(old, new)
            yield name, value


def one_by_one(sequences: Sequence[str]) -> list[list[int]]:
    return [[row] for row in range(len(sequences))]


def file_order(sequences: Sequence[str]) -> list[list[int]]:
    return [
        list(range(start, min(start + SEQUENCES_PER_BATCH, len(sequences))))
        for start in range(0, len(sequences), SEQUENCES_PER_BATCH)
    ]


def under_budget(sequences: Sequence[str]) -> list[list[int]]:
    """Sort by length, and fill batches whose padded size stays below the budget."""
    batches: list[list[int]] = []
    for row in sorted(range(len(sequences)), key=lambda row: len(sequences[row])):
        longest = len(sequences[row]) + 2
        if batches and longest * (len(batches[-1]) + 1) <= TOKENS_PER_BATCH:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


# Streams: compiled graphs


@contextmanager
def onnx_runtime(model: Path, threads: int) -> Iterator[Embed]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_file(model)), options, providers=["CPUExecutionProvider"])

    def compute(sequence: str) -> Vectors:
        tokens = tokens_of(sequence)
        (hidden,) = session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
        vector: Vectors = hidden[0, 1:-1].mean(0)
        return vector

    with ThreadPoolExecutor(threads) as pool:
        yield lambda sequences: np.stack(list(pool.map(compute, sequences)))


@contextmanager
def openvino(model: Path, threads: int, precision: str = "f32") -> Iterator[Embed]:
    """Compute with OpenVINO in a precision, or at its default with an empty string."""
    import openvino as ov

    settings = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    settings |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = ov.Core().compile_model(ov.Core().read_model(onnx_file(model)), "CPU", settings)

    # One request per thread, because the callbacks of AsyncInferQueue deadlock with the thread that waits for them.
    requests = queue.SimpleQueue[Any]()
    for _ in range(threads):
        requests.put(compiled.create_infer_request())

    def compute(sequence: str) -> Vectors:
        tokens, request = tokens_of(sequence), requests.get()
        request.infer({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
        vector: Vectors = request.get_output_tensor().data[0, 1:-1].mean(0)
        requests.put(request)
        return vector

    with ThreadPoolExecutor(threads) as pool:
        yield lambda sequences: np.stack(list(pool.map(compute, sequences)))


def tokens_of(sequence: str) -> NDArray[np.int64]:
    return np.array([[CLS, *encode(sequence), EOS]], dtype=np.int64)


def onnx_file(model: Path) -> Path:
    """Export the model to ONNX in its directory, once."""
    path = model / "model.onnx"
    if not path.exists():
        export(model, path)
    return path


def export(model: Path, path: Path) -> None:
    import torch
    from transformers import EsmModel

    esm = EsmModel.from_pretrained(model, add_pooling_layer=False, attn_implementation="sdpa").eval()

    class LastHiddenState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.esm = esm

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.esm(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    tokens = torch.full((1, 16), PAD + 5)
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "hidden")}
    with tempfile.TemporaryDirectory(dir=model) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LastHiddenState(),
            (tokens, torch.ones_like(tokens)),
            f"{folder}/model.onnx",
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            dynamic_axes=axes,
            dynamo=False,
        )
        os.replace(f"{folder}/model.onnx", path)


@contextmanager
def in_precision(precision: str, arm: Callable[[Path, int], Any], model: Path, threads: int) -> Iterator[Embed]:
    """Compute as an arm does, in a precision of its name."""
    os.environ[PRECISION] = precision
    with arm(model, threads) as embed:
        yield embed


ARMS: dict[str, Callable[[Path, int], Any]] = {
    "protembed": protembed,
    "transformers, one by one": lambda model, threads: in_processes(threads, start_transformers, model, one_by_one),
    "transformers, file order, 8": lambda model, threads: in_processes(threads, start_transformers, model, file_order),
    "transformers, sorted, 4,096 tokens": lambda model, threads: in_processes(
        threads, start_transformers, model, under_budget
    ),
    "transformers, compiled": lambda model, threads: in_processes(
        threads, partial(start_transformers, is_compiled=True), model, one_by_one
    ),
    "fair-esm extract": lambda model, threads: in_processes(threads, start_fair_esm, model, under_budget),
    "ONNX Runtime, one by one": onnx_runtime,
    "OpenVINO, one by one": openvino,
    "OpenVINO, default precision": lambda model, threads: openvino(model, threads, precision=""),
}
ARMS["protembed, float32"] = partial(in_precision, "float32", protembed)
ARMS["transformers, autocast"] = partial(in_precision, AUTOCAST, ARMS["transformers, one by one"])
OPTIONAL = ("compiled", "default precision", "float32", "autocast")
FLOAT32_ARMS = [arm for arm in ARMS if arm.split(", ")[-1] not in OPTIONAL]

if __name__ == "__main__":
    main()
