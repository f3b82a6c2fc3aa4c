"""What a model found, in sentences that a reader understands who does not know the metrics."""

from protembed.finetuning.analysis import Analysis
from protembed.finetuning.class_results import ClassResult
from protembed.finetuning.comparison import Comparison
from protembed.finetuning.evaluation import Evaluation
from protembed.text import as_sentence, format_number, format_percent, pluralize

_MEANINGS = {
    "mcc": " (1 is perfect, 0 is guessing)",
    "auprc": " (1 is perfect)",
    "spearman": " correlation (1 if the order is right, 0 if it is random)",
}
_MAX_LETTERS = 60


def quote_class(name: str) -> str:
    """Quote the name of a class in a sentence, shortened if it is very long.

    >>> print(quote_class("signal peptide"))
    “signal peptide”
    """
    return f"“{name if len(name) <= _MAX_LETTERS else name[: _MAX_LETTERS - 1] + '…'}”"


def describe_findings(evaluation: Evaluation, analysis: Analysis, comparison: Comparison) -> list[str]:
    """Describe in two sentences how many predictions are right, and whether the model is better than simpler ones."""
    verdict = comparison.verdict(_MEANINGS.get(comparison.task.main_metric, ""))
    return [_describe_success(evaluation, analysis, comparison), as_sentence(verdict)]


def _describe_success(evaluation: Evaluation, analysis: Analysis, comparison: Comparison) -> str:
    task, tested = evaluation.predictions.task, pluralize(len(evaluation.proteins), "test protein")
    if task.label_kind == "value":
        return _describe_values(tested, comparison, per_residue=task.per_residue)
    num_tested, num_predicted, num_right = (
        sum(getattr(result, name) for result in analysis.classes)
        for name in ("num_tested", "num_predicted", "num_right")
    )
    if task.label_kind == "labels":
        found = f"The model finds {num_right:,} of the {pluralize(num_tested, 'label')} of {tested}"
        return f"{found}; of the {num_predicted:,} that it predicts, {num_right:,} are right."
    rare = min(analysis.classes, key=lambda result: result.num_tested)
    if len(analysis.classes) == 2 and not task.per_residue and rare.num_tested:
        return _describe_rare_class(rare)
    what = f"{pluralize(num_tested, 'residue')} of {tested}" if task.per_residue else tested
    constant = comparison.predictors["majority"]["accuracy"].value
    alone = (
        "" if constant is None else f"; always the most frequent class would be right for {format_percent(constant)}"
    )
    share = num_right / num_tested if num_tested else 0.0
    right = f"The model gives {num_right:,} of {what} ({format_percent(share)}) the right one"
    return f"{right} of {len(analysis.classes)} classes{alone}."


def _describe_rare_class(rare: ClassResult) -> str:
    members = f"{pluralize(rare.num_tested, 'test protein')} labelled {quote_class(rare.name)}"
    found = f"The model finds {rare.num_right:,} of the {members}"
    if not rare.num_predicted:
        return f"{found}."
    return f"{found}; of the {rare.num_predicted:,} to which it gives this label, {rare.num_right:,} have it."


def _describe_values(tested: str, comparison: Comparison, *, per_residue: bool) -> str:
    what = f"the residues of {tested}" if per_residue else tested
    error = comparison.model_metrics["rmse"].value
    mean = comparison.predictors["mean"]["rmse"].value
    if error is None or mean is None:
        return f"The model predicts a value for {what}."
    return (
        f"The model's predictions for {what} are typically off by {format_number(error)} (root mean square); "
        f"always predicting the mean would be off by {format_number(mean)}."
    )
