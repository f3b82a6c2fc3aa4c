import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.config.common import TASKS
from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint, save_checkpoint
from protembed.model.encoder import initialise
from protembed.model.heads import TaskHead
from protembed.model.metadata import ModelMetadata

NAMES = ("membrane", "soluble", "other")
KINDS = {
    "one linear map": {},
    "a hidden layer": {"num_hidden": 5},
    "attention": {"query_dim": 32},
    "attention and a hidden layer": {"query_dim": 32, "num_hidden": 5},
}


@pytest.fixture
def save_with_head(family_checkpoint, tmp_path):
    """Save a tiny model with a head of random weights; return its directory and the head."""

    def save(task, *, pooling="mean", num_inputs=32, **kind):
        classes = None if TASKS[task].label_kind == "value" else NAMES
        head = TaskHead(num_inputs, TASKS[task], classes, **kind).eval()
        initialise(head, "gaussian", torch.Generator().manual_seed(1))
        if head.query is not None:
            torch.nn.init.normal_(head.query, generator=torch.Generator().manual_seed(2))
        for buffer, value in ((head.offset, 50.0), (head.scale, 7.0), (head.threshold, 0.125)):
            buffer.fill_(value)
        family_checkpoint.task_head = head
        family_checkpoint.metadata = ModelMetadata(target="label", classes=classes, task=task, pooling=pooling)
        save_checkpoint(family_checkpoint, tmp_path / "model", "# card\n")
        return tmp_path / "model", head

    return save


def rewrite_metadata(directory, **changes):
    path = directory / "protembed.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in metadata.items() if value is not ...}))


def forget(directory, *names):
    path = directory / "head.safetensors"
    save_file({name: value for name, value in load_file(path).items() if name not in names}, path)


def assert_same_head(loaded, head):
    state = loaded.state_dict()
    assert (loaded.task, loaded.classes, loaded.training) == (head.task, head.classes, False)
    assert state.keys() == head.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_a_saved_head_is_loaded_unchanged(save_with_head, task, kind):
    pooling = "attention" if "query_dim" in kind else "mean"
    directory, head = save_with_head(task, pooling=pooling, **kind)

    loaded = load_checkpoint(directory)

    assert_same_head(loaded.task_head, head)
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.task_head.predict(vectors), head.predict(vectors))
    assert (loaded.metadata.task, loaded.metadata.classes, loaded.metadata.poolings) == (task, head.classes, (pooling,))


def test_several_poolings_make_the_heads_input_wider(save_with_head):
    directory, head = save_with_head("classification", pooling="mean,std", num_inputs=64)

    loaded = load_checkpoint(directory)

    assert loaded.metadata.poolings == ("mean", "std")
    assert_same_head(loaded.task_head, head)


def test_a_head_of_residues_has_the_encoders_width_with_any_pooling(save_with_head):
    directory, head = save_with_head("residue-classification", pooling="mean,std")

    assert_same_head(load_checkpoint(directory).task_head, head)


def test_a_head_stored_without_a_threshold_has_one_of_a_half(save_with_head):
    directory, head = save_with_head("multilabel")
    forget(directory, "threshold")

    loaded = load_checkpoint(directory).task_head

    assert loaded.threshold.item() == 0.5
    head.threshold.fill_(0.5)
    assert_same_head(loaded, head)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("written", [..., None])
def test_metadata_without_a_task_imply_it_by_their_classes(save_with_head, task, written):
    directory, head = save_with_head(task)
    rewrite_metadata(directory, task=written)

    loaded = load_checkpoint(directory)

    assert loaded.metadata.task == task
    assert_same_head(loaded.task_head, head)


def test_an_encoder_has_neither_a_task_nor_a_head(tiny_model):
    loaded = load_checkpoint(tiny_model)

    assert (loaded.task_head, loaded.metadata.task, loaded.metadata.poolings) == (None, None, ("mean",))


# Refusals


def test_a_missing_head_is_an_error(save_with_head):
    directory, _ = save_with_head("classification")
    (directory / "head.safetensors").unlink()

    with pytest.raises(
        ModelFormatError, match=r"head\.safetensors: missing or damaged \(No such file or directory\); "
    ):
        load_checkpoint(directory)


