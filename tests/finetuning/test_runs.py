from types import SimpleNamespace

import pytest

from protembed.callbacks import Callbacks
from protembed.config.model_sizes import ESM2Shape
from protembed.errors import DamagedRunError
from protembed.finetuning.design import run_experiment
from protembed.finetuning.experiment import Experiment
from protembed.finetuning.runs import TrainingRuns
from protembed.training.distributed import ProcessGroup

DESIGN = SimpleNamespace(method="frozen", shape=ESM2Shape(num_layers=2, dim=32, num_heads=4))


class FirstOfTwo(ProcessGroup):
    """The first of two processes; nothing is sent to the other one."""

    def __init__(self):
        super().__init__(0, 2)

    def broadcast_object(self, value):
        return value


def test_the_run_of_a_training_lies_in_that_of_the_experiment(tmp_path):
    runs = TrainingRuns(directory=tmp_path / "x.partial", fingerprint={"seed": 1})

    whole, training = runs.open(), runs.open("model-0-0")

    assert training.path("run.json").parent.parent == whole.path("run.json").parent == tmp_path / "x.partial"
    assert not runs.open("model-0-0").is_new
    assert runs.open("model-0-0", force=True).is_new


@pytest.mark.promise(4)
@pytest.mark.parametrize("is_forced", [False, True])
def test_several_processes_remove_a_damaged_experiment_only_with_force(
    tmp_path, monkeypatch, finetune_options, tiny_model, is_forced
):
    def find_damage(experiment):
        raise DamagedRunError(tmp_path / "best.safetensors", "this is damaged")

    monkeypatch.setattr(Experiment, "run", find_damage)
    runs = TrainingRuns(directory=tmp_path / "x.partial", fingerprint={}, processes=FirstOfTwo())

    with pytest.raises(DamagedRunError):
        run_experiment(DESIGN, finetune_options(None, tiny_model, force=is_forced), runs, Callbacks())

    assert runs.directory.exists() == (not is_forced)
