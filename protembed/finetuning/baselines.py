"""Baselines that a fine-tuned model is compared with: constants, sequence features, and a head on a frozen encoder."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from protembed.config.finetune import FinetuneConfig
from protembed.data.alphabet import FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode
from protembed.evaluation.metrics import best_threshold
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.probes import HIDDEN_UNITS, ProbeData, Vectors, fit_linear, fit_network, loss
from protembed.finetuning.sharing import compute_shared, copy_from_first
from protembed.finetuning.split_names import Split
from protembed.finetuning.targets import Prediction, TaskTable, has_target
from protembed.inference.embedding import Embedder, Embedding, check_finite
from protembed.inference.engine import Engine, InferenceJob
from protembed.model.heads import TaskHead
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

MAX_KMER = 3
# Residues on each side: 15 positions, the window that secondary structure was predicted from before language models.
WINDOW_SIDE = 7
# The most residues of a split that are fitted: more would improve the fit little, and fill the memory.
MAX_RESIDUES = 1 << 18

# Residues that are no standard amino acid, and positions outside the protein.
_OTHER, _OUTSIDE = NUM_AMINO_ACIDS, NUM_AMINO_ACIDS + 1
_NUM_LETTERS = NUM_AMINO_ACIDS + 2
_FITTED: Sequence[Split] = ("train", "valid")

Indices = NDArray[np.int64]


def composition(sequences: Sequence[str]) -> NDArray[np.float32]:
    """Compute the fraction of each standard amino acid, (sequences, 20)."""
    counts = np.stack([np.bincount(_letters(sequence), minlength=_NUM_LETTERS) for sequence in sequences])
    fractions: NDArray[np.float32] = (counts[:, :NUM_AMINO_ACIDS] / counts.sum(1, keepdims=True)).astype(np.float32)
    return fractions


def kmer_vectorizer(sequences: Sequence[str]) -> TfidfVectorizer:
    """Fit a vectorizer of k-mers of one to three residues, in which rare k-mers have higher weights."""
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, MAX_KMER), lowercase=False, sublinear_tf=True, dtype=np.float32
    )
    return vectorizer.fit(sequences)


def one_hot_window(sequence: str, indices: Indices) -> Vectors:
    """One-hot encode the window of 15 residues around some residues of a protein.

    Args:
        sequence: Amino-acid sequence, upper case.
        indices: The residues at the centres of the windows, from 0, (n,).

    Returns:
        (n, 15 · 22), sparse ones: at each of 15 positions one of 20 amino acids, any other, or none.
    """
    padded = np.pad(_letters(sequence), WINDOW_SIDE, constant_values=_OUTSIDE)
    width = 2 * WINDOW_SIDE + 1
    letters = padded[indices[:, None] + np.arange(width)]  # (n, 15)
    columns = (letters + np.arange(width) * _NUM_LETTERS).ravel()
    ends = np.arange(len(indices) + 1) * width
    shape = (len(indices), width * _NUM_LETTERS)
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)


def _letters(sequence: str) -> NDArray[np.int64]:
    """Number the residues of a sequence, (residues,): standard amino acids from 0 to 19, all others 20."""
    return np.minimum(encode(sequence).astype(np.int64) - FIRST_AMINO_ACID, _OTHER)


def residue_sample(table: TaskTable, split: Split, seed: int, *, max_residues: int = MAX_RESIDUES) -> list[Indices]:
    """Choose the residues that are fitted: all that have a target, or a random sample of about `max_residues`.

    Returns:
        For each protein of the split the indices of its residues, from 0.
    """
    known = [np.flatnonzero(has_target(target)) for target in table.targets[split]]
    fraction = max_residues / max(1, sum(map(len, known)))
    if fraction >= 1:
        return known
    rng = np.random.default_rng([seed, _FITTED.index(split)])
    return [indices[rng.random(len(indices)) < fraction] for indices in known]


def _targets_at(table: TaskTable, split: Split, chosen: Sequence[Indices]) -> NDArray[np.generic]:
    return np.concatenate([target[indices] for target, indices in zip(table.targets[split], chosen, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model or a baseline, and its prediction for each test protein."""

    name: str
    predictions: Sequence[Prediction]


def constant_baseline(train: TaskTable, tested: SplitTable) -> Predictor:
    """Predict the same for all proteins: the class frequencies, or the mean, of the training targets.

    Args:
        train: The table with the training targets. For a cross-validation, the table of all folds: the class
            frequencies of a fold's own training split run against those of its test split.
        tested: The table whose test split is predicted.
    """
    known, task = train.known_targets("train"), train.task
    constant = np.asarray(known.mean(0))
    if task.label_kind == "class":
        constant = np.bincount(known, minlength=train.num_classes) / len(known)
    predictions: list[Prediction] = [constant] * len(tested.splits["test"])
    if task.per_residue:
        lengths = map(len, tested.sequences("test"))
        predictions = [np.broadcast_to(constant, (length, *constant.shape)) for length in lengths]
    return Predictor(name="mean" if task.label_kind == "value" else "majority", predictions=predictions)


