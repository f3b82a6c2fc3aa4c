import dataclasses
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from protembed.errors import DamagedRunError, DivergedError, OutputError
from protembed.io.reading import read_json, sha256_of_file
from protembed.io.writing import write_json
from protembed.model.esm2 import ESM2Encoder
from protembed.training.checkpoints import Checkpoints, TrainingProgress
from protembed.training.distributed import Executor
from protembed.training.optimizer import make_optimizers, set_learning_rate

EXECUTOR = Executor(pool=SimpleNamespace(map=map))
FILES = ("weights.safetensors", "optimizer.safetensors", "progress.json", "MANIFEST.json")
DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\xff" + path.read_bytes()[-8:]),
}


def model_and_optimizers(name="adamw"):
    model = nn.Sequential(nn.ModuleList([nn.Linear(4, 3)]), nn.LayerNorm(3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimizers = make_optimizers(model, name, 0.01, EXECUTOR)
    set_learning_rate(optimizers, 0.1)
    return model, optimizers


def step(optimizers):
    for optimizer in optimizers:
        optimizer.step()


def advance(state, model, optimizers):
    """Take a step and save it."""
    state.progress.step += 1
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number + state.progress.step))
    step(optimizers)
    state.save(model, optimizers)


@pytest.fixture
def saved(tmp_path):
    """Save some steps in `tmp_path`; return the model and its optimisers."""

    def make(num_steps, name="adamw"):
        state, (model, optimizers) = Checkpoints(tmp_path), model_and_optimizers(name)
        for _ in range(num_steps):
            advance(state, model, optimizers)
        return model, optimizers

    return make


def restored(directory, name="adamw"):
    state, (model, optimizers) = Checkpoints(directory), model_and_optimizers(name)
    state.restore(model, optimizers)
    return state, model, optimizers


def checkpoints(directory):
    return sorted((directory / "checkpoints").iterdir())


def same(*models):
    return all(map(torch.equal, *(model.parameters() for model in models)))


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_restoring_brings_back_weights_and_optimisers_bit_for_bit(saved, tmp_path, name):
    model, optimizers = saved(3, name)

    state, again, optimizers_again = restored(tmp_path, name)

    assert same(model, again)
    for _ in range(2):
        for some_model, some_optimizers in ((model, optimizers), (again, optimizers_again)):
            for parameter in some_model.parameters():
                parameter.grad = torch.full_like(parameter, 0.3)
            step(some_optimizers)
    assert same(model, again)


FORMER_NAMES = {
    "attention.qkv.": "attention.project.",
    "attention.out.": "attention.output.",
    "feed_forward.up.": "feed_forward.expand.",
    "feed_forward.down.": "feed_forward.contract.",
}


def store_under_former_names(checkpoint):
    """Rename the tensors of a checkpoint to what earlier versions of protembed called them."""
    for file in checkpoint.glob("*.safetensors"):
        tensors = load_file(file)
        for current, former in FORMER_NAMES.items():
            assert any(current in name for name in tensors)
            tensors = {name.replace(current, former): tensor for name, tensor in tensors.items()}
        save_file(tensors, file)
    manifest = {name: sha256_of_file(checkpoint / name) for name in FILES if name != "MANIFEST.json"}
    write_json(checkpoint / "MANIFEST.json", manifest)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_checkpoint_of_an_earlier_version_is_restored_bit_for_bit(tiny_encoder, tmp_path, name):
    optimizers = make_optimizers(tiny_encoder, name, 0.01, EXECUTOR)
    set_learning_rate(optimizers, 0.1)
    advance(Checkpoints(tmp_path), tiny_encoder, optimizers)
    store_under_former_names(*checkpoints(tmp_path))

    again = ESM2Encoder(tiny_encoder.shape)
    optimizers_again = make_optimizers(again, name, 0.01, EXECUTOR)
    Checkpoints(tmp_path).restore(again, optimizers_again)

    assert same(tiny_encoder, again)
    for parameter, parameter_again in zip(tiny_encoder.parameters(), again.parameters(), strict=True):
        (state,) = (each.state[parameter] for each in optimizers if parameter in each.state)
        (state_again,) = (each.state[parameter_again] for each in optimizers_again if parameter_again in each.state)
        assert all(torch.equal(value, state_again[kind]) for kind, value in state.items())


def test_restoring_brings_back_the_progress(tmp_path):
    state = Checkpoints(tmp_path)
    state.progress = TrainingProgress(step=7, num_residues=900, num_skipped=2, best_loss=2.5, best_step=4)
    state.save(*model_and_optimizers())

    assert restored(tmp_path)[0].progress == state.progress


def test_restoring_without_checkpoints_changes_nothing(tmp_path):
    state, model, _ = restored(tmp_path)

    assert state.progress == TrainingProgress()
    assert same(model, model_and_optimizers()[0])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_holds_safetensors_and_json_and_a_hash_of_each(saved, tmp_path):
    saved(1)

    (checkpoint,) = checkpoints(tmp_path)
    assert checkpoint.name == "step-000001"
    assert {path.name for path in checkpoint.iterdir()} == set(FILES)
    assert set(read_json(checkpoint / "MANIFEST.json")) == set(FILES) - {"MANIFEST.json"}
    assert read_json(checkpoint / "progress.json") == dataclasses.asdict(TrainingProgress(step=1))


