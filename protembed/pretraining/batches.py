"""The batches of pretraining, drawn by seed, and those of validation, masked by frozen rules."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.batching import (
    MaskedBatch,
    MaskedCrop,
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

# The second entry of the seed of a step's generator; `data/sampling.py` has that of an epoch's.
_CROP_STREAM = 1


class PretrainingBatches:
    """The batches of pretraining: seeded proteins, seeded crops, seeded masks.

    If the corpus has clusters, an epoch sees one member of each.

    Attributes:
        steps_per_epoch: Number of steps in which each protein, or a member of each cluster, is seen once.
    """

    def __init__(
        self, corpus: Corpus, batches: BatchConfig, micro_batch_tokens: int, masking: MaskingConfig, seed: int
    ) -> None:
        self._corpus, self._crop_residues = corpus, batches.crop_residues
        self._micro_batch_tokens, self._masking, self._seed = micro_batch_tokens, masking, seed
        sampler = UniformSampler(len(corpus)) if corpus.clusters is None else corpus.clusters
        count = token_counts(corpus.offsets, batches.crop_residues)
        self._sampler = EpochSampler(sampler, count, batches.crop_residues + 2, batches.batch_tokens, seed)
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def micro_batches(self, step: int) -> list[MaskedBatch]:
        """Draw a step, masks included, and divide it into micro-batches of about equal size."""
        crops = self.crops(step)
        groups = balance([len(crop.tokens) for crop in crops], self._micro_batch_tokens)
        return [concatenate_masked([crops[index] for index in group]) for group in groups]

    def crops(self, step: int) -> list[MaskedCrop]:
        """Draw a step's crops and their masks; a function of the seed and the step alone."""
        rng = np.random.default_rng([self._seed, _CROP_STREAM, step])
        rows = self._sampler.rows(step)
        crops = [self._random_crop(int(row), rng) for row in rows]
        if not crops:
            return []
        offsets = crop_offsets(crops)
        masked = mask_tokens(np.concatenate(crops), offsets, self._masking, rng)
        boundaries = np.searchsorted(masked.positions, offsets)
        return [
            MaskedCrop(
                tokens=masked.tokens[start:stop],
                positions=masked.positions[first:last] - start,
                targets=masked.targets[first:last],
                row=int(row),
            )
            for row, (start, stop), (first, last) in zip(rows, pairwise(offsets), pairwise(boundaries), strict=True)
        ]

    def _random_crop(self, row: int, rng: np.random.Generator) -> Tokens:
        residues = self._corpus[row]
        length = min(len(residues), self._crop_residues)
        start = int(rng.integers(len(residues) - length + 1))
        return make_crop(residues, start, start + length)


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
