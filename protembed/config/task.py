"""What can be learned of proteins: the five kinds of task. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "multilabel", "regression", "residue-classification", "residue-regression"]
AnswerKind = Literal["class", "labels", "value"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of task.

    Attributes:
        name: as the user says it.
        answer: one of several classes, any number of labels, or a value.
        per_residue: whether each residue has an answer of its own, or the protein has one.
        main_metric: the figure by which models are compared.
    """

    name: TaskName
    answer: AnswerKind
    per_residue: bool
    main_metric: str


TASKS: Mapping[TaskName, Task] = {
    task.name: task
    for task in (
        Task(name="classification", answer="class", per_residue=False, main_metric="mcc"),
        Task(name="multilabel", answer="labels", per_residue=False, main_metric="auprc"),
        Task(name="regression", answer="value", per_residue=False, main_metric="spearman"),
        Task(name="residue-classification", answer="class", per_residue=True, main_metric="accuracy"),
        Task(name="residue-regression", answer="value", per_residue=True, main_metric="spearman"),
    )
}

# As the field writes them.
METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "mean AUPRC",
    "fmax": "Fmax",
    "spearman": "Spearman",
    "rmse": "RMSE",
    "mse": "MSE",
    "r2": "R²",
}
