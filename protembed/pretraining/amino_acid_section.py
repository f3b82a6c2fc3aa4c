"""The section of a pretraining page about amino acids: how well each is predicted, and which are confused."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS
from protembed.pretraining.amino_acids import AminoAcidPredictions, Matrix, similarity_to_blosum62
from protembed.pretraining.run_record import RunRecord
from protembed.report.page import Details, Element, Section
from protembed.report.table import Column, Prose, Table
from protembed.text import format_decimals

# Similar amino acids are neighbours: aliphatic, aromatic, positive, negative, polar, special.
_ORDER = "AVLIMCFWYHKRDENQSTGP"
_ROWS = [AMINO_ACIDS.index(letter) for letter in _ORDER]
# The accuracy of fewer residues has a standard error of several percentage points.
_MIN_MASKED = 30
_BITS_OF_FULL_COLOUR = 1.0
_NUM_NAMED = 3
_START = ", because proteins begin with it"


def amino_acid_section(run: RunRecord) -> Section:
    """Show how the best model predicts each amino acid; what it confuses only if it has learned anything."""
    predictions = run.amino_acids
    if predictions is None:
        return Section(title="Amino acids", body=["This is known after the first validation."])
    body: list[Element] = [_finding(run, predictions), _metrics_table(run, predictions)]
    if run.has_learned:
        body += [_similarity(predictions), _confusion_table(predictions)]
    else:
        body.append(
            "Which amino acids the model confuses is not shown, because it predicts them no better than their "
            "frequencies do: it makes nearly the same prediction everywhere."
        )
    body.append(Details(title="How often each amino acid was the most likely one", body=[_count_table(predictions)]))
    return Section(title="Amino acids", body=body)


def _gains(run: RunRecord, predictions: AminoAcidPredictions) -> NDArray[np.float64]:
    """Compute by how many nats the model predicts each amino acid better than the unigram model does, (20,)."""
    masked = predictions.num_masked
    return run.unigram_losses - predictions.losses / np.where(masked > 0, masked, np.nan)


def _finding(run: RunRecord, predictions: AminoAcidPredictions) -> Prose:
    letter, share = predictions.most_frequent
    best = "The model that was kept" if run.is_finished else "The best model so far"
    text = (
        f"{best}, of step {run.progress.best_step:,}, names {100 * predictions.accuracy:.1f} % of "
        f"{predictions.counts.sum():,} masked amino acids correctly. The most frequent one is {letter}, with "
        f"{100 * share:.1f} %."
    )
    gains = np.where(predictions.num_masked >= _MIN_MASKED, _gains(run, predictions), np.nan)
    order = [index for index in np.argsort(-np.nan_to_num(gains, nan=-np.inf)) if gains[index] > 0][:_NUM_NAMED]
    if not run.has_learned or len(order) < _NUM_NAMED:
        return text
    *first, last = (
        f"{AMINO_ACIDS[index]} ({format_decimals(gains[index], 2)} nats{_START if AMINO_ACIDS[index] == 'M' else ''})"
        for index in order
    )
    return f"{text} The context says most about {', '.join(first)} and {last}."


def _metrics_table(run: RunRecord, predictions: AminoAcidPredictions) -> Table:
    gains, masked = _gains(run, predictions), predictions.num_masked
    order = sorted(range(len(gains)), key=lambda index: -np.nan_to_num(gains[index], nan=-np.inf))
    metrics = [predictions.metrics()[index] for index in order]
    known = [None if np.isnan(gains[index]) else float(gains[index]) for index in order]
    accuracies = [None if row.accuracy is None else 100 * row.accuracy for row in metrics]
    unigram = [float(run.unigram_losses[index]) for index in order]
    limit = max((abs(gains[index]) for index in order if masked[index] >= _MIN_MASKED), default=None)
    return Table(
        title="How well each amino acid is predicted",
        note=f"The loss is the surprise at the right amino acid, in nats; the gain is how much less it is than by the "
        f"frequencies of amino acids alone. Rows are grey with fewer than {_MIN_MASKED} masked residues.",
        columns=[
            Column(name="amino acid", cells=[row.name for row in metrics]),
            Column(name="masked", cells=[row.count for row in metrics], note="How often it was masked."),
            Column(name="gain, nats", cells=known, decimals=3, shade="diverging", shade_limit=limit),
            Column(name="loss, nats", cells=[row.loss for row in metrics], decimals=3),
            Column(name="by frequency", cells=unigram, decimals=3, note="Loss of the unigram model, in nats."),
            Column(name="named correctly, %", cells=accuracies, decimals=1, shade="sequential", shade_limit=100),
            Column(name="most often taken for", cells=[row.top_confusion for row in metrics]),
        ],
        row_kinds=["" if row.count >= _MIN_MASKED else "few" for row in metrics],
    )


def _similarity(predictions: AminoAcidPredictions) -> Prose:
    similarity = similarity_to_blosum62(predictions.log_odds())
    if similarity is None:
        return "The predictions do not vary enough for a comparison with BLOSUM62."
    return (
        "Amino acids that the model confuses are those that it finds exchangeable in a sequence. Over the 190 pairs of "
        f"different ones, this has a correlation of {similarity:.2f} with BLOSUM62, the matrix of how often evolution "
        "exchanges them: 0 would be nothing in common, 1 full agreement."
    )


def _confusion_table(predictions: AminoAcidPredictions) -> Table:
    return _matrix(
        "Which amino acids the model confuses",
        "Each row is an amino acid that was masked, each column one that the model predicts in its place. The number "
        "compares the mean probability of the prediction with that at all masked residues, in bits: 1 is twice as "
        "probable as usual (blue), -1 half as probable (orange). On the diagonal the prediction is right. Similar "
        "amino acids are neighbours.",
        predictions.log_odds(),
        decimals=1,
        shade_limit=_BITS_OF_FULL_COLOUR,
    )


def _count_table(predictions: AminoAcidPredictions) -> Table:
    return _matrix(
        "Masked amino acids and the most likely ones",
        "Each row is an amino acid that was masked; the columns count which one the model predicted with the highest "
        "probability. `confusions.tsv` has these counts too, with the mean probabilities.",
        predictions.counts.astype(np.float64),
    )


def _matrix(
    title: str, note: Prose, values: Matrix, *, decimals: int | None = None, shade_limit: float | None = None
) -> Table:
    ordered = values[np.ix_(_ROWS, _ROWS)]
    return Table(
        title=title,
        note=note,
        columns=[
            Column(name="masked", cells=list(_ORDER)),
            *(
                Column(
                    name=letter,
                    cells=_cells(ordered[:, number], is_count=decimals is None),
                    decimals=decimals,
                    shade="sequential" if decimals is None else "diverging",
                    shade_limit=shade_limit or float(values.max()) or None,
                )
                for number, letter in enumerate(_ORDER)
            ),
        ],
        is_matrix=True,
    )


def _cells(values: Matrix, *, is_count: bool) -> Sequence[float | int | None]:
    return [None if np.isnan(value) else int(value) if is_count else float(value) for value in values]
