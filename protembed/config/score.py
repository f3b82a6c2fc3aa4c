"""Options of `protembed score`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.embed import EmbedPrecisionName
from protembed.errors import ConfigError

ScoreMethod = Literal["masked-marginals", "wildtype-marginals", "pseudo-perplexity"]

# What each score is, wherever that is told: in the help, in the table, in the summary. Higher is always better.
# Source: Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations on protein
# function", section 3; the first two as ESM's published predict.py computes them.
FORMULAS: dict[ScoreMethod, str] = {
    "masked-marginals": (
        "sum over the mutated positions i of log p(mutant i) - log p(wild type i), p from the wild type with position "
        "i alone masked"
    ),
    "wildtype-marginals": (
        "sum over the mutated positions i of log p(mutant i) - log p(wild type i), p from the wild type with nothing "
        "masked"
    ),
    "pseudo-perplexity": (
        "PLL(mutated sequence) - PLL(wild type), where PLL(x) is the sum over all positions i of log p(x i), p from x "
        "with position i alone masked"
    ),
}
PROBABILITY = (
    "p is the softmax over the 20 amino acids alone (that of ESM-2, over 33 tokens, is renormalised), log the natural "
    "logarithm"
)


@dataclass(frozen=True, kw_only=True)
class VariantTableConfig(Config):
    """The table."""

    wild_type: Path | None = option(
        None,
        "The wild type in FASTA, for all rows; or several, where an id column says which. Without it the table has "
        "them in a column, or they follow from mutations and mutated sequences.",
    )
    mutations: str | None = option(
        None,
        "The column of mutations such as A42G or p.Ala42Gly, several joined by a colon, positions counted from 1; "
        "mutant, mutations, variant or hgvs_pro by default. WT, _wt, _sy or p.= is the wild type.",
    )
    sequence: str | None = option(
        None, "The column of the wild type's sequence; sequence, wild_type or target_seq by default."
    )
    mutated_sequence: str | None = option(
        None, "The column of the whole mutated sequence; mutated_sequence or mutant_sequence by default."
    )
    id: str | None = option(
        None,
        "The column that names each row's record of --wild-type; by default id or protein where there are several, or "
        "where it names the only one.",
    )
    position_offset: int = option(
        0,
        "Added to every position of the mutations column, where it does not count from the wild type's first residue.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wild_type is not None and self.sequence is not None:
            raise ConfigError("--sequence", self.sequence, "--wild-type already gives the wild type")
        if self.wild_type is None and self.id is not None:
            raise ConfigError("--id", self.id, "it names a record of --wild-type, which is not given")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Config):
    """The scores."""

    output: Path | None = option(
        None, "The table; - is stdout. <name of the input>.scores.tsv by default.", flags=("-o", "--output")
    )
    method: ScoreMethod = option(
        "masked-marginals",
        "; ".join(f"{name}: {formula}" for name, formula in FORMULAS.items())
        + f". Here {PROBABILITY}; the wild type has 0, and higher is better. pseudo-perplexity computes every variant "
        "as often as it has residues, the others share all work between the variants of a wild type.",
    )
    window_residues: int | None = option(
        None, "The longest stretch that is computed at once, in residues; by default what the model records.", min=16
    )
    precision: EmbedPrecisionName = option(
        "auto", "Of the matrix products; auto is bfloat16 on GPUs that have it, else float32."
    )
    force: bool = option(False, "Replace an existing table.")
