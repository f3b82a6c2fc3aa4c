"""What a fine-tuned model is compared with on the same split: each rung predicts the test part in its own way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from protembed.config.finetune import FinetuneConfig
from protembed.data.alphabet import FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode
from protembed.finetuning.evaluation import Output
from protembed.finetuning.labels import LabelledProtein, Split, SplitTable
from protembed.finetuning.probes import Probe, ProbeData, Vectors, fit_linear, fit_network, loss
from protembed.finetuning.targets import Targets, has_target
from protembed.finetuning.trainer import choose_threshold
from protembed.inference.embedding import Embedder, check_finite
from protembed.inference.engine import Engine
from protembed.model.heads import TaskHead

LONGEST_KMER = 3
# Residues on both sides of one: 15 positions, as secondary structure was predicted before there were language models.
WINDOW_SIDE = 7

# What is no standard amino acid, and what is no residue at all.
_OTHER, _OUTSIDE = NUM_AMINO_ACIDS, NUM_AMINO_ACIDS + 1
_NUM_LETTERS = NUM_AMINO_ACIDS + 2


def composition(sequences: Sequence[str]) -> NDArray[np.float32]:
    """Compute the share of each standard amino acid, (sequences, 20)."""
    counts = np.stack([np.bincount(_letters(sequence), minlength=_NUM_LETTERS) for sequence in sequences])
    shares: NDArray[np.float32] = (counts[:, :NUM_AMINO_ACIDS] / counts.sum(1, keepdims=True)).astype(np.float32)
    return shares


def kmer_vectorizer(sequences: Sequence[str]) -> TfidfVectorizer:
    """Learn which runs of one to three residues there are, and how rare each is; its `transform` counts them."""
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, LONGEST_KMER), lowercase=False, sublinear_tf=True, dtype=np.float32
    )
    return vectorizer.fit(sequences)


def one_hot_window(sequence: str, places: NDArray[np.int64]) -> Vectors:
    """Write out the letters around some residues of a protein.

    Args:
        sequence: upper-case residues.
        places: (n,), of the residues, from 0.

    Returns:
        (n, 15 · 22), sparse ones: at each of 15 positions one of 20 amino acids, any other, or none.
    """
    padded = np.pad(_letters(sequence), WINDOW_SIDE, constant_values=_OUTSIDE)
    width = 2 * WINDOW_SIDE + 1
    letters = padded[places[:, None] + np.arange(width)]  # (n, 15)
    columns = (letters + np.arange(width) * _NUM_LETTERS).ravel()
    ends = np.arange(len(places) + 1) * width
    shape = (len(places), width * _NUM_LETTERS)
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)


def _letters(sequence: str) -> NDArray[np.int64]:
    """Number the residues of a sequence, (residues,), from 0 to 19, and 20 for all others."""
    return np.minimum(encode(sequence).astype(np.int64) - FIRST_AMINO_ACID, _OTHER)


# What is fitted at once: more residues say little more, and would fill the memory.
MOST_RESIDUES = 1 << 18
_FITTED: Sequence[Split] = ("train", "valid")

Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A way to predict, and what it predicted.

    Attributes:
        name: of the way.
        outputs: of each protein of the test part.
    """

    name: str
    outputs: Sequence[Output]


def constant_baseline(table: SplitTable, targets: Targets) -> Baseline:
    """Predict from training labels alone: their shares, or their mean, for everything.

    Args:
        table: whose test part is predicted.
        targets: the labels; in folds those of all folds, for a fold's own shares run against its test part.
    """
    train = targets.known_targets("train")
    answer = np.asarray(train.mean(0))
    if targets.task.label_kind == "class":
        answer = np.bincount(train, minlength=len(targets.classes or ())) / len(train)
    outputs: list[Output] = [answer] * len(table.splits["test"])
    if targets.task.per_residue:
        outputs = [np.broadcast_to(answer, (len(one.sequence), *answer.shape)) for one in table.splits["test"]]
    return Baseline(name="mean" if targets.task.label_kind == "value" else "majority", outputs=outputs)


def sequence_baselines(table: SplitTable, targets: Targets, seed: int) -> Iterator[Baseline]:
    """Predict from what can be counted in a sequence, by linear maps: of the residues around one, or of the protein."""
    if targets.task.per_residue:
        yield _window_baseline(table, targets, seed)
        return
    counter = kmer_vectorizer(_sequences(table.splits["train"]))
    for name, count in (("composition", composition), ("k-mers", counter.transform)):
        fitted = _fit(
            targets,
            [
                ProbeData(vectors=count(_sequences(table.splits[split])), answers=targets.known_targets(split))
                for split in _FITTED
            ],
        )
        outputs = list(fitted.outputs(count(_sequences(table.splits["test"]))))
        yield Baseline(name=name, outputs=outputs)


def frozen_head(
    table: SplitTable,
    targets: Targets,
    representation: Embedder,
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
        for number, (protein, embedding) in enumerate(engine.run(computation, table.splits[split])):
            check_finite(protein.id, embedding.values)
            rows.append(embedding.values[None] if chosen is None else embedding.values[chosen[number]])
            on_protein(len(protein.sequence))
        answers = targets.known_targets(split) if chosen is None else _answers_at(targets, split, chosen)
        samples.append(ProbeData(vectors=np.concatenate(rows), answers=answers))
    if config.head == "mlp":
        fitted = fit_network(targets.task, len(targets.classes or ()), *samples, seed=config.seed)
    else:
        fitted = _fit(targets, samples, balanced=config.balance_classes)
    head = fitted.head(targets.classes)
    if targets.task.label_kind == "labels":
        choose_threshold(head, samples[1].answers, fitted.outputs(samples[1].vectors))
    return head, loss(fitted, samples[1])


def residue_sample(targets: Targets, split: Split, seed: int) -> list[Places]:
    """Choose residues of each protein of a part: all that have an answer, or as many as can be fitted at once."""
    known = [np.flatnonzero(has_target(answer)) for answer in targets.by_split[split]]
    share = MOST_RESIDUES / max(1, sum(map(len, known)))
    if share >= 1:
        return known
    rng = np.random.default_rng([seed, _FITTED.index(split)])
    return [places[rng.random(len(places)) < share] for places in known]


def _window_baseline(table: SplitTable, targets: Targets, seed: int) -> Baseline:
    samples = []
    for split in _FITTED:
        chosen = residue_sample(targets, split, seed)
        pairs = zip(table.splits[split], chosen, strict=True)
        vectors = sparse.vstack([one_hot_window(protein.sequence, places) for protein, places in pairs], format="csr")
        samples.append(ProbeData(vectors=vectors, answers=_answers_at(targets, split, chosen)))
    fitted = _fit(targets, samples)
    outputs = [
        fitted.outputs(one_hot_window(protein.sequence, np.arange(len(protein.sequence))))
        for protein in table.splits["test"]
    ]
    return Baseline(name="15 letters", outputs=outputs)


def _fit(targets: Targets, samples: Sequence[ProbeData], *, balanced: bool = False) -> Probe:
    train, valid = samples
    return fit_linear(targets.task, len(targets.classes or ()), train, valid, balanced=balanced)


def _answers_at(targets: Targets, split: Split, chosen: Sequence[Places]) -> Output:
    return np.concatenate([answer[places] for answer, places in zip(targets.by_split[split], chosen, strict=True)])


def _sequences(proteins: Sequence[LabelledProtein]) -> list[str]:
    return [protein.sequence for protein in proteins]
