import copy
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from protembed.config.common import TASKS, OptimizerConfig
from protembed.config.model_sizes import ESM2Shape
from protembed.data.alphabet import AMINO_ACID_IDS, encode
from protembed.device import WorkerPool
from protembed.errors import DivergedError
from protembed.finetuning.batches import LabelledDataset
from protembed.model.checkpoint import new_checkpoint
from protembed.model.heads import TaskHead
from protembed.training import checkpoints
from protembed.training.checkpoints import Checkpoints
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, take_step, train
from protembed.training.objective import LossSum, MaskedLM, Objective, SupervisedObjective
from protembed.training.optimizer import make_optimizers, set_learning_rate
from protembed.training.schedule import make_schedule

SGD = OptimizerConfig(optimizer="sgd", learning_rate=0.5)
ADAMW = OptimizerConfig(optimizer="adamw", learning_rate=0.01)
MUON = OptimizerConfig(optimizer="muon", learning_rate=0.01)
RATES = {"muon": 2e-3, "adamw": 1e-3, "sgd": 0.1}


def cycle(*steps):
    """Repeat the micro-batches of the given steps."""
    return lambda step: steps[step % len(steps)]


@pytest.fixture
def regression(tiny_encoder):
    """An objective that predicts a value from the output of the first layer; the second layer is not used."""
    head = TaskHead(32, TASKS["regression"], None)
    with torch.no_grad():
        head.linear.weight.fill_(0.1)
    return SupervisedObjective(tiny_encoder, head, ["mean"], layer=1)


@pytest.fixture(scope="session")
def value_batches(proteins):
    """Make the micro-batch of one protein with a value as its target."""

    def make(value):
        dataset = LabelledDataset(
            residues=[encode(proteins[2])],
            targets=[np.array(value)],
            task=TASKS["regression"],
            window_residues=1022,
        )
        return dataset.micro_batches([0])

    return make


def training_of(objective, pool, config=ADAMW, learning_rate=0.01, micro_batches=None, precision=torch.float32):
    executor = Executor(pool=pool, precision=precision)
    optimizers = make_optimizers(objective, config.optimizer, config.weight_decay, executor)
    set_learning_rate(optimizers, learning_rate)
    return TrainingSetup(objective=objective, micro_batches=micro_batches, optimizers=optimizers, executor=executor)


