"""Whether proteins are like those that a fine-tuned model was trained and tested on: its domain of applicability."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from protembed.config.common import Region
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.hashing import KmerSample
from protembed.io.text import pluralize
from protembed.model.checkpoint import Checkpoint
from protembed.model.metadata import TrainingData

_WITHOUT_STANDARD = str.maketrans("", "", AMINO_ACIDS)
# A protein with so many residues that are no amino acids is unusual; with fewer it is not worth a warning.
_MANY_NONSTANDARD = 0.1
# Where nearly all training proteins begin with M they are whole or N-terminal, and an input of which most do not is
# made of other pieces.
_NEARLY_ALL = 0.9
_FEWEST = 5
# The input is far from the training proteins where at most half as many of its proteins as of the model's own test
# proteins share a k-mer with them, and this is no chance; see `_chance_of_so_few`.
_FAR_FRACTION, _FAR_CHANCE = 0.5, 1e-3


class _Protein(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def sequence(self) -> str: ...


P = TypeVar("P", bound=_Protein)


def num_nonstandard(sequence: str) -> int:
    """Count the residues that are none of the 20 amino acids."""
    return len(sequence.translate(_WITHOUT_STANDARD))


@dataclass
class InputComparison:
    """Counts the proteins of an input that are unlike those that a fine-tuned model was trained and tested on.

    Attributes:
        is_finetuned: Whether the model was fine-tuned at all.
        data: What is known of the latter; None if nothing is.
        kmers: Their k-mers; None if there are none.
        trained_region: The region that the model was trained on; None is the whole protein.
        used_region: The region that is used of the input.
    """

    is_finetuned: bool
    data: TrainingData | None
    kmers: KmerSample | None
    trained_region: Region | None
    used_region: Region | None
    _num_proteins: int = 0
    _counts: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    @classmethod
    def with_model(cls, checkpoint: Checkpoint, used_region: Region | None) -> "InputComparison":
        """Begin a comparison with what a model records; one that was not fine-tuned can be used for any protein."""
        record, hashes = checkpoint.metadata, checkpoint.training_kmers
        data = None if checkpoint.task_head is None else record.training_data
        return cls(
            is_finetuned=checkpoint.task_head is not None,
            data=data,
            kmers=None
            if data is None or hashes is None
            else KmerSample(length=data.kmer_length, hashes=hashes.numpy()),
            trained_region=None if record.region is None else Region.parse(record.region),
            used_region=used_region,
        )

    def watch(self, proteins: Iterable[P]) -> Iterator[P]:
        """Pass proteins on and count those that are unlike."""
        for protein in proteins:
            self._num_proteins += 1
            for name in self._differences(protein.sequence):
                self._counts[name] += 1
                self._first.setdefault(name, protein.id)
            yield protein

    def _differences(self, sequence: str) -> Iterator[str]:
        data, length = self.data, len(sequence)
        if data is None:
            return
        if length > data.longest:
            yield "longer"
        if length > data.lengths[3]:
            yield "long"
        if length < data.lengths[1]:
            yield "short"
        if length < data.shortest:
            yield "shorter"
        share = num_nonstandard(sequence) / length
        if share > max(_MANY_NONSTANDARD, data.highest_nonstandard_share):
            yield "nonstandard"
        if not sequence.startswith("M"):
            yield "no M"
        if self.kmers is not None and not self.kmers.shares_kmer(sequence):
            yield "unrelated"

    def warnings(self) -> list[str]:
        """Describe in sentences how the proteins differ; none where they do not."""
        if not (self._num_proteins and self.is_finetuned):
            return []
        if self.data is None:
            return [
                "the model does not record on what it was trained (an older protembed made it), so it is unknown "
                "whether these proteins are like its training proteins"
            ]
        found = [self._about_region(), self._about_length(self.data), self._about_shorter(self.data)]
        found += [self._about_letters(self.data), self._about_beginning(self.data), self._about_kmers(self.data)]
        return [sentence for sentence in found if sentence is not None]

    def _about_region(self) -> str | None:
        if self.used_region == self.trained_region:
            return None
        trained, used = (
            "whole proteins" if region is None else f"residues {region} of each protein"
            for region in (self.trained_region, self.used_region)
        )
        if self.trained_region is None:  # what was trained on may be pieces already
            return None
        return f"the model was trained on {trained}, and is applied to {used}; leave out --region to use the same"

    def _about_length(self, data: TrainingData) -> str | None:
        if number := self._counts["longer"]:
            found = f"{self._which(number, 'longer')} longer than the longest that the model was trained and tested on"
            return f"{found} ({pluralize(data.longest, 'residue')}){self._advice(data)}"
        return self._about_most("long", "longer", data.lengths[3])

    def _about_shorter(self, data: TrainingData) -> str | None:
        if number := self._counts["shorter"]:
            found = (
                f"{self._which(number, 'shorter')} shorter than the shortest that the model was trained and tested on"
            )
            return f"{found} ({pluralize(data.shortest, 'residue')})"
        return self._about_most("short", "shorter", data.lengths[1])

    def _about_most(self, name: str, comparative: str, num_residues: int) -> str | None:
        """Say so where most proteins are as long, or as short, as one training protein in twenty."""
        if not self._are_most(name):
            return None
        found = f"{self._which(self._counts[name], name)} {comparative} than 95 % of the model's training proteins"
        return f"{found} ({pluralize(num_residues, 'residue')})"

    def _advice(self, data: TrainingData) -> str:
        """Tell what to do about proteins that are too long, by whether the training proteins look like pieces."""
        if self.trained_region is None and data.lengths[2] == data.longest:
            if data.starts_with_met_share >= _NEARLY_ALL:
                return f"; it was never tested on such proteins: use --region 1-{data.longest}"
            return "; it was never tested on such proteins, but on pieces of one length: choose such by --region"
        return "; it was never tested on such proteins"

    def _about_letters(self, data: TrainingData) -> str | None:
        if not (number := self._counts["nonstandard"]):
            return None
        share = max(_MANY_NONSTANDARD, data.highest_nonstandard_share)
        return (
            f"{self._which(number, 'nonstandard')} more than {share:.0%} X or other letters that are none of the 20 "
            "amino acids, unlike all that the model was trained and tested on"
        )

    def _about_beginning(self, data: TrainingData) -> str | None:
        number = self._counts["no M"]
        if data.starts_with_met_share < _NEARLY_ALL or not self._are_most("no M"):
            return None
        return (
            f"{self._which(number, 'no M')} without the M with which {data.starts_with_met_share:.0%} of the model's "
            "training proteins begin; if these are fragments, predict from whole proteins"
        )

    def _about_kmers(self, data: TrainingData) -> str | None:
        if self.kmers is None or not data.num_tested:
            return None
        num_related = self._num_proteins - self._counts["unrelated"]
        if num_related * data.num_tested > _FAR_FRACTION * data.num_tested_related * self._num_proteins:
            return None
        if _chance_of_so_few(num_related, self._num_proteins, data.num_tested_related, data.num_tested) > _FAR_CHANCE:
            return None
        return (
            f"only {num_related:,} of {pluralize(self._num_proteins, 'protein')} share {data.kmer_length} residues in "
            f"a row with those recorded of the training proteins, but of its test proteins "
            f"{data.num_tested_related:,} of {data.num_tested:,} did; its metrics may not hold for these"
        )

    def _are_most(self, name: str) -> bool:
        # One protein alone may well be the one in ten or twenty that is unlike the others.
        return self._num_proteins >= _FEWEST and self._counts[name] > self._num_proteins / 2

    def _which(self, number: int, name: str) -> str:
        first = f" ({self._first[name]!r} is one)" if number < self._num_proteins else ""
        return f"{number:,} of {pluralize(self._num_proteins, 'protein')}{first} {'is' if number == 1 else 'are'}"


def _chance_of_so_few(num_found: int, num_drawn: int, num_others_found: int, num_others: int) -> float:
    """Return how likely so few, or fewer, of the drawn ones are found if both are of one kind.

    Source: Fisher's exact test, one-sided.
    """
    total, found = num_drawn + num_others, num_found + num_others_found
    probability = 0.0
    for number in range(num_found, max(-1, found - num_others - 1), -1):
        more = math.exp(
            _log_choose(found, number) + _log_choose(total - found, num_drawn - number) - _log_choose(total, num_drawn)
        )
        probability += more
        if more < 1e-9 * probability:
            break
    return probability


def _log_choose(total: int, number: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(number + 1) - math.lgamma(total - number + 1)
