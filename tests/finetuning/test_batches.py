import itertools

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import make_crop
from protembed.data.windows import window_spans
from protembed.finetuning.targets import FinetuningBatches, LabelledDataset


def crops_of(batch):
    return [batch.tokens[start:stop].numpy() for start, stop in itertools.pairwise(batch.offsets)]


def labelled(proteins, task="classification", answers=None, window_residues=1022, micro_batch_tokens=512):
    """Make proteins whose class is their row, unless they have other answers."""
    residues, answers = list(map(encode, proteins)), answers or [np.array(row) for row in range(len(proteins))]
    limits = {"window_residues": window_residues, "micro_batch_tokens": micro_batch_tokens}
    return LabelledDataset(residues=residues, targets=answers, task=TASKS[task], **limits)


def labelled_plan(proteins, batch_tokens=512, seed=0):
    return FinetuningBatches(labelled(proteins), batch_tokens, seed)


def test_labels_travel_with_their_whole_proteins(proteins):
    plan = labelled_plan(proteins)
    seen = []

    for one in (one for step in range(plan.steps_per_epoch) for one in plan.micro_batches(step)):
        for crop, row, target in zip(crops_of(one), one.rows.tolist(), one.targets.tolist(), strict=True):
            assert crop.tolist() == [CLS, *encode(proteins[row]), EOS]
            assert target == row
            seen.append(row)
        assert one.num_residues == sum(len(proteins[row]) for row in one.rows)
        assert one.spans == [[(0, len(proteins[row]))] for row in one.rows]

    assert sorted(seen) == list(range(len(proteins)))


def test_a_labelled_step_is_a_function_of_seed_and_step_alone(proteins):
    walked = labelled_plan(proteins)
    steps = [[one.rows.tolist() for one in walked.micro_batches(step)] for step in range(2 * walked.steps_per_epoch)]

    for step in reversed(range(len(steps))):
        assert [one.rows.tolist() for one in labelled_plan(proteins).micro_batches(step)] == steps[step]
    assert [one.rows.tolist() for one in labelled_plan(proteins, seed=1).micro_batches(0)] != steps[0]
    assert steps[: walked.steps_per_epoch] != steps[walked.steps_per_epoch :]


def test_only_a_giant_makes_a_step_exceed_its_budget():
    plan = labelled_plan(["MKT" * 100, *["MKTAYIAKQR"] * 20], batch_tokens=64)
    steps = [plan.micro_batches(step) for step in range(plan.steps_per_epoch)]

    assert sorted(row for micro_batches in steps for one in micro_batches for row in one.rows.tolist()) == list(
        range(21)
    )
    assert sorted(sum(one.num_tokens for one in micro_batches) > 64 for micro_batches in steps) == [False] * (
        len(steps) - 1
    ) + [True]
    assert len(steps) >= 542 / 64


def test_labelled_packs_keep_the_order_they_are_asked_for_and_hold_the_budget(proteins):
    rows = np.random.default_rng(0).permutation(len(proteins)).tolist()

    for budget in (400, 1000):
        micro_batches = labelled(proteins, micro_batch_tokens=budget).micro_batches(rows)
        assert torch.cat([one.rows for one in micro_batches]).tolist() == rows
        assert all(torch.equal(one.targets, one.rows) for one in micro_batches)
        assert 1 < len(micro_batches) < len(proteins)
        assert all(one.num_tokens <= budget for one in micro_batches)


def test_the_windows_of_a_long_protein_are_all_in_one_batch(proteins):
    giant, other = max(proteins, key=len), proteins[1][:50]
    first, second = labelled([other, giant], window_residues=60, micro_batch_tokens=200).micro_batches([1, 0])

    spans = window_spans(len(giant), 60)
    assert (first.spans, second.spans) == ([spans], [[(0, 50)]])
    assert first.num_tokens > 200
    assert first.rows.tolist() == [1] * len(spans)
    assert [crop.tolist() for crop in crops_of(first)] == [make_crop(encode(giant), *span).tolist() for span in spans]
    assert (first.targets.tolist(), second.targets.tolist()) == ([1], [0])
    assert (first.num_residues, second.num_residues) == (len(giant), 50)


def test_windows_and_whole_proteins_share_a_batch(proteins):
    chosen = [proteins[1][:50], max(proteins, key=len)[:150]]
    (one,) = labelled(chosen, window_residues=60).micro_batches([1, 0])

    assert one.spans == [[(0, 60), (45, 105), (90, 150)], [(0, 50)]]
    assert one.rows.tolist() == [1, 1, 1, 0]
    assert one.targets.tolist() == [1, 0]
    assert one.num_residues == 200


def test_what_two_windows_share_costs_twice(proteins):
    whole, in_windows = labelled(proteins), labelled(proteins, window_residues=60)

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
def test_targets_have_the_shape_and_type_that_the_loss_wants(task):
    answers, dtype, expected = TARGETS[task]
    (one,) = labelled(["MKT", "AY"], task, answers).micro_batches([0, 1])

    assert one.targets.dtype == dtype
    np.testing.assert_array_equal(one.targets, expected)


def test_targets_of_residues_follow_their_proteins(proteins):
    answers = [encode(protein).astype(np.int64) for protein in proteins]
    rows = np.random.default_rng(0).permutation(len(proteins)).tolist()

    for one in labelled(proteins, "residue-classification", answers).micro_batches(rows):
        assert torch.equal(one.targets, one.tokens[(one.tokens != CLS) & (one.tokens != EOS)])
