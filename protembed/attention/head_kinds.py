"""What each attention head is known for: contacts, sites, an offset along the chain, an amino acid, a sink."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from Bio.Data.IUPACData import protein_letters_1to3

from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.head_statistics import ALL_STATISTICS, OFFSETS, HeadStatistics
from protembed.attention.significance import SIGNIFICANT
from protembed.attention.sites import SiteResult
from protembed.attention.summary import KINDS, Kind
from protembed.data.alphabet import AMINO_ACIDS
from protembed.text import format_share, printable

# A head is named after what gets more than half of its attention, which is more than all else together.
_MAJORITY = 0.5
# With many proteins a head may follow contacts or sites significantly and yet hardly: it must also be right twice as
# often as random pairs, and prefer labelled residues two times in three.
_MIN_GAIN, _MIN_EFFECT = 2.0, 2 / 3
# A head on a fixed offset cannot prefer an amino acid, and yet gives some of them more than their share: in the bundled
# model and 300 proteins 18 such heads give one up to 2.6 times its share. Below a tenth of the attention a preference
# is a minor trait; a preference for fewer than five residues may be one for their positions; and an amino acid with
# less than a quarter of the share of another one is not worth mentioning beside it.
_MIN_ENRICHMENT, _MIN_AMINO_ACID_SHARE, _MIN_RESIDUES, _MIN_PART = 3.0, 0.1, 5, 0.25
# Adjacent offsets that share the attention count as one: a head with 0.46 on +4 and 0.23 on +3 looks at a helix turn.
_MAX_SPAN = 3
# Two turns of a helix.
_NEARBY = 8
_REMARKS: Mapping[int, str] = {
    2: "the same side of a strand",
    3: "a turn of a helix",
    4: "a turn of a helix",
    7: "two turns of a helix",
}
_GROUPS: Mapping[str, str] = {"DE": "acidic", "KR": "basic", "HKR": "basic", "FWY": "aromatic", "ILV": "aliphatic"}


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """What a head is known for.

    Attributes:
        layer: Number of the layer, from 1.
        head: Number of the head in its layer, from 1.
        kind: `contacts`, `sites`, `offset` (a fixed distance along the chain), `previous` or `next` residue, `itself`,
            `amino acid`, `nearby` residues, the sinks `cls` and `eos`, `even` (spread evenly) or `none` (no clear
            pattern).
        word: What it attends to, in one to five words, such as `contacts`, `residue +4 (a turn of a helix)` or
            `Cys (C)`. It may hold a label of the user's table, which is untrusted.
        sentence: The same with its numbers, as a sentence; untrusted like `word`.
        strength: From 0 to 1. Long-range precision at L of contacts; probability that a labelled residue gets more
            attention than another of its amino acid; fraction of tokens for `even`; 0 for `none`; for all others the
            share of the head's attention.
        expected: Strength of a head without any preference: random pairs for contacts, 0.5 for sites, for shares that
            of evenly spread attention.
    """

    layer: int
    head: int
    kind: Kind
    word: str
    sentence: str
    strength: float
    expected: float


def rank_heads(
    statistics: HeadStatistics, contacts: ContactEvaluation | None = None, sites: Mapping[str, SiteResult] | None = None
) -> list[HeadKind]:
    """Name what each head is known for, and rank all heads of the model.

    The order is that of `KINDS`: contacts and sites first, then offsets, amino acids and sinks. Within a kind the
    strongest head comes first.

    Args:
        statistics: Means of all heads over all residues of all proteins.
        contacts: Comparison with the contacts of structures; None without structures.
        sites: Tests on annotated residues by label; None without sites.
    """
    heads = [
        _Head(statistics=statistics, contacts=contacts, sites=sites or {}, layer=layer, number=number)
        for layer, number in np.ndindex(statistics.means.shape[1:])
    ]
    return sorted(map(_describe, heads), key=lambda kind: (KINDS.index(kind.kind), -kind.strength))


@dataclass(frozen=True, kw_only=True)
class _Head:
    """One head, with all that is known of it.

    Attributes:
        layer: Layer, from 0.
        number: Head in its layer, from 0.
    """

    statistics: HeadStatistics
    contacts: ContactEvaluation | None
    sites: Mapping[str, SiteResult]
    layer: int
    number: int

    @property
    def index(self) -> int:
        """Index among the heads of all layers."""
        return self.layer * int(self.statistics.means.shape[2]) + self.number

    def mean(self, name: str) -> float:
        """Return the mean of a statistic."""
        return float(self.statistics.means[ALL_STATISTICS.index(name), self.layer, self.number])


@dataclass(frozen=True)
class _Pattern:
    kind: Kind
    word: str
    sentence: str
    strength: float
    expected: float


def _describe(head: _Head) -> HeadKind:
    """Name a head after the first pattern that it shows."""
    rules = (_contacts, _sites, _offset, _sink, _amino_acid, _nearby, _even)
    patterns = (rule(head) for rule in rules)
    nothing = _Pattern("none", "no clear pattern", "No offset, amino acid or token stands out.", 0.0, 0.0)
    found = next((pattern for pattern in patterns if pattern is not None), nothing)
    return HeadKind(
        layer=head.layer + 1,
        head=head.number + 1,
        kind=found.kind,
        word=found.word,
        sentence=found.sentence,
        strength=min(1.0, found.strength),  # a sum of many weights may exceed 1 by rounding
        expected=found.expected,
    )


def _contacts(head: _Head) -> _Pattern | None:
    if head.contacts is None or head.contacts.significance.q_values[head.index] > SIGNIFICANT:
        return None
    precision, random = float(head.contacts.head_precisions[head.index]), head.contacts.random_precision
    if precision < _MIN_GAIN * random:
        return None
    sentence = (
        f"It follows the contacts of structures: of its strongest long-range pairs, as many as there are residues, "
        f"{format_share(precision)} are in contact (random pairs: {format_share(random)})."
    )
    return _Pattern("contacts", "contacts", sentence, precision, random)


def _sites(head: _Head) -> _Pattern | None:
    """Describe the label that it attends to most among those with a significant test."""
    effects = {
        label: float(result.significance.effects[head.index])
        for label, result in head.sites.items()
        if result.significance.q_values[head.index] <= SIGNIFICANT
    }
    label = max(effects, key=effects.__getitem__, default=None)
    if label is None or effects[label] < _MIN_EFFECT:
        return None
    sentence = (
        f"It attends to {printable(label)!r}: such a residue gets more attention than another of the same amino acid "
        f"in {format_share(effects[label])} of comparisons (50 % without any preference)."
    )
    return _Pattern("sites", printable(label), sentence, effects[label], 0.5)


def _offset(head: _Head) -> _Pattern | None:
    """Describe the fewest adjacent offsets, up to three, that get more than half of the attention."""
    shares = head.statistics.on_offset[:, head.layer, head.number]
    for span in range(1, _MAX_SPAN + 1):
        sums = np.convolve(shares, np.ones(span), "valid")
        first = int(sums.argmax())
        if sums[first] > _MAJORITY:
            return _offset_pattern(head, slice(first, first + span))
    return None


def _offset_pattern(head: _Head, where: slice) -> _Pattern:
    shares = head.statistics.on_offset[where, head.layer, head.number]
    expected = float(head.statistics.even_on_offset[where].sum())
    offsets, strongest = OFFSETS[where], OFFSETS[where][int(shares.argmax())]
    kind: Kind = "offset"
    ends = [f"{offset:+d}" if offset else "0" for offset in dict.fromkeys((offsets[0], offsets[-1]))]
    word = f"{'residue' if len(offsets) == 1 else 'residues'} {' to '.join(ends)}"
    remark = _REMARKS.get(abs(strongest))
    # Neighbours along a strand are on opposite sides, so that only one offset at a time speaks for a strand.
    if remark and (len(offsets) == 1 or abs(strongest) > 2):
        word += f" ({remark})"
    if len(offsets) == 1 and abs(strongest) <= 1:
        names: Sequence[Kind] = ("previous", "itself", "next")
        kind = names[strongest + 1]
        word = "itself" if kind == "itself" else f"{kind} residue"
    sentence = _share_sentence(float(shares.sum()), _describe_offsets(offsets), expected)
    return _Pattern(kind, word, sentence, float(shares.sum()), expected)


def _describe_offsets(offsets: Sequence[int]) -> str:
    """Describe adjacent offsets.

    >>> _describe_offsets([-4]), _describe_offsets([1]), _describe_offsets([3, 4, 5])
    ('the residue 4 positions before it', 'the residue after it', 'the residues 3 to 5 positions after it')
    """
    if list(offsets) == [0]:
        return "itself"
    low, high = sorted((abs(offsets[0]), abs(offsets[-1])))
    side = "before it" if offsets[0] < 0 else "after it"
    if offsets[0] * offsets[-1] <= 0:
        return "itself and the residues around it"
    if len(offsets) > 1:
        return f"the residues {low} to {high} positions {side}"
    return f"the residue {side}" if low == 1 else f"the residue {low} positions {side}"


def _sink(head: _Head) -> _Pattern | None:
    sinks: Sequence[tuple[Kind, str]] = (("cls", "before the first residue"), ("eos", "after the last residue"))
    for kind, place in sinks:
        share, expected = head.mean(f"on_{kind}"), head.statistics.even_fraction
        if share > _MAJORITY:
            sentence = _share_sentence(share, f"<{kind}>, the token {place}", expected)
            return _Pattern(kind, f"<{kind}>", sentence, share, expected)
    return None


def _amino_acid(head: _Head) -> _Pattern | None:
    """Describe the amino acids that it attends to far more than their number suggests."""
    statistics = head.statistics
    shares = np.array([head.mean(f"on_{letter}") for letter in AMINO_ACIDS])
    is_preferred = (statistics.num_letters >= _MIN_RESIDUES) & (shares >= _MIN_ENRICHMENT * statistics.composition)
    is_preferred &= shares >= _MIN_PART * shares[is_preferred].max(initial=0.0)
    share, expected = float(shares[is_preferred].sum()), float(statistics.composition[is_preferred].sum())
    if share < _MIN_AMINO_ACID_SHARE:
        return None
    letters = sorted(letter for letter, is_one in zip(AMINO_ACIDS, is_preferred, strict=True) if is_one)
    names = [f"{protein_letters_1to3[letter]} ({letter})" for letter in letters]
    verb = "is" if len(names) == 1 else "are"
    sentence = (
        f"It gives {format_share(share)} of its attention to {_join(names)}, which {verb} {format_share(expected)} of "
        "the residues."
    )
    group = _GROUPS.get("".join(letters))
    word = f"{group} ({', '.join(letters)})" if group else names[0] if len(names) == 1 else _join(letters)
    return _Pattern("amino acid", word, sentence, share, expected)


def _nearby(head: _Head) -> _Pattern | None:
    is_near = np.abs(OFFSETS) <= _NEARBY
    share = float(head.statistics.on_offset[is_near, head.layer, head.number].sum())
    expected = float(head.statistics.even_on_offset[is_near].sum())
    if share <= _MAJORITY or share < _MIN_GAIN * expected:
        return None
    sentence = _share_sentence(share, f"residues at most {_NEARBY} positions away", expected)
    return _Pattern("nearby", "nearby residues", sentence, share, expected)


def _even(head: _Head) -> _Pattern | None:
    fraction = float(np.exp(head.mean("entropy") - head.statistics.even_entropy))
    if fraction <= _MAJORITY:
        return None
    sentence = (
        f"It attends as widely as if its attention were spread evenly over {format_share(fraction)} of the protein."
    )
    return _Pattern("even", "everything", sentence, fraction, 1.0)


def _share_sentence(share: float, place: str, expected: float) -> str:
    shares = f"{format_share(share)} of its attention to {place} ({format_share(expected)} if spread evenly)"
    return f"Each residue gives {shares}."


def _join(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