@pytest.mark.parametrize("name", ["linear.weight", "scale", "hidden.weight"])
def test_a_head_with_missing_tensors_is_an_error(save_with_head, name):
    directory, _ = save_with_head("classification", num_hidden=5)
    forget(directory, name)

    with pytest.raises(
        ModelFormatError, match=rf"head\.safetensors: it has no {name}; the files do not belong together"
    ):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    "changes",
    [{"classes": ["a", "b"]}, {"classes": None}, {"pooling": "mean,std"}, {"classes": None, "task": "regression"}],
)
def test_a_head_that_contradicts_its_metadata_is_an_error(save_with_head, changes):
    directory, _ = save_with_head("classification")
    rewrite_metadata(directory, **changes)

    with pytest.raises(ModelFormatError, match=r"head\.safetensors"):
        load_checkpoint(directory)


# Metadata of the training proteins

DATA = {
    "num_proteins": 3,
    "lengths": [5, 5, 6, 7, 7],
    "shortest": 5,
    "longest": 8,
    "num_nonstandard_residues": 0,
    "highest_nonstandard_fraction": 0.0,
    "starts_with_met_fraction": 1.0,
    "class_counts": {"membrane": 2, "soluble": 1},
    "value_range": None,
    "kmer_length": 5,
    "num_tested": 2,
    "num_tested_related": 1,
}


def test_saved_metadata_of_the_training_data_are_loaded_unchanged(save_with_head, tmp_path):
    directory, _ = save_with_head("classification")
    rewrite_metadata(directory, training_data=DATA | {"written_by_a_newer_one": 1}, region="1-70", format_version=2)
    checkpoint = load_checkpoint(directory)
    checkpoint.training_kmers = torch.tensor([1, 5, 2**62])
    save_checkpoint(checkpoint, tmp_path / "again", "# card\n")

    again = load_checkpoint(tmp_path / "again")

    assert again.metadata.training_data.lengths == (5, 5, 6, 7, 7)
    assert (again.metadata, again.metadata.region) == (checkpoint.metadata, "1-70")
    assert again.training_kmers.tolist() == [1, 5, 2**62]


FORMER_KEYS = {
    "highest_nonstandard_fraction": "highest_nonstandard_share",
    "starts_with_met_fraction": "starts_with_met_share",
}


@pytest.mark.parametrize(("region", "version"), [(None, 1), ("1-70", 2)])
def test_training_data_of_format_versions_before_3_are_read_and_saved_as_version_3(
    save_with_head, tmp_path, region, version
):
    directory, _ = save_with_head("classification")
    former = {FORMER_KEYS.get(key, key): value for key, value in DATA.items()}
    assert former != DATA
    rewrite_metadata(directory, training_data=former, region=region, format_version=version)

    checkpoint = load_checkpoint(directory)
    save_checkpoint(checkpoint, tmp_path / "again", "# card\n")

    content = json.loads((tmp_path / "again/protembed.json").read_text())
    assert (content["format_version"], content["training_data"]) == (3, DATA)
    assert load_checkpoint(tmp_path / "again").metadata == checkpoint.metadata


@pytest.mark.parametrize(
    "changes",
    [
        {"training_data": []},
        {"training_data": {"num_proteins": 3}},
        {"region": "70"},
        {"region": 70},
        *(
            {"training_data": DATA | {name: value}}
            for name, value in (
                ("lengths", [5, 6]),
                ("lengths", None),
                ("longest", -1),
                ("num_proteins", True),
                ("starts_with_met_fraction", float("nan")),
                ("highest_nonstandard_fraction", 2),
                ("class_counts", {"membrane": "2"}),
                ("value_range", [1.0]),
                ("kmer_length", 15),
                ("num_tested_related", 3),
            )
        ),
    ],
)
def test_damaged_metadata_of_the_training_data_are_an_error(save_with_head, changes):
    directory, _ = save_with_head("classification")
    rewrite_metadata(directory, **changes)

    with pytest.raises(ModelFormatError, match=r"protembed.json has (training_data|region) "):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": torch.tensor([1])},
        {"hashes": torch.tensor([1.0])},
        {"hashes": torch.tensor([[1]])},
        {"hashes": torch.tensor([2, 1])},
        {"hashes": torch.arange((1 << 16) + 1)},
    ],
    ids=["another name", "no integers", "a matrix", "not ascending", "too many"],
)
def test_an_invalid_file_of_training_kmers_is_an_error(save_with_head, tensors):
    directory, _ = save_with_head("classification")
    save_file(tensors, directory / "training_kmers.safetensors")

    with pytest.raises(ModelFormatError, match=r"training_kmers.safetensors: it holds no ascending hashes"):
        load_checkpoint(directory)
