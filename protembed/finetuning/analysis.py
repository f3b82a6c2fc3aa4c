"""Where a model is right and where it is wrong: by class, by similarity and length, and its worst predictions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from protembed.finetuning.calibration import CalibrationPoint, calibrate
from protembed.finetuning.class_results import ClassResult, Confusion, class_results
from protembed.finetuning.evaluation import Evaluation
from protembed.finetuning.subgroups import Subgroup
from protembed.finetuning.worst_predictions import WrongPrediction, worst_predictions

# Classes of the recorded confusion matrix, which would else be far larger than everything beside it.
_MAX_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything about a model's test predictions but the comparison with its baselines.

    Attributes:
        classes: Metrics of each class or label; empty for values.
        confusion: None where proteins and residues have no class, or several labels.
        calibration: Whether predicted values are right on average; empty for classes and labels.
    """

    classes: Sequence[ClassResult]
    confusion: Confusion | None
    calibration: Sequence[CalibrationPoint]
    by_similarity: Sequence[Subgroup]
    by_length: Sequence[Subgroup]
    worst: Sequence[WrongPrediction]

    @classmethod
    def from_evaluation(cls, evaluation: Evaluation) -> "Analysis":
        """Analyse the predictions for the test proteins."""
        return cls(
            classes=class_results(evaluation),
            confusion=Confusion.from_evaluation(evaluation),
            calibration=calibrate(evaluation.predictions),
            by_similarity=evaluation.by_similarity(),
            by_length=evaluation.by_length(),
            worst=worst_predictions(evaluation),
        )

    def as_plain_values(self) -> dict[str, Any]:
        """Return the analysis as `metrics.json` holds it."""
        confusion = self.confusion.largest(_MAX_CLASSES) if self.confusion else None
        matrix = {"classes": list(confusion.classes), "counts": confusion.counts.tolist()} if confusion else None
        return {
            "by_class": [asdict(result) for result in self.classes],
            "confusion_matrix": matrix,
            "calibration": [asdict(point) for point in self.calibration],
            "by_similarity": [asdict(subgroup) for subgroup in self.by_similarity],
            "by_length": [asdict(subgroup) for subgroup in self.by_length],
            "worst_predictions": list(self.worst),
        }
