"""Numbers of rows of products in bfloat16 on a CPU: oneDNN keeps compiled code for each, and never frees it."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from protembed.config.common import TASKS
from protembed.data.alphabet import encode
from protembed.data.batching import MaskedBatch
from protembed.finetuning.batches import LabelledDataset
from protembed.model.heads import TaskHead
from protembed.training.objective import MaskedLM, SupervisedObjective

PRODUCTS = {getattr(torch.ops.aten, name).default for name in ("mm", "mv", "addmm", "linear")}
# Of the tiny shapes: widths of the residual stream, the feed-forward part, and queries, keys and values.
WIDTHS = {32, 64, 96, 128, 192}


class HalfProducts(TorchDispatchMode):
    """Collects the sizes of the matrices that are multiplied in bfloat16."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        if function in PRODUCTS and arguments[-1].dtype == torch.bfloat16:
            self.sizes += [size for matrix in arguments[-2:] for size in matrix.shape]
        return function(*arguments, **(settings or {}))


def collect_sizes(objective, batch):
    with HalfProducts() as products:
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(batch)
        torch.autograd.grad(loss.sum, list(objective.parameters()), allow_unused=True)
    return products.sizes


def expect_few_rows(sizes, num_layers):
    rows = {size for size in sizes if size not in WIDTHS}
    assert len(sizes) >= 2 * 3 * 4 * num_layers  # of two matrices, forwards and twice backwards, of four products
    assert {size % 64 for size in rows} <= {0}, rows


@pytest.fixture(scope="module")
def lengths():
    """Crops of 71 to 300 residues."""
    return [71, 103, 300]


def test_masked_training_multiplies_few_numbers_of_rows(family_checkpoint, whole_batch, proteins, lengths):
    objective = MaskedLM(family_checkpoint.encoder, family_checkpoint.lm_head)
    for length in lengths:
        batch, positions = whole_batch([(proteins[0] * 5)[:length]]), torch.arange(1, length, 7)
        targets = batch.tokens[positions].long()
        masked = MaskedBatch(**vars(batch), positions=positions, targets=targets, num_residues=length)
        expect_few_rows(collect_sizes(objective, masked), family_checkpoint.encoder.shape.num_layers)


@pytest.mark.parametrize(
    ("task", "pooling", "target"),
    [("classification", "mean", 0), ("classification", "attention", 0), ("residue-classification", "mean", [0] * 71)],
)
def test_supervised_training_multiplies_few_numbers_of_rows(family_encoder, proteins, task, pooling, target):
    head = TaskHead(32, TASKS[task], ("a", "b"), query_dim=32 if pooling == "attention" else None)
    dataset = LabelledDataset(
        residues=[encode((proteins[0] * 5)[:71])], targets=[np.array(target)], task=TASKS[task], window_residues=1022
    )
    (batch,) = dataset.micro_batches(range(1))

    sizes = collect_sizes(SupervisedObjective(family_encoder, head, (pooling,), None), batch)

    expect_few_rows(sizes, family_encoder.shape.num_layers)


@pytest.mark.parametrize("length", [71, 1500])
def test_inference_in_bfloat16_multiplies_few_numbers_of_rows(family_encoder, family_shape, length):
    length = min(length, family_shape.max_residues or length)
    family_encoder.set_compute_dtype(torch.bfloat16)

    with torch.inference_mode():
        layout = family_encoder.layout(torch.tensor([0, length]))
        selected = layout.select(torch.arange(0, length, 3))

    assert (length + layout.num_padding) % 64 == 0
    assert len(selected.rows) % 64 == 0