def parameters_of(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


# One step


@pytest.mark.parametrize("kind", ["masked_lm", "regression"])
def test_an_sgd_step_subtracts_the_rate_times_the_gradient_bit_for_bit(
    kind, request, three_masked, value_batches, pool
):
    objective = request.getfixturevalue(kind)
    micro_batches = [three_masked] if kind == "masked_lm" else value_batches(3.0)
    before, (micro_batch,) = parameters_of(objective), micro_batches
    gradients = torch.autograd.grad(objective(micro_batch).sum, list(objective.parameters()), allow_unused=True)
    count = objective(micro_batch).count

    take_step(training_of(objective, pool, SGD, 0.5), micro_batches, None)

    for old, new, gradient in zip(before, objective.parameters(), gradients, strict=True):
        assert torch.equal(new, old if gradient is None else torch.add(old, gradient / count, alpha=-0.5))
    assert any(gradient is None for gradient in gradients) == (kind == "regression")


def test_two_micro_batches_of_three_and_seventeen_targets_update_like_one_of_twenty(
    masked_lm, three_masked, seventeen_masked, twenty_masked, pool
):
    results, weights = [], []
    for micro_batches in ([twenty_masked], [three_masked, seventeen_masked], [seventeen_masked, three_masked]):
        model = copy.deepcopy(masked_lm)
        results.append(take_step(training_of(model, pool, SGD, 0.5), micro_batches, None))
        weights.append(torch.cat([parameter.flatten() for parameter in parameters_of(model)]))

    assert results[0].loss == pytest.approx(results[1].loss) == pytest.approx(results[2].loss)
    assert {result.num_residues for result in results} == {twenty_masked.num_residues}
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert torch.allclose(weights[0], weights[2], atol=1e-6)


def test_a_step_reports_the_loss_before_its_update(masked_lm, three_masked, pool):
    before = masked_lm(three_masked).mean().item()

    result = take_step(training_of(masked_lm, pool, SGD, 0.01), [three_masked], None)

    assert result.loss == pytest.approx(before)
    assert masked_lm(three_masked).mean().item() < before


def test_clipping_limits_the_length_of_a_step_and_the_norm_before_it_is_reported(masked_lm, three_masked, pool):
    before = torch.cat([parameter.flatten() for parameter in parameters_of(masked_lm)])
    gradients = torch.autograd.grad(masked_lm(three_masked).mean(), list(masked_lm.parameters()), allow_unused=True)
    norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm().item()

    result = take_step(training_of(masked_lm, pool, SGD, 1.0), [three_masked], 0.01)

    after = torch.cat([parameter.flatten() for parameter in parameters_of(masked_lm)])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    assert norm > 0.01


def test_a_step_reports_the_loss_behind_mask_tokens_alone(masked_lm, three_masked, seventeen_masked, pool):
    tokens = seventeen_masked.tokens.clone()
    tokens[seventeen_masked.positions] = seventeen_masked.targets
    visible = replace(seventeen_masked, tokens=tokens)
    expected = masked_lm(three_masked).mean().item()

    result = take_step(training_of(copy.deepcopy(masked_lm), pool, SGD, 0.1), [visible, three_masked], None)
    only_visible = take_step(training_of(masked_lm, pool, SGD, 0.1), [visible], None)

    assert result.mask_token_loss == pytest.approx(expected)
    assert result.loss != pytest.approx(expected)
    assert (only_visible.mask_token_loss, only_visible.loss is None) == (None, False)


def test_training_leaves_the_biases_of_other_tokens_at_minus_a_hundred(masked_lm, pretraining_steps, pool):
    training = training_of(masked_lm, pool)

    for step in range(5):
        take_step(training, pretraining_steps.micro_batches(step), 1.0)

    bias = masked_lm.lm_head.bias.detach()
    assert (bias[AMINO_ACID_IDS] != 0).all()
    assert (bias == -100).sum() == 13


@pytest.mark.parametrize("empty_step", [[], ["none_masked"]])
def test_a_step_without_targets_changes_nothing(masked_lm, empty_step, request, pool, copy_weights, have_same_bits):
    micro_batches, before = [request.getfixturevalue(name) for name in empty_step], copy_weights(masked_lm)

    result = take_step(training_of(masked_lm, pool, ADAMW, 0.01), micro_batches, 1.0)

    assert (result.loss, result.is_finite) == (None, True)
    assert have_same_bits(copy_weights(masked_lm), before)


def test_a_micro_batch_without_targets_does_not_change_the_update(
    masked_lm, three_masked, none_masked, pool, copy_weights, have_same_bits
):
    alone = copy.deepcopy(masked_lm)

    results = [
        take_step(training_of(model, pool, ADAMW, 0.01), micro_batches, 1.0)
        for model, micro_batches in ((masked_lm, [none_masked, three_masked]), (alone, [three_masked]))
    ]

    assert results[0].loss == results[1].loss
    assert have_same_bits(copy_weights(masked_lm), copy_weights(alone))


@pytest.mark.promise(6)
def test_a_loss_that_is_not_finite_leaves_the_weights_unchanged(
    regression, value_batches, pool, copy_weights, have_same_bits
):
    before = copy_weights(regression)

    micro_batches = [*value_batches(1.0), *value_batches(math.inf)]
    result = take_step(training_of(regression, pool, ADAMW, 0.01), micro_batches, 1.0)

    assert (result.loss, result.is_finite) == (None, False)
    assert have_same_bits(copy_weights(regression), before)


class Landscape(Objective):
    """A loss that is a given function of three weights, which are zero."""

    def __init__(self, loss):
        super().__init__()
        self.weight, self._loss = nn.Parameter(torch.zeros(3)), loss

    def forward(self, batch):
        return LossSum(self._loss(self.weight).sum(), 1, torch.tensor(0))


LANDSCAPES = {
    "a finite loss with an infinite slope": lambda weight: weight.sqrt(),
    "an infinite loss with a finite slope": lambda weight: weight**2 + math.inf,
    "a loss that is no number": lambda weight: weight**2 + math.nan,
}


@pytest.mark.parametrize("loss", LANDSCAPES.values(), ids=LANDSCAPES)
def test_a_step_is_skipped_if_its_loss_or_gradient_is_not_finite(loss, three_masked, pool):
    landscape = Landscape(loss)

    result = take_step(training_of(landscape, pool, SGD, 0.1), [three_masked], None)

    assert (result.loss, result.is_finite) == (None, False)
    assert result.grad_norm is None or math.isfinite(result.grad_norm)
    assert landscape.weight.tolist() == [0, 0, 0]


def test_a_step_waits_for_its_device_once(masked_lm, pretraining_steps, pool, monkeypatch):
    waits = []

    def count(name):
        read = getattr(torch.Tensor, name)

        def counted(tensor, *arguments):
            # Losses and gradients are float32; what processes exchange is float64, and is on the host already.
            if tensor.dtype == torch.float32:
                waits.append(name)
            return read(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)

    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
        count(name)
    micro_batches = pretraining_steps.micro_batches(0)

    result = take_step(training_of(masked_lm, pool, SGD, 0.1), micro_batches, 1.0)

    assert len(micro_batches) > 2
    assert result.mask_token_loss is not None
    assert waits == ["tolist"]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [ADAMW, MUON], ids=["adamw", "muon"])