def test_only_the_two_newest_checkpoints_remain(saved, tmp_path):
    saved(11)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000010", "step-000011"]


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    state = Checkpoints(tmp_path)
    for state.progress.step in (999_999, 1_000_000, 1_000_001):
        state.save(*model_and_optimizers())

    assert restored(tmp_path)[0].progress.step == 1_000_001
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1000000", "step-1000001"]


@pytest.mark.promise(4)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(saved, tmp_path, name, damage):
    saved(2)
    older, newest = checkpoints(tmp_path)

    damage(newest / name)

    assert restored(tmp_path)[0].progress.step == 1
    assert older.exists()


def damages(whole):
    """Truncate a file at several positions, flip a bit at each of them, and append a byte."""
    sixteenths = [len(whole) * part // 16 for part in range(16)]
    yield from (whole[:end] for end in sixteenths)
    for bit, index in enumerate([*sixteenths, len(whole) - 1]):
        yield whole[:index] + bytes([whole[index] ^ 1 << bit % 8]) + whole[index + 1 :]
    yield whole + b"x"


@pytest.mark.promise(4)
@pytest.mark.parametrize("name", FILES)
def test_restoring_names_the_damaged_file_and_uses_the_checkpoint_before(saved, tmp_path, name):
    older_model, _ = saved(1)
    older_weights = [parameter.clone() for parameter in older_model.parameters()]
    newest_model = advance_by_one(tmp_path)
    _, newest = checkpoints(tmp_path)
    intact, whole = shutil.copytree(newest, tmp_path / "intact"), (newest / name).read_bytes()

    for number, damaged in enumerate([None, *damages(whole)]):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(intact, newest)
        (newest / name).unlink()
        if damaged is not None:
            (newest / name).write_bytes(damaged)
        state, (model, optimizers) = Checkpoints(tmp_path), model_and_optimizers()

        (warning,) = state.restore(model, optimizers)

        # A change in the manifest shows as a wrong hash of the file that it names.
        assert warning.startswith(str(newest / ("" if name == "MANIFEST.json" else name))), number
        assert "is damaged" in warning and "resuming from step-000001" in warning
        assert all(map(torch.equal, model.parameters(), older_weights))
        assert not all(map(torch.equal, model.parameters(), newest_model.parameters()))
        assert not newest.exists()


def advance_by_one(directory):
    state, model, optimizers = restored(directory)
    advance(state, model, optimizers)
    return model


def test_restoring_an_intact_checkpoint_gives_no_warning(saved, tmp_path):
    saved(2)
    state, (model, optimizers) = Checkpoints(tmp_path), model_and_optimizers()

    assert state.restore(model, optimizers) == []
    assert state.progress.step == 2


@pytest.mark.promise(4)
def test_a_run_without_an_intact_checkpoint_is_damaged(saved, tmp_path):
    saved(2)
    for checkpoint in checkpoints(tmp_path):
        (checkpoint / "weights.safetensors").unlink()

    named = r"step-000002/weights\.safetensors: this is damaged"
    with pytest.raises(DamagedRunError, match=f"{named}, and none of the checkpoints is intact; pass `force`"):
        restored(tmp_path)


def test_a_checkpoint_written_in_place_of_a_damaged_one_is_restored(saved, tmp_path):
    saved(4)
    (checkpoints(tmp_path)[-1] / "weights.safetensors").unlink()
    state, model, optimizers = restored(tmp_path)
    state.progress.num_residues = 500

    state.save(model, optimizers)

    assert restored(tmp_path)[0].progress == TrainingProgress(step=3, num_residues=500)


def test_leftovers_of_a_killed_save_are_ignored(saved, tmp_path):
    saved(2)
    (tmp_path / "checkpoints/.step-000003.123.tmp").mkdir()

    assert restored(tmp_path)[0].progress.step == 2


@pytest.mark.promise(5)
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones_intact(saved, tmp_path, monkeypatch):
    model, optimizers = saved(2)
    state = restored(tmp_path)[0]

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("protembed.training.checkpoints.write_tensors", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        advance(state, model, optimizers)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001", "step-000002"]


@pytest.mark.promise(6)
def test_weights_that_are_not_finite_are_never_saved(saved, tmp_path):
    model, optimizers = saved(2)
    state = restored(tmp_path)[0]
    with torch.no_grad():
        next(model.parameters())[0] = float("inf")

    state.progress.step += 1
    with pytest.raises(DivergedError):
        state.save(model, optimizers)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001", "step-000002"]


@pytest.mark.promise(6)
def test_optimiser_states_that_are_not_finite_are_never_saved(saved, tmp_path):
    model, optimizers = saved(2)
    next(iter(optimizers[0].state.values()))["exp_avg_sq"].fill_(float("inf"))

    with pytest.raises(DivergedError):
        restored(tmp_path)[0].save(model, optimizers)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-000001", "step-000002"]
