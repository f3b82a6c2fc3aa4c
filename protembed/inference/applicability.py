"""Check whether proteins resemble those that a fine-tuned model was trained and tested on."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Protocol, TypeVar

from protembed.config.common import Region
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.hashing import KmerSample
from protembed.inference.engine import HasSequence
from protembed.model.checkpoint import Checkpoint
from protembed.model.metadata import ModelMetadata, TrainingData
from protembed.text import pluralize

_DELETE_STANDARD = str.maketrans("", "", AMINO_ACIDS)
# A smaller fraction of non-standard residues in a protein is not worth a warning.
_MIN_NONSTANDARD_FRACTION = 0.1
# Where at least this fraction of the training proteins begins with M, they are whole or N-terminal; proteins that
# mostly begin otherwise are other fragments.
_MIN_MET_FRACTION = 0.9
# In a smaller input, most proteins may differ by chance.
_MIN_PROTEINS = 5
# The input is distant from the training proteins if the fraction of its proteins that share a k-mer with them is at
# most half that of the model's own test proteins, with at most this p-value.
_DISTANT_FRACTION, _DISTANT_P_VALUE = 0.5, 1e-3


class _Protein(HasSequence, Protocol):
    @property
    def id(self) -> str: ...


Protein = TypeVar("Protein", bound=_Protein)


def num_nonstandard(sequence: str) -> int:
    """Count the residues that are not one of the 20 amino acids."""
    return len(sequence.translate(_DELETE_STANDARD))


def _max_nonstandard_fraction(data: TrainingData) -> float:
    return max(_MIN_NONSTANDARD_FRACTION, data.highest_nonstandard_fraction)


def _fisher_p_value(num_hits: int, num_proteins: int, num_other_hits: int, num_others: int) -> float:
    """Compute the probability of so few hits, or fewer, in the first of two groups with the same rate of hits.

    Source: Fisher's exact test, one-sided.
    """
    from scipy.stats import hypergeom  # which takes half a second to load, and is rarely needed

    return float(hypergeom.cdf(num_hits, num_proteins + num_others, num_hits + num_other_hits, num_proteins))


@dataclass
class InputComparison:
    """Counts the proteins of an input that differ from those that a fine-tuned model was trained and tested on.

    Attributes:
        metadata: What is known about the model; one that was not fine-tuned suits all proteins.
        kmers: The k-mers of the training proteins; None if they are unknown.
        used_region: The region of each input protein that is used; None is the whole protein.
    """

    metadata: ModelMetadata
    kmers: KmerSample | None
    used_region: Region | None
    _num_proteins: int = 0
    _counts: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, used_region: Region | None) -> "InputComparison":
        """Start a comparison with the training data that a model's metadata describe."""
        data, hashes = checkpoint.metadata.training_data, checkpoint.training_kmers
        kmers = None
        if data is not None and hashes is not None:
            kmers = KmerSample(length=data.kmer_length, hashes=hashes.numpy())
        return cls(checkpoint.metadata, kmers, used_region)

    def observe(self, proteins: Iterable[Protein]) -> Iterator[Protein]:
        """Yield the proteins, and count those that differ."""
        for protein in proteins:
            self._num_proteins += 1
            for name in self._differences(protein.sequence):
                self._counts[name] += 1
                self._first.setdefault(name, protein.id)
            yield protein

    def _differences(self, sequence: str) -> Iterator[str]:
        data, length = self.metadata.training_data, len(sequence)
        if data is None:
            return iter(())
        differs = {
            "longer": length > data.longest,
            "longer than most": length > data.lengths[3],
            "shorter than most": length < data.lengths[1],
            "shorter": length < data.shortest,
            "nonstandard": num_nonstandard(sequence) / length > _max_nonstandard_fraction(data),
            "no M": not sequence.startswith("M"),
            "unrelated": self.kmers is not None and not self.kmers.shares_kmer(sequence),
        }
        return compress(differs, differs.values())

    def warnings(self) -> list[str]:
        """Describe in sentences how the proteins differ; return none if they do not."""
        data = self.metadata.training_data
        if not self._num_proteins or self.metadata.target is None:
            return []
        if data is None:
            return [
                "the model does not record its training proteins (an older protembed made it), so it is unknown "
                "whether these proteins resemble them"
            ]
        sentences = [
            self._region_warning(),
            self._length_warning("longer", "longest", data.longest, data.lengths[3], self._advice_on_longer(data)),
            self._length_warning("shorter", "shortest", data.shortest, data.lengths[1]),
            self._nonstandard_warning(data),
            self._start_warning(data),
            self._distance_warning(data),
        ]
        return [sentence for sentence in sentences if sentence is not None]

    def _region_warning(self) -> str | None:
        # Where the model was trained on whole sequences, these may have been fragments already.
        trained = None if self.metadata.region is None else Region.parse(self.metadata.region)
        if trained is None or self.used_region == trained:
            return None
        used = "whole proteins" if self.used_region is None else f"residues {self.used_region} of each protein"
        return (
            f"the model was trained on residues {trained} of each protein, but is applied to {used}; omit "
            "--region to use the same"
        )

    def _length_warning(
        self, comparative: str, superlative: str, extreme: int, quantile: int, advice: str = ""
    ) -> str | None:
        """Warn of proteins beyond all that the model knows, or if most are beyond 95 % of its training proteins."""
        if self._counts[comparative]:
            known, limit = f"the {superlative} that the model was trained and tested on", extreme
            subject = self._subject(comparative)
        elif self._are_most(f"{comparative} than most"):
            known, limit, advice = "95 % of the model's training proteins", quantile, ""
            subject = self._subject(f"{comparative} than most")
        else:
            return None
        return f"{subject} {comparative} than {known} ({pluralize(limit, 'residue')}){advice}"

    def _advice_on_longer(self, data: TrainingData) -> str:
        """Advise how to shorten proteins if the training proteins look like fragments of one length."""
        if self.metadata.region is None and data.lengths[2] == data.longest:
            if data.starts_with_met_fraction >= _MIN_MET_FRACTION:
                return f"; it was never tested on such proteins: use --region 1-{data.longest}"
            return "; it was never tested on such proteins, but on fragments of one length: select them with --region"
        return "; it was never tested on such proteins"

    def _nonstandard_warning(self, data: TrainingData) -> str | None:
        if not self._counts["nonstandard"]:
            return None
        return (
            f"{self._subject('nonstandard', 'has', 'have')} more than {_max_nonstandard_fraction(data):.0%} X "
            "or other letters that are not one of the 20 amino acids, unlike all proteins that the model was trained "
            "and tested on"
        )

    def _start_warning(self, data: TrainingData) -> str | None:
        if data.starts_with_met_fraction < _MIN_MET_FRACTION or not self._are_most("no M"):
            return None
        return (
            f"{self._subject('no M', 'does', 'do')} not begin with M, but "
            f"{data.starts_with_met_fraction:.0%} of the model's training proteins do; if these are fragments, predict "
            "from whole proteins"
        )

    def _distance_warning(self, data: TrainingData) -> str | None:
        if self.kmers is None or not data.num_tested:
            return None
        num_related = self._num_proteins - self._counts["unrelated"]
        if num_related * data.num_tested > _DISTANT_FRACTION * data.num_tested_related * self._num_proteins:
            return None
        p_value = _fisher_p_value(num_related, self._num_proteins, data.num_tested_related, data.num_tested)
        if p_value > _DISTANT_P_VALUE:
            return None
        return (
            f"only {num_related:,} of {pluralize(self._num_proteins, 'protein')} contain a k-mer ({data.kmer_length} "
            f"residues) recorded from the model's training proteins, compared with {data.num_tested_related:,} of "
            f"{data.num_tested:,} of its test proteins; its metrics may not hold for these proteins"
        )

    def _are_most(self, name: str) -> bool:
        return self._num_proteins >= _MIN_PROTEINS and self._counts[name] > self._num_proteins / 2

    def _subject(self, name: str, singular: str = "is", plural: str = "are") -> str:
        """Return the subject and the verb of a sentence about the proteins that differ in one way."""
        number = self._counts[name]
        example = f" (such as {self._first[name]!r})" if number < self._num_proteins else ""
        verb = singular if number == 1 else plural
        return f"{number:,} of {pluralize(self._num_proteins, 'protein')}{example} {verb}"
