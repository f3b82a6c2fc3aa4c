import itertools

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import make_crop
from protembed.data.windows import window_spans
from protembed.finetuning.batches import FinetuningBatches, LabelledDataset
from protembed.training.distributed import ProcessGroup


def crops_of(batch):
    return [batch.tokens[start:stop].numpy() for start, stop in itertools.pairwise(batch.offsets)]


def dataset_of(proteins, task="classification", targets=None, window_residues=1022, micro_batch_tokens=512):
    """Make a dataset whose targets are the rows of the proteins, unless others are given."""
    residues, targets = list(map(encode, proteins)), targets or [np.array(row) for row in range(len(proteins))]
    limits = {"window_residues": window_residues, "micro_batch_tokens": micro_batch_tokens}
    return LabelledDataset(residues=residues, targets=targets, task=TASKS[task], **limits)


def batches_of(proteins, batch_tokens=512, seed=0):
    return FinetuningBatches(dataset_of(proteins), batch_tokens, seed)


def test_each_target_is_in_the_row_of_its_protein(proteins):
    batches = batches_of(proteins)
    seen = []

    for batch in (batch for step in range(batches.steps_per_epoch) for batch in batches.micro_batches(step)):
        for crop, row, target in zip(crops_of(batch), batch.rows.tolist(), batch.targets.tolist(), strict=True):
            assert crop.tolist() == [CLS, *encode(proteins[row]), EOS]
            assert target == row
            seen.append(row)
        assert batch.num_residues == sum(len(proteins[row]) for row in batch.rows)
        assert batch.spans == [[(0, len(proteins[row]))] for row in batch.rows]

    assert sorted(seen) == list(range(len(proteins)))


def test_the_batch_of_a_step_depends_only_on_seed_and_step(proteins):
    in_order = batches_of(proteins)
    steps = [
        [batch.rows.tolist() for batch in in_order.micro_batches(step)] for step in range(2 * in_order.steps_per_epoch)
    ]

    for step in reversed(range(len(steps))):
        assert [batch.rows.tolist() for batch in batches_of(proteins).micro_batches(step)] == steps[step]
    assert [batch.rows.tolist() for batch in batches_of(proteins, seed=1).micro_batches(0)] != steps[0]
    assert steps[: in_order.steps_per_epoch] != steps[in_order.steps_per_epoch :]


def test_only_a_very_long_protein_makes_a_step_exceed_its_budget():
    batches = batches_of(["MKT" * 100, *["MKTAYIAKQR"] * 20], batch_tokens=64)
    steps = [batches.micro_batches(step) for step in range(batches.steps_per_epoch)]

    assert sorted(row for micro_batches in steps for batch in micro_batches for row in batch.rows.tolist()) == list(
        range(21)
    )
    assert sorted(sum(batch.num_tokens for batch in micro_batches) > 64 for micro_batches in steps) == [False] * (
        len(steps) - 1
    ) + [True]
    assert len(steps) >= 542 / 64


def test_micro_batches_keep_the_requested_order_and_the_token_budget(proteins):
    rows = np.random.default_rng(0).permutation(len(proteins)).tolist()

    for budget in (400, 1000):
        micro_batches = dataset_of(proteins, micro_batch_tokens=budget).micro_batches(rows)
        assert torch.cat([batch.rows for batch in micro_batches]).tolist() == rows
        assert all(torch.equal(batch.targets, batch.rows) for batch in micro_batches)
        assert 1 < len(micro_batches) < len(proteins)
        assert all(batch.num_tokens <= budget for batch in micro_batches)


def test_the_windows_of_a_long_protein_are_all_in_one_batch(proteins):
    longest, short = max(proteins, key=len), proteins[1][:50]
    first, second = dataset_of([short, longest], window_residues=60, micro_batch_tokens=200).micro_batches([1, 0])

    spans = window_spans(len(longest), 60)
    assert (first.spans, second.spans) == ([spans], [[(0, 50)]])
    assert first.num_tokens > 200
    assert first.rows.tolist() == [1] * len(spans)
    assert [crop.tolist() for crop in crops_of(first)] == [make_crop(encode(longest), *span).tolist() for span in spans]
    assert (first.targets.tolist(), second.targets.tolist()) == ([1], [0])
    assert (first.num_residues, second.num_residues) == (len(longest), 50)