def sequence_baselines(table: TaskTable, seed: int, *, max_residues: int = MAX_RESIDUES) -> Iterator[Predictor]:
    """Predict from the sequence alone, by linear probes: from composition and k-mers, or from the residues around."""
    if table.task.per_residue:
        yield _window_baseline(table, seed, max_residues)
        return
    kmers = kmer_vectorizer(table.sequences("train"))
    for name, vectorize in (("composition", composition), ("k-mers", kmers.transform)):
        samples = [
            ProbeData(vectors=vectorize(table.sequences(split)), targets=table.known_targets(split))
            for split in _FITTED
        ]
        predictions = fit_linear(table.task, table.num_classes, *samples).predict(vectorize(table.sequences("test")))
        yield Predictor(name=name, predictions=list(predictions))


def _window_baseline(table: TaskTable, seed: int, max_residues: int) -> Predictor:
    samples = []
    for split in _FITTED:
        chosen = residue_sample(table, split, seed, max_residues=max_residues)
        windows = map(one_hot_window, table.sequences(split), chosen)
        vectors = sparse.vstack(list(windows), format="csr")
        samples.append(ProbeData(vectors=vectors, targets=_targets_at(table, split, chosen)))
    probe, tested = fit_linear(table.task, table.num_classes, *samples), table.sequences("test")
    predictions = [probe.predict(one_hot_window(sequence, np.arange(len(sequence)))) for sequence in tested]
    return Predictor(name="15 letters", predictions=predictions)


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder:
    """A frozen encoder, whose vectors a head is fitted to.

    Attributes:
        processes: Processes that share the proteins; the first one fits the head.
        on_protein: Function that receives the number of residues of each protein that this process has embedded.
        known: Vectors of proteins by sequence, which are not computed again; new ones are added.
    """

    embedder: Embedder
    engine: Engine
    processes: ProcessGroup = SINGLE_PROCESS
    on_protein: Callable[[int], None] = lambda num_residues: None
    known: MutableMapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def fit_head(
        self, table: TaskTable, config: FinetuneConfig, *, max_residues: int = MAX_RESIDUES
    ) -> tuple[TaskHead, float]:
        """Embed the training and validation proteins once, and fit a head to the vectors.

        Args:
            table: Proteins and their targets.
            config: Kind of head, seed, and whether classes are balanced.
            max_residues: Approximate maximum number of residues of a split that are fitted.

        Returns:
            The head, and its validation loss.
        """

        def embed(split: Split) -> ProbeData:
            if not table.task.per_residue:
                return self._embed_proteins(table, split)
            return self._embed_residues(
                table, split, residue_sample(table, split, config.seed, max_residues=max_residues)
            )

        train, valid = map(embed, _FITTED)
        if self.processes.is_first:
            head, valid_loss = _fit_head(table, config, train, valid)
        else:
            num_hidden = HIDDEN_UNITS if config.head == "mlp" else None
            head, valid_loss = TaskHead(train.vectors.shape[1], table.task, table.classes, num_hidden=num_hidden), 0.0
        copy_from_first(self.processes, head)
        return head.eval(), self.processes.broadcast_object(valid_loss)

    def _embed_proteins(self, table: TaskTable, split: Split) -> ProbeData:
        proteins, known = table.splits[split], self.known
        new = list({protein.sequence: protein for protein in proteins if protein.sequence not in known}.values())
        computed = compute_shared(self.processes, new, lambda share: self._embed(self.embedder.proteins(), share))
        known.update((protein.sequence, vector) for protein, vector in zip(new, computed, strict=True))
        vectors = np.stack([known[protein.sequence] for protein in proteins])
        return ProbeData(vectors=vectors, targets=table.known_targets(split))

    def _embed_residues(self, table: TaskTable, split: Split, chosen: Sequence[Indices]) -> ProbeData:
        def embed(share: Sequence[tuple[LabelledProtein, Indices]]) -> Iterator[NDArray[np.float32]]:
            residues = self._embed(self.embedder.residues(), [protein for protein, _ in share])
            return (values[indices] for values, (_, indices) in zip(residues, share, strict=True))

        pairs = list(zip(table.splits[split], chosen, strict=True))
        vectors = np.concatenate(compute_shared(self.processes, pairs, embed))
        return ProbeData(vectors=vectors, targets=_targets_at(table, split, chosen))

    def _embed(
        self, job: InferenceJob[Embedding], proteins: Sequence[LabelledProtein]
    ) -> Iterator[NDArray[np.float32]]:
        for protein, embedding in self.engine.run(job, proteins):
            check_finite(protein.id, embedding.values)
            yield embedding.values
            self.on_protein(len(protein.sequence))


def _fit_head(table: TaskTable, config: FinetuneConfig, train: ProbeData, valid: ProbeData) -> tuple[TaskHead, float]:
    """Fit a head to the vectors of the training proteins; return it and its validation loss."""
    task = table.task
    if config.head == "mlp":
        probe = fit_network(task, table.num_classes, train, valid, seed=config.seed)
    else:
        probe = fit_linear(task, table.num_classes, train, valid, balanced=config.balance_classes)
    head = probe.to_head(table.classes)
    if task.label_kind == "labels":
        head.threshold.fill_(best_threshold(valid.targets, probe.predict(valid.vectors)))
    return head, loss(probe, valid)
