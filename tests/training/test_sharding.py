import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import run_two_processes

from protembed.io.reading import read_json
from protembed.training.checkpoints import _damaged_file
from protembed.training.sharding import local_rows, rows_of

OPTIMIZERS = ("sgd", "adamw", "muon")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What `sharded_steps.py` has measured in two processes, and the folder of its checkpoints."""
    path = tmp_path_factory.mktemp("sharded") / "results.json"
    run_two_processes(Path(__file__).with_name("sharded_steps.py"), path)
    return read_json(path), path.parent


@pytest.mark.parametrize(("num_rows", "size"), [(33, 2), (33, 4), (3, 8), (8, 8)])
def test_rows_are_divided_as_torch_divides_them(num_rows, size):
    rows = torch.arange(num_rows)

    chunks = [chunk.tolist() for chunk in rows.chunk(size)]

    assert [[*rows_of(num_rows, rank, size)] for rank in range(size)] == chunks + [[]] * (size - len(chunks))


def test_all_rows_of_a_whole_tensor_are_local_and_share_its_memory():
    parameter = torch.nn.Parameter(torch.ones(3, 2))

    local_rows(parameter).zero_()

    assert not parameter.any()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_gradients_of_one_process_two_and_two_sharded_ones_agree(results, optimizer):
    steps = results[0][optimizer]["steps"]

    alone = torch.tensor(steps["alone"])
    assert alone[-1, 0] < alone[0, 0]
    for name in ("two", "sharded"):
        assert torch.allclose(torch.tensor(steps[name]), alone, rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_sharded_weights_become_those_of_processes_with_whole_ones(results, optimizer):
    assert results[0][optimizer]["distance"] < 1e-5


@pytest.mark.promise(2)
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_that_moves_from_two_processes_to_one_and_back_ends_alike(results, optimizer):
    assert results[0][optimizer]["moved"] < 1e-5


@pytest.mark.slow
def test_each_process_writes_the_rows_that_it_holds_and_the_manifest_lists_them_all(results):
    begun = results[1] / "muon/begun/checkpoints/step-000000"

    files = {f"{kind}.{rank}-of-2.safetensors" for kind in ("weights", "optimizer") for rank in (1, 2)}
    assert {path.name for path in begun.iterdir()} == {*files, "progress.json", "MANIFEST.json"}
    assert read_json(begun / "MANIFEST.json").keys() == {*files, "progress.json"}
    first, second = (load_file(begun / f"weights.{rank}-of-2.safetensors") for rank in (1, 2))
    assert [len(rows["lm_head.bias"]) for rows in (first, second)] == [17, 16]
    assert first.keys() == second.keys()


@pytest.mark.promise(4)
@pytest.mark.slow
def test_a_checkpoint_that_lacks_the_file_of_a_process_is_damaged(results):
    manifest = results[1] / "sgd/begun/checkpoints/step-000000/MANIFEST.json"
    assert _damaged_file(manifest.parent) is None
    whole = manifest.read_text()

    manifest.write_text(json.dumps({key: value for key, value in json.loads(whole).items() if "weights.2" not in key}))
    assert _damaged_file(manifest.parent) == "MANIFEST.json"

    manifest.write_text(whole)
    manifest.with_name("weights.2-of-2.safetensors").unlink()
    assert _damaged_file(manifest.parent) == "weights.2-of-2.safetensors"
