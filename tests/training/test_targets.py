import numpy as np
import pytest
import torch

from protembed.data.labels import LabelledProtein, LabelTable
from protembed.errors import TableError
from protembed.training.targets import Targets


def table(train, valid, test):
    parts = {
        split: [
            LabelledProtein(id=str(row), sequence="MKT", label=label, split=split, line=row + 2)
            for row, label in enumerate(labels.split())
        ]
        for split, labels in (("train", train), ("valid", valid), ("test", test))
    }
    return LabelTable(path="labels.csv", target="target", parts=parts, notes=[])


CLASSES = table("b a b b", "a", "a b")
VALUES = table("1.5 2.5 5", "0", "3 -4e1")


def test_classes_are_numbered_by_name():
    targets = Targets.of(CLASSES, "auto")

    assert (targets.name, targets.classes) == ("classification", ("a", "b"))
    assert {split: part.tolist() for split, part in targets.of_split.items()} == {
        "train": [1, 0, 1, 1],
        "valid": [0],
        "test": [0, 1],
    }


def test_values_are_read_as_numbers():
    targets = Targets.of(VALUES, "auto")

    assert (targets.name, targets.classes) == ("regression", None)
    assert targets.of_split["test"].tolist() == [3.0, -40.0]


def test_what_was_requested_wins_over_what_labels_look_like():
    few_numbers = table("1 2 1 2", "1", "2 1")

    assert Targets.of(few_numbers, "auto").name == "classification"
    assert Targets.of(few_numbers, "regression").of_split["train"].tolist() == [1.0, 2.0, 1.0, 2.0]
    with pytest.raises(TableError, match="line 2: the label 'b' of '0' is no finite number"):
        Targets.of(CLASSES, "regression")


def test_targets_have_the_type_that_the_loss_wants():
    assert Targets.of(CLASSES, "auto").tensor("train").dtype == torch.int64
    assert Targets.of(VALUES, "auto").tensor("train").dtype == torch.float32


def test_the_baseline_knows_the_training_labels_alone():
    assert Targets.of(CLASSES, "auto").baseline().tolist() == [[0.25, 0.75]] * 2
    assert Targets.of(VALUES, "auto").baseline().tolist() == [3.0] * 2


def test_predictions_are_measured_on_the_test_part():
    classes = Targets.of(CLASSES, "auto").measure(np.array([[0.9, 0.1], [0.2, 0.8]]))
    values = Targets.of(VALUES, "auto").measure(np.array([4.0, -40.0]))

    assert (classes["accuracy"], classes["auroc"]) == (1.0, 1.0)
    assert (values["mse"], values["spearman"]) == (0.5, pytest.approx(1.0))
