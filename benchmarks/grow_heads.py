"""Give a model fewer and wider heads, and fit their attention to that of its own heads.

    python benchmarks/grow_heads.py MODEL train.fasta OUT [--joined 4] [--minutes 10] [--threads 2]

MODEL is an ESM-2 (any value of `--model`), whose number of heads is a multiple of `--joined`. A wide head begins with
the sum of the attention logits of its heads, whose rotary pairs are moved to the nearest frequencies of the wide one.
Then each layer's attention alone learns what the attention of MODEL gives for the same input, on random crops in
bfloat16; everything else stays as it is. `protembed pretrain --init-from OUT --teacher MODEL` continues from there.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from protembed.config.common import MICRO_BATCH_TOKENS
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.batching import MaskedBatch
from protembed.device import WorkerPool
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.encoder import Encoder, PackedLayout
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.corpus import build_corpora, open_corpora

BATCHES, MASKING = BatchConfig(batch_tokens=4096, crop_residues=512), MaskingConfig(mask_rate=0.2)
LEARNING_RATE, WARMUP_STEPS, DECAYING_FRACTION = 1e-3, 50, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--joined", type=int, default=4, help="heads that become one")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    model = load_checkpoint(options.model)
    grown = join_heads(model, options.joined)
    with TemporaryDirectory() as folder:
        build_corpora(Path(folder) / "corpus", [options.fasta], [])
        train = open_corpora(Path(folder) / "corpus").train
        batches = PretrainingBatches(train, BATCHES, MICRO_BATCH_TOKENS, MASKING, seed=0)
        with WorkerPool(options.threads) as pool:
            fit_attention(model.encoder, grown.encoder, batches, options.minutes, pool)
    save_checkpoint(grown, options.output, f"The heads of {options.model} joined by {options.joined}.\n")


def join_heads(model: Checkpoint, joined: int) -> Checkpoint:
    """Copy a model into a shape whose heads are wider; each sums the attention logits of the heads that it joins."""
    shape = model.encoder.shape
    grown = new_checkpoint(replace(shape, num_heads=shape.num_heads // joined), "gaussian", seed=0)
    rows = rows_of_joined_heads(shape.num_heads, shape.head_dim, joined)
    state = model.encoder.state_dict()
    for name in state:
        if ".attention.qkv." in name:
            query, key, value = state[name].chunk(3)
            # The product of queries and keys is divided by the square root of a width that is larger now.
            factor = joined**0.25
            state[name] = torch.cat((query[rows] * factor, key[rows] * factor, value))
    grown.encoder.load_state_dict(state)
    grown.require_lm_head().load_state_dict(model.require_lm_head().state_dict())
    grown.metadata = replace(grown.metadata, window_residues=model.metadata.window_residues)
    return grown


def rows_of_joined_heads(num_heads: int, head_dim: int, joined: int) -> Tensor:
    """Return the row of the narrow heads' queries for each row of the wide ones', (dim,), int64.

    The wide head has `joined` times as many frequencies: pair k of a narrow head moves to pairs `joined` · k and
    following, one for each head.

    >>> rows_of_joined_heads(num_heads=2, head_dim=4, joined=2).tolist()
    [0, 4, 1, 5, 2, 6, 3, 7]
    """
    # (wide head, narrow head in it, half, pair) becomes (wide head, half, pair, narrow head).
    rows = torch.arange(num_heads * head_dim).view(num_heads // joined, joined, 2, head_dim // 2)
    return rows.permute(0, 2, 3, 1).flatten()


def fit_attention(
    model: Encoder, grown: Encoder, batches: PretrainingBatches, minutes: float, pool: WorkerPool
) -> None:
    """Train the attention of each layer to give the output of the model's own, in place, for some minutes."""
    weights = [weight for layer in grown.layers for weight in layer.attention.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    compute = partial(compute_gradients, model, grown, weights)
    began, step, num_tokens = time.monotonic(), 0, 0
    while (seconds := time.monotonic() - began) < 60 * minutes:
        factor = min(1, (step + 1) / WARMUP_STEPS, (1 - seconds / (60 * minutes)) / DECAYING_FRACTION)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * factor
        micro_batches = batches.micro_batches(step)
        results = list(pool.map(compute, micro_batches))
        for weight, *gradients in zip(weights, *(gradients for gradients, _ in results), strict=True):
            weight.grad = torch.stack(gradients).mean(0)
        optimizer.step()
        step += 1
        num_tokens += sum(len(batch.tokens) for batch in micro_batches)
        if step % 50 == 0:
            errors = torch.stack([errors for _, errors in results]).mean(0).tolist()
            print(f"step {step}, {num_tokens:,} tokens: unexplained {', '.join(f'{error:.3f}' for error in errors)}")


def compute_gradients(
    model: Encoder, grown: Encoder, weights: Sequence[Tensor], batch: MaskedBatch
) -> tuple[Sequence[Tensor], Tensor]:
    """Compute the unexplained fraction of each layer's attention output, (layers,), and the gradients of its sum."""
    fractions = []
    # The layouts too: where products are in bfloat16, they have few numbers of rows.
    with torch.autocast("cpu", torch.bfloat16):
        layout, wide_layout = model.layout(batch.offsets), grown.layout(batch.offsets)
        for layer, (inputs, expected) in zip(grown.layers, outputs_of_attention(model, batch, layout), strict=True):
            output = layer.attention(inputs, wide_layout, torch.zeros_like(inputs)).float()
            fractions.append((output - expected).square().mean() / (expected - expected.mean(0)).square().mean())
    unexplained = torch.stack(fractions)
    return torch.autograd.grad(unexplained.sum(), weights), unexplained.detach()


@torch.no_grad()
def outputs_of_attention(model: Encoder, batch: MaskedBatch, layout: PackedLayout) -> list[tuple[Tensor, Tensor]]:
    """Compute what each layer's attention reads and adds to the residual stream, (tokens + padding, dim) each."""
    outputs, state = [], model.embed(batch.tokens, layout)
    state = F.pad(state, (0, 0, 0, layout.num_padding))
    for layer in model.layers:
        inputs = layer.attention_norm(state)
        added = layer.attention(inputs, layout, torch.zeros_like(state)).float()
        outputs.append((inputs, added))
        state = layer.feed_forward(layer.feed_forward_norm(state + added), state + added)
    return outputs


if __name__ == "__main__":
    main()