def test_the_number_of_threads_changes_no_bit_of_the_weights(
    masked_lm, config, precision, pretraining_steps, copy_weights, have_same_bits
):
    weights = []
    for num_workers in (1, 3):
        model = copy.deepcopy(masked_lm)
        with WorkerPool(num_workers) as workers:
            training = training_of(model, workers, config, precision=precision)
            for step in range(3):
                take_step(training, pretraining_steps.micro_batches(step), 1.0)
        weights.append(copy_weights(model))

    assert len(pretraining_steps.micro_batches(0)) > 2
    assert have_same_bits(*weights)


# A run


@pytest.fixture
def begin(tmp_path, pretraining_steps, pool):
    """Begin or resume the run in `tmp_path` with a new model; return its reports, model and checkpoints."""

    def make(
        num_steps,
        *,
        name="run",
        config=ADAMW,
        save_every=3,
        validate_every=None,
        micro_batches=pretraining_steps.micro_batches,
        precision=torch.float32,
        stop_after=None,
        patience=None,
        **kind,
    ):
        checkpoint = new_checkpoint(ESM2Shape(num_layers=1, dim=16, num_heads=2), "gaussian", seed=0)
        objective = MaskedLM(checkpoint.encoder, checkpoint.lm_head)
        training = training_of(objective, pool, config, micro_batches=micro_batches, precision=precision)
        run = Checkpoints(tmp_path / name)
        run.restore(objective, training.optimizers)
        schedule = make_schedule(
            config, num_steps, RATES, save_every=save_every, validate_every=validate_every, patience=patience
        )
        reports = train(training, schedule, run, stop=lambda: run.progress.step == stop_after, **kind)
        return reports, objective, run

    return make


def checkpoints_in(directory):
    return sorted(path.name for path in (directory / "checkpoints").glob("*"))


def test_training_yields_a_report_after_each_step(begin, pretraining_steps):
    reports = list(begin(6)[0])

    residues = [
        sum(micro_batch.num_residues for micro_batch in pretraining_steps.micro_batches(step)) for step in range(6)
    ]
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert [report.num_residues for report in reports] == list(itertools.accumulate(residues))
    schedule = make_schedule(ADAMW, 6, RATES)
    assert [report.learning_rate for report in reports] == [schedule.learning_rate_at(step) for step in range(6)]
    assert all(report.residues_per_second > 0 for report in reports)
    assert all(report.grad_norm > 0 and report.peak_memory_bytes > 1e7 for report in reports)
    assert [report.time for report in reports] == sorted(report.time for report in reports)
    assert reports[-1].train_loss < reports[0].train_loss