def test_windows_and_whole_proteins_can_be_in_one_batch(proteins):
    chosen = [proteins[1][:50], max(proteins, key=len)[:150]]
    (batch,) = dataset_of(chosen, window_residues=60).micro_batches([1, 0])

    assert batch.spans == [[(0, 60), (45, 105), (90, 150)], [(0, 50)]]
    assert batch.rows.tolist() == [1, 1, 1, 0]
    assert batch.targets.tolist() == [1, 0]
    assert batch.num_residues == 200


def test_tokens_that_two_windows_share_are_counted_twice(proteins):
    whole, in_windows = dataset_of(proteins), dataset_of(proteins, window_residues=60)

    for row, protein in enumerate(proteins):
        assert whole.num_tokens(row) == len(protein) + 2
        assert in_windows.num_tokens(row) == in_windows.micro_batches([row])[0].num_tokens
    assert max(in_windows.num_tokens(row) - whole.num_tokens(row) for row in range(len(proteins))) > 60


TARGETS = {
    "classification": ([np.array(2), np.array(0)], torch.int64, [2, 0]),
    "multilabel": (list(np.array([[1, 0, 1], [0, 0, 0]], np.float32)), torch.float32, [[1, 0, 1], [0, 0, 0]]),
    "regression": ([np.array(1.5), np.array(-2.0)], torch.float32, [1.5, -2]),
    "residue-classification": ([np.array([2, -1, 0]), np.array([1, 1])], torch.int64, [2, -1, 0, 1, 1]),
    "residue-regression": ([np.array([0.5, np.nan, 1]), np.array([3.0, -4])], torch.float32, [0.5, np.nan, 1, 3, -4]),
}


@pytest.mark.parametrize("task", TASKS)
def test_targets_have_the_shape_and_dtype_that_the_loss_expects(task):
    targets, dtype, expected = TARGETS[task]
    (batch,) = dataset_of(["MKT", "AY"], task, targets).micro_batches([0, 1])

    assert batch.targets.dtype == dtype
    np.testing.assert_array_equal(batch.targets, expected)


def test_targets_of_residues_follow_their_proteins(proteins):
    targets = [encode(protein).astype(np.int64) for protein in proteins]
    rows = np.random.default_rng(0).permutation(len(proteins)).tolist()

    for batch in dataset_of(proteins, "residue-classification", targets).micro_batches(rows):
        assert torch.equal(batch.targets, batch.tokens[(batch.tokens != CLS) & (batch.tokens != EOS)])


@pytest.mark.parametrize("num_processes", [2, 5])
def test_processes_divide_each_step_into_shares_of_similar_size(proteins, num_processes):
    alone, dataset = batches_of(proteins, batch_tokens=2048), dataset_of(proteins)
    shares = [FinetuningBatches(dataset, 2048, 0, ProcessGroup(rank, num_processes)) for rank in range(num_processes)]

    for step in range(alone.steps_per_epoch):
        whole = alone.micro_batches(step)
        parts = [share.micro_batches(step) for share in shares]

        assert sorted(row for part in parts for batch in part for row in batch.rows.tolist()) == sorted(
            row for batch in whole for row in batch.rows.tolist()
        )
        tokens = [sum(batch.num_tokens for batch in part) for part in parts]
        longest = max(dataset.num_tokens(row) for batch in whole for row in batch.rows.tolist())
        assert max(tokens) - min(tokens) <= longest


def test_a_process_without_a_protein_in_a_step_has_no_micro_batch():
    shares = [FinetuningBatches(dataset_of(["MKT" * 10]), 64, 0, ProcessGroup(rank, 2)) for rank in range(2)]

    assert [len(share.micro_batches(0)) for share in shares] == [1, 0]
