import json

import pytest
import torch

from protembed.training.precision import resolve_precision
from protembed.training.run_directory import RunDirectory

CPU = torch.device("cpu")


@pytest.fixture
def open_run(tmp_path):
    def make():
        run = RunDirectory(tmp_path / "run")
        run.open({"seed": 0}, lambda directory: None)
        return run

    return make


@pytest.mark.parametrize(("has_amx", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_run_keeps_the_precision_that_was_chosen_when_it_began(open_run, monkeypatch, has_amx, chosen):
    monkeypatch.setattr("protembed.device.has_amx", lambda: has_amx)
    assert resolve_precision(open_run(), "auto", CPU) == chosen
    monkeypatch.setattr("protembed.device.has_amx", lambda: not has_amx)

    assert resolve_precision(open_run(), "auto", CPU) == chosen


def test_a_run_without_a_recorded_precision_is_resumed_in_float32_on_a_cpu(open_run, monkeypatch):
    monkeypatch.setattr("protembed.device.has_amx", lambda: True)
    open_run()

    assert resolve_precision(open_run(), "auto", CPU) == torch.float32


def test_the_precision_is_recorded_by_name(open_run):
    run = open_run()

    resolve_precision(run, "bfloat16", CPU)

    assert json.loads(run.path("run.json").read_text())["precision"] == "bfloat16"