def test_training_validates_at_scheduled_steps_and_the_last_and_marks_the_best(begin):
    losses = iter([3.0, 2.0, 2.0, 1.0])

    reports, _, run = begin(7, validate_every=2, validate=lambda: {"valid_loss": next(losses), "other": 5.0})

    validated = {report.step: (report.validation, report.is_best) for report in reports if report.validation}
    assert validated == {
        2: ({"valid_loss": 3.0, "other": 5.0}, True),
        4: ({"valid_loss": 2.0, "other": 5.0}, True),
        6: ({"valid_loss": 2.0, "other": 5.0}, False),
        7: ({"valid_loss": 1.0, "other": 5.0}, True),
    }
    assert (run.progress.best_loss, run.progress.best_step) == (1.0, 7)


def test_a_resumed_run_remembers_the_best_loss(begin):
    list(begin(3, validate_every=1, validate=lambda: {"valid_loss": 2.0}, stop_after=1)[0])

    losses = iter([2.5, 1.5])
    reports, _, run = begin(3, validate_every=1, validate=lambda: {"valid_loss": next(losses)})

    assert [(report.step, report.is_best) for report in reports] == [(2, False), (3, True)]
    assert (run.progress.best_loss, run.progress.best_step) == (1.5, 3)


@pytest.mark.promise(2)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [ADAMW, SGD, MUON], ids=["adamw", "sgd", "muon"])
def test_a_stopped_run_resumes_bit_for_bit(begin, config, precision, copy_weights, have_same_bits):
    whole, whole_model, _ = begin(7, name="whole", config=config, precision=precision)
    losses = [report.train_loss for report in whole]

    resumed = []
    for stop_after in (2, 5, None):
        reports, model, _ = begin(7, config=config, precision=precision, stop_after=stop_after)
        resumed += [[report.train_loss for report in reports]]

    assert resumed == [losses[:2], losses[2:5], losses[5:]]
    assert have_same_bits(copy_weights(model), copy_weights(whole_model))


@pytest.mark.promise(2, 4)
def test_a_run_resumed_from_an_older_checkpoint_ends_with_the_same_bits(begin, tmp_path, copy_weights, have_same_bits):
    whole, whole_model, _ = begin(8)
    losses = [report.train_loss for report in whole]
    assert checkpoints_in(tmp_path / "run") == ["step-000006", "step-000008"]
    (tmp_path / "run/checkpoints/step-000008/weights.safetensors").write_bytes(b"damaged")

    again, model, run = begin(8)
    assert run.progress.step == 6

    assert [report.train_loss for report in again] == losses[6:]
    assert have_same_bits(copy_weights(model), copy_weights(whole_model))


def test_a_run_killed_between_report_and_checkpoint_repeats_the_step(begin, tmp_path, copy_weights, have_same_bits):
    whole, whole_model, _ = begin(6, name="whole")
    losses = [report.train_loss for report in whole]

    killed = begin(6)[0]
    seen = [next(killed).train_loss for _ in range(3)]
    assert not (tmp_path / "run/checkpoints").exists()
    killed.close()
    again, model, _ = begin(6)

    assert seen == losses[:3]
    assert [report.train_loss for report in again] == losses
    assert have_same_bits(copy_weights(model), copy_weights(whole_model))


def test_a_finished_run_takes_no_more_steps(begin, copy_weights, have_same_bits):
    reports, model, _ = begin(3)
    assert len(list(reports)) == 3

    again, same_model, _ = begin(3)

    assert list(again) == []
    assert have_same_bits(copy_weights(model), copy_weights(same_model))


def test_checkpoints_are_written_at_scheduled_steps_and_the_last_and_two_remain(begin, tmp_path):
    names_at_reports = [checkpoints_in(tmp_path / "run") for _ in begin(7, save_every=2)[0]]

    # Each report comes before the checkpoint of the same step.
    assert [names[-1:] for names in names_at_reports] == [
        [],
        [],
        *[["step-000002"]] * 2,
        *[["step-000004"]] * 2,
        ["step-000006"],
    ]
    assert checkpoints_in(tmp_path / "run") == ["step-000006", "step-000007"]


