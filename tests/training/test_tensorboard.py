import json

import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig
from protembed.config.pretrain import BatchConfig, PretrainConfig, PretrainOptions
from protembed.errors import ConfigError, OutputError
from protembed.pretraining.pretrain import pretrain_model
from protembed.training.tensorboard import event_writer


def events_of(directory):
    """Read the scalars of all event files: (name, step, value, time)."""
    files = [LegacyEventFileLoader(str(path)) for path in sorted(directory.iterdir())]
    return [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for file in files
        for event in file.Load()
        for value in event.summary.value
    ]


def options(run, *, tensorboard=True):
    return PretrainOptions(
        pretrain=PretrainConfig(
            output=run, layers=1, dim=8, heads=1, steps=4, validate_every=2, save_every=2, tensorboard=tensorboard
        ),
        batches=BatchConfig(batch_tokens=128, crop_residues=32),
        compute=DeviceConfig(threads=1),
    )


def test_a_resumed_run_writes_each_step_once_for_tensorboard(tmp_path, proteins_fasta):
    run, steps = tmp_path / "a.run", []
    stopping = Callbacks(on_step=steps.append, stop=lambda: len(steps) == 3)
    assert not pretrain_model([proteins_fasta], options(run), stopping).is_finished
    assert {step for _, step, _, _ in events_of(run / "tensorboard")} == {1, 2, 3}

    assert pretrain_model([proteins_fasta], options(run)).is_finished

    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = events_of(run / "tensorboard")
    losses = [(step, value) for name, step, value, _ in events if name == "training/train_loss"]
    assert losses == [(line["step"], pytest.approx(line["train_loss"])) for line in log]
    validated = [(step, value) for name, step, value, _ in events if name == "validation/valid_loss"]
    assert validated == [(line["step"], pytest.approx(line["valid_loss"])) for line in log if "valid_loss" in line]
    times = [time for name, _, _, time in events if name == "training/grad_norm"]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_a_run_is_resumed_with_and_without_tensorboard(tmp_path, proteins_fasta):
    run, steps = tmp_path / "a.run", []
    stopping = Callbacks(on_step=steps.append, stop=lambda: len(steps) == 2)
    pretrain_model([proteins_fasta], options(run, tensorboard=False), stopping)
    assert not (run / "tensorboard").exists()

    assert pretrain_model([proteins_fasta], options(run)).is_finished

    assert {step for _, step, _, _ in events_of(run / "tensorboard")} == {1, 2, 3, 4}


def test_validation_sets_are_groups_of_their_own_and_old_logs_have_no_time(tmp_path):
    with event_writer(tmp_path / "events", [{"step": 7, "train_loss": None, "second/valid_loss": 2.5}]) as events:
        events.add({"step": 8, "valid_loss": 2.0})

    written = [(name, step, value) for name, step, value, _ in events_of(tmp_path / "events")]
    assert written == [("second/valid_loss", 7, 2.5), ("validation/valid_loss", 8, 2.0)]


def test_without_tensorboard_the_option_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("protembed.config.pretrain.find_spec", lambda name: None)

    PretrainConfig(tensorboard=False)
    with pytest.raises(ConfigError, match="the package tensorboard is not installed: run `pip install tensorboard`"):
        PretrainConfig(tensorboard=True)


def test_events_that_cannot_be_written_are_an_error_with_their_path(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="file/events"), event_writer(tmp_path / "file" / "events", []):
        pass
