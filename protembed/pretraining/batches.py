"""The batches of pretraining, drawn by seed, and those of validation, masked by frozen rules."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import CLS, EOS
from protembed.data.batching import (
    MaskedBatch,
    MaskedCrop,
    MicroBatchShape,
    Tokens,
    balance,
    concatenate_masked,
    crop_offsets,
    make_crop,
    split_by_budget,
)
from protembed.data.hashing import sequence_sha256
from protembed.data.masking import mask_for_validation, mask_tokens
from protembed.data.sampling import EpochSampler, UniformSampler, token_counts
from protembed.pretraining.corpus import Corpus
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

# The second entry of the seed of a step's generator; `data/sampling.py` has that of an epoch's.
_CROP_STREAM = 1


def _empty_batch() -> MaskedBatch:
    """Make a micro-batch without residues, whose loss is zero over zero targets."""
    tokens, targets = np.array([CLS, EOS], np.uint8), np.array([], np.uint8)
    return concatenate_masked([MaskedCrop(tokens=tokens, positions=np.array([], np.int64), targets=targets, row=0)])


def fill_up(share: Sequence[MaskedBatch], num_micro_batches: int, processes: ProcessGroup) -> Sequence[MaskedBatch]:
    """Add empty micro-batches to this process's share of some, if all processes must compute equally many."""
    num_missing = -(-num_micro_batches // processes.size) - len(share)
    return [*share, *(_empty_batch() for _ in range(num_missing))] if processes.is_sharded else share


class PretrainingBatches:
    """The batches of pretraining: seeded proteins, seeded crops, seeded masks.

    If the corpus has clusters, an epoch sees one member of each. Each of several processes gets its share of a step.

    Attributes:
        steps_per_epoch: Number of steps in which each protein, or a member of each cluster, is seen once.
        shape: Shape of fixed micro-batches.
    """

    def __init__(
        self,
        corpus: Corpus,
        batches: BatchConfig,
        micro_batch_tokens: int,
        masking: MaskingConfig,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._corpus, self._crop_residues = corpus, batches.crop_residues
        self._micro_batch_tokens, self._masking, self._seed = micro_batch_tokens, masking, seed
        self._processes = processes
        sampler = UniformSampler(len(corpus)) if corpus.clusters is None else corpus.clusters
        count = token_counts(corpus.offsets, batches.crop_residues)
        self._sampler = EpochSampler(sampler, count, batches.crop_residues + 2, batches.batch_tokens, seed)
        self.steps_per_epoch = self._sampler.steps_per_epoch
        num_crops = len(corpus) if corpus.clusters is None else len(corpus.clusters)
        self.shape = MicroBatchShape.of_steps(
            min(batches.batch_tokens, self._sampler.max_step_tokens),
            micro_batch_tokens,
            longest=batches.crop_residues + 2,
            mean_length=self._sampler.max_epoch_tokens / num_crops,
            mask_rate=masking.mask_rate,
        )

    def micro_batches(self, step: int) -> Sequence[MaskedBatch]:
        """Draw a step, and divide it into micro-batches of about equal size; return those of this process.

        They are a function of the seed and the step, and of nothing else. Other processes' crops are not masked.
        """
        return self._draw(step, self._micro_batch_tokens)

    def fixed_micro_batches(self, step: int) -> list[MaskedBatch]:
        """Draw the crops and masks of `micro_batches`, and divide them into micro-batches that have one shape."""
        return [self.shape.pad(batch) for batch in self._draw(step, self.shape.budget)]

    def _draw(self, step: int, micro_batch_tokens: int) -> Sequence[MaskedBatch]:
        rng = np.random.default_rng([self._seed, _CROP_STREAM, step])
        rows = self._sampler.rows(step)
        crops = self._random_crops(rows, rng)
        groups = balance([len(crop) for crop in crops], micro_batch_tokens)
        share = self._masked(self._processes.shard(groups), rows, crops, rng)
        return fill_up(share, len(groups), self._processes)

    def _masked(
        self,
        groups: Sequence[list[int]],
        rows: NDArray[np.int64],
        crops: Sequence[Tokens],
        rng: np.random.Generator,
    ) -> list[MaskedBatch]:
        """Mask the crops whose indices this process's groups hold, and concatenate those of each group."""
        if not groups:
            return []
        is_needed = np.zeros(len(crops), np.bool_)
        is_needed[list(chain.from_iterable(groups))] = True
        offsets = crop_offsets(crops)
        masked = mask_tokens(np.concatenate(crops), offsets, self._masking, rng, is_needed)
        starts, bounds = offsets.tolist(), np.searchsorted(masked.positions, offsets).tolist()

        def masked_crop(index: int) -> MaskedCrop:
            targets = slice(bounds[index], bounds[index + 1])
            return MaskedCrop(
                tokens=masked.tokens[starts[index] : starts[index + 1]],
                positions=masked.positions[targets] - starts[index],
                targets=masked.targets[targets],
                row=int(rows[index]),
            )

        return [concatenate_masked([masked_crop(index) for index in group]) for group in groups]

    def _random_crops(self, rows: NDArray[np.int64], rng: np.random.Generator) -> list[Tokens]:
        """Crop each protein at random; one as short as a crop is used whole."""
        first, end = self._corpus.offsets[rows], self._corpus.offsets[rows + 1]
        lengths = np.minimum(end - first, self._crop_residues)
        starts = rng.integers(end - first - lengths + 1)
        return [
            make_crop(self._corpus[row], start, start + length)
            for row, start, length in zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ]


def validation_batches(
    corpus: Corpus, window_residues: int, micro_batch_tokens: int, rows: Iterable[int] | None = None
) -> list[MaskedBatch]:
    """Mask the frozen choice of residues of whole proteins, divide these into windows, and concatenate the windows.

    Windows are consecutive, so every masked residue is in exactly one of them. If `rows` is None, all are used.
    """
    rows = range(len(corpus)) if rows is None else rows
    windows = [window for row in rows for window in _masked_windows(corpus, row, window_residues)]
    windows.sort(key=lambda window: -len(window.tokens))  # similar lengths together: fuller micro-batches
    groups = split_by_budget([len(window.tokens) for window in windows], micro_batch_tokens)
    return [concatenate_masked(windows[group]) for group in groups]


def _masked_windows(corpus: Corpus, row: int, window_residues: int) -> Iterator[MaskedCrop]:
    masked = mask_for_validation(corpus[row], sequence_sha256(corpus.sequence(row)))
    for start in range(0, len(masked.tokens), window_residues):
        stop = min(start + window_residues, len(masked.tokens))
        inside = slice(*np.searchsorted(masked.positions, [start, stop]))
        yield MaskedCrop(
            tokens=make_crop(masked.tokens, start, stop),
            positions=masked.positions[inside] - start + (start == 0),  # the first window begins with <cls>
            targets=masked.targets[inside],
            row=row,
        )