# Numbers that are not finite


@pytest.fixture
def diverging(regression, value_batches, tmp_path, pool):
    """Train on proteins with the given values, some of which have an infinite loss."""

    def make(values):
        micro_batches, run = cycle(*(value_batches(value) for value in values)), Checkpoints(tmp_path)
        training = training_of(regression, pool, micro_batches=micro_batches)
        return train(training, make_schedule(ADAMW, len(values), RATES), run), run

    return make


def test_skipped_steps_are_counted_and_reported_without_a_loss(diverging):
    reports, run = diverging([1.0, *[math.inf] * 4, 1.0, *[math.inf] * 4])

    skipped = [report.train_loss is None for report in reports]

    assert skipped == [False, *[True] * 4, False, *[True] * 4]
    assert (run.progress.step, run.progress.num_skipped) == (10, 8)


def test_five_skipped_steps_in_a_row_raise_divergence(diverging):
    reports, _ = diverging([1.0, *[math.inf] * 6])

    with pytest.raises(DivergedError, match="5 steps in a row, up to step 6") as caught:
        list(reports)
    assert (caught.value.step, caught.value.num_skipped) == (6, 5)


@pytest.mark.promise(6)
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_that_is_not_finite_raises_divergence_and_is_never_the_best(begin, loss):
    losses = iter([2.5, loss])
    reports, _, run = begin(5, validate_every=1, validate=lambda: {"valid_loss": next(losses)})

    with pytest.raises(DivergedError):
        list(reports)
    assert (run.progress.best_loss, run.progress.best_step) == (2.5, 1)


def test_steps_without_targets_do_not_raise_divergence(begin, none_masked):
    reports, _, run = begin(7, micro_batches=cycle([none_masked], []))

    assert [report.train_loss for report in reports] == [None] * 7
    assert run.progress.num_skipped == 0


# Ending early, and changing the schedule


def test_patience_ends_a_run_that_no_longer_improves_for_good(begin, tmp_path):
    losses = iter([3.0, 2.0, 2.5, 2.0, 9.0])
    validate = {"validate": lambda: {"valid_loss": next(losses)}, "validate_every": 1, "patience": 2}

    reports, _, run = begin(9, **validate)

    assert [report.is_best for report in reports] == [True, True, False, False]
    assert checkpoints_in(tmp_path / "run")[-1] == "step-000004"
    assert list(begin(9, **validate)[0]) == []


def test_a_lower_loss_resets_the_patience(begin):
    losses = iter([3.0, 3.1, 2.9, 3.0, 2.8, 2.7])

    reports, _, _ = begin(6, validate_every=1, patience=2, validate=lambda: {"valid_loss": next(losses)})

    assert len(list(reports)) == 6


def test_replan_changes_the_schedule_of_later_steps(begin):
    def replan(schedule, step):
        return replace(schedule, num_steps=4) if step == 2 else schedule

    reports = list(begin(9, replan=replan)[0])

    assert [(report.step, report.num_steps) for report in reports] == [(1, 9), (2, 9), (3, 4), (4, 4)]


def test_a_checkpoint_is_written_when_its_time_has_come(begin, tmp_path, monkeypatch):
    clock = itertools.count(step=10.0)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    reports, _, run = begin(7, save_every=100)
    run._save_seconds, run._num_checkpoints = 25.0, 9

    list(reports)

    # The clock is read once per step, and once more at each save.
    assert checkpoints_in(tmp_path / "run") == ["step-000003", "step-000006", "step-000007"]


def test_no_checkpoint_is_written_while_steps_are_skipped(diverging, tmp_path):
    reports, run = diverging([1.0, *[math.inf] * 4])

    list(reports)

    assert run.progress.num_skipped_in_a_row == 4
    assert checkpoints_in(tmp_path) == ["step-000001"]
