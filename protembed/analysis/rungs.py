"""What a fine-tuned model is compared with on the same split: each rung predicts the test part in its own way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protembed.analysis.features import composition, kmer_counter, letters_around
from protembed.analysis.scores import Output
from protembed.config.finetune import FinetuneConfig
from protembed.data.labels import LabelledProtein, LabelTable, Split
from protembed.data.targets import Targets, is_known
from protembed.inference.embedding import Representation, refuse_infinite
from protembed.inference.engine import Engine
from protembed.model.heads import TaskHead
from protembed.training.finetuning import choose_threshold
from protembed.training.linear import (
    FittedMap,
    Sample,
    fit_linear,
    fit_network,
    loss,
)

# What is fitted at once: more residues say little more, and would fill the memory.
MOST_RESIDUES = 1 << 18
_FITTED: Sequence[Split] = ("train", "valid")

Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A way to predict, and what it predicted.

    Attributes:
        name: of the way.
        outputs: of each protein of the test part.
    """

    name: str
    outputs: Sequence[Output]


def trivial_rung(table: LabelTable, targets: Targets) -> Rung:
    """Predict from training labels alone: their shares, or their mean, for everything.

    Args:
        table: whose test part is predicted.
        targets: the labels; in folds those of all folds, for a fold's own shares run against its test part.
    """
    train = targets.known("train")
    answer = np.asarray(train.mean(0))
    if targets.task.answer == "class":
        answer = np.bincount(train, minlength=len(targets.classes or ())) / len(train)
    outputs: list[Output] = [answer] * len(table.parts["test"])
    if targets.task.per_residue:
        outputs = [np.broadcast_to(answer, (len(one.sequence), *answer.shape)) for one in table.parts["test"]]
    return Rung(name="mean" if targets.task.answer == "value" else "majority", outputs=outputs)


def counting_rungs(table: LabelTable, targets: Targets, seed: int) -> Iterator[Rung]:
    """Predict from what can be counted in a sequence, by linear maps: of the residues around one, or of the protein."""
    if targets.task.per_residue:
        yield _letters_rung(table, targets, seed)
        return
    counter = kmer_counter(_sequences(table.parts["train"]))
    for name, count in (("composition", composition), ("k-mers", counter.transform)):
        fitted = _fit(
            targets,
            [Sample(vectors=count(_sequences(table.parts[split])), answers=targets.known(split)) for split in _FITTED],
        )
        outputs = list(fitted.outputs(count(_sequences(table.parts["test"]))))
        yield Rung(name=name, outputs=outputs)


def frozen_head(
    table: LabelTable,
    targets: Targets,
    representation: Representation,
    engine: Engine,
    config: FinetuneConfig,
    on_protein: Callable[[int], None] = lambda num_residues: None,
) -> tuple[TaskHead, float]:
    """Embed train and valid once, and fit a head to the vectors.

    Args:
        table: the proteins.
        targets: their labels.
        representation: of the encoder, which stays as it is.
        engine: computes it.
        config: which head, and the seed.
        on_protein: told the residues of each protein that is embedded.

    Returns:
        The head, and its loss on the validation part.
    """
    computation = representation.residues() if targets.task.per_residue else representation.proteins()
    samples = []
    for split in _FITTED:
        chosen = residue_sample(targets, split, config.seed) if targets.task.per_residue else None
        rows = []
        for number, (protein, embedding) in enumerate(engine.run(computation, table.parts[split])):
            refuse_infinite(protein.id, embedding.values)
            rows.append(embedding.values[None] if chosen is None else embedding.values[chosen[number]])
            on_protein(len(protein.sequence))
        answers = targets.known(split) if chosen is None else _answers_at(targets, split, chosen)
        samples.append(Sample(vectors=np.concatenate(rows), answers=answers))
    if config.head == "mlp":
        fitted = fit_network(targets.task, len(targets.classes or ()), *samples, seed=config.seed)
    else:
        fitted = _fit(targets, samples, balanced=config.class_weights)
    head = fitted.head(targets.classes)
    if targets.task.answer == "labels":
        choose_threshold(head, samples[1].answers, fitted.outputs(samples[1].vectors))
    return head, loss(fitted, samples[1])


def residue_sample(targets: Targets, split: Split, seed: int) -> list[Places]:
    """Choose residues of each protein of a part: all that have an answer, or as many as can be fitted at once."""
    known = [np.flatnonzero(is_known(answer)) for answer in targets.of_split[split]]
    share = MOST_RESIDUES / max(1, sum(map(len, known)))
    if share >= 1:
        return known
    rng = np.random.default_rng([seed, _FITTED.index(split)])
    return [places[rng.random(len(places)) < share] for places in known]


def _letters_rung(table: LabelTable, targets: Targets, seed: int) -> Rung:
    samples = []
    for split in _FITTED:
        chosen = residue_sample(targets, split, seed)
        pairs = zip(table.parts[split], chosen, strict=True)
        vectors = sparse.vstack([letters_around(protein.sequence, places) for protein, places in pairs], format="csr")
        samples.append(Sample(vectors=vectors, answers=_answers_at(targets, split, chosen)))
    fitted = _fit(targets, samples)
    outputs = [
        fitted.outputs(letters_around(protein.sequence, np.arange(len(protein.sequence))))
        for protein in table.parts["test"]
    ]
    return Rung(name="15 letters", outputs=outputs)


def _fit(targets: Targets, samples: Sequence[Sample], *, balanced: bool = False) -> FittedMap:
    train, valid = samples
    return fit_linear(targets.task, len(targets.classes or ()), train, valid, balanced=balanced)


def _answers_at(targets: Targets, split: Split, chosen: Sequence[Places]) -> Output:
    return np.concatenate([answer[places] for answer, places in zip(targets.of_split[split], chosen, strict=True)])


def _sequences(proteins: Sequence[LabelledProtein]) -> list[str]:
    return [protein.sequence for protein in proteins]
