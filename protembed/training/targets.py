"""Labels as numbers, and what is measured on them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.config.finetune import TaskName
from protembed.data.labels import LabelTable, Split, class_names, infer_task, label_values
from protembed.metrics import (
    Metrics,
    classification_metrics,
    majority_probabilities,
    mean_values,
    regression_metrics,
)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of a table as numbers.

    Attributes:
        name: the task.
        classes: their names; None for values.
        of_split: (proteins,), int64 classes or float64 values, of each split.
    """

    name: TaskName
    classes: tuple[str, ...] | None
    of_split: dict[Split, NDArray[Any]]

    @classmethod
    def of(cls, table: LabelTable, requested: TaskName) -> "Targets":
        """Read the labels of a table; `auto` looks at them to tell classes from values.

        Raises:
            TableError: they make no sense as what was requested.
        """
        name = infer_task(table) if requested == "auto" else requested
        if name == "regression":
            values = {split: np.array(values) for split, values in label_values(table).items()}
            return cls(name=name, classes=None, of_split=values)
        classes = class_names(table)
        number = {label: index for index, label in enumerate(classes)}
        of_split = {
            split: np.array([number[protein.label] for protein in part], dtype=np.int64)
            for split, part in table.parts.items()
        }
        return cls(name=name, classes=classes, of_split=of_split)

    def measure(self, predicted: NDArray[Any]) -> Metrics:
        """Measure predictions of the test part: (proteins, classes) probabilities or (proteins,) values."""
        truth = self.of_split["test"]
        return classification_metrics(truth, predicted) if self.classes else regression_metrics(truth, predicted)

    def baseline(self) -> NDArray[np.float64]:
        """Predict the test part from the training labels alone."""
        train, num_test = self.of_split["train"], len(self.of_split["test"])
        if self.classes:
            return majority_probabilities(train, len(self.classes), num_test)
        return mean_values(train, num_test)

    def tensor(self, split: Split) -> torch.Tensor:
        """Return the targets of a part as the loss wants them."""
        targets = torch.from_numpy(self.of_split[split])
        return targets if self.classes else targets.float()
