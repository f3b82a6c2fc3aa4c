"""Options of `protembed score`. No torch."""

from dataclasses import field
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import InferenceDeviceConfig, InputConfig, ModelConfig, precision_option, window_option
from protembed.config.embed import EmbedPrecisionName
from protembed.errors import ConfigError

ScoreMethod = Literal["masked-marginals", "wildtype-marginals", "pseudo-perplexity"]

# What each score is, for the help, the table and the summary. Higher is always better.
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


def describe_formula(method: ScoreMethod) -> str:
    """Describe what a score is, in one line."""
    return f"{method}, {FORMULAS[method]}; {PROBABILITY}"


class VariantTableConfig(Config):
    """Input table: its columns, and the wild types."""

    wild_type: Path | None = option(
        None,
        "FASTA file with the wild type of all rows, or with several and a column that names each row's. Without it, "
        "wild types come from a column, or from mutations together with mutated sequences.",
        reads="fasta",
    )
    mutations: str | None = option(
        None,
        "Column with mutations such as A42G or p.Ala42Gly, several joined by a colon, positions from 1; WT, _wt, _sy "
        "and p.= are the wild type. Default: mutant, mutations, variant, hgvs_pro or similar.",
    )
    wild_type_residue: str | None = option(
        None,
        "Column with the residue that each mutation replaces, if a mutation is in three columns such as K, 2 and R; "
        "the last is that of --mutations. Default: wt, wt_aa, wild_type or similar.",
        advanced=True,
    )
    position: str | None = option(
        None, "Column with the position of each mutation, as above. Default: position, pos or similar.", advanced=True
    )
    sequence: str | None = option(
        None, "Column with the wild type's sequence. Default: sequence, wild_type or target_seq."
    )
    mutated_sequence: str | None = option(
        None, "Column with the mutated sequence. Default: mutated_sequence or mutant_sequence."
    )
    id: str | None = option(
        None,
        "Column that names each row's record of --wild-type. Default: id or protein, if there are several records or "
        "the column names the only one.",
    )
    position_offset: int = option(
        0, "Number added to every position of the mutations, if they do not count from the wild type's first residue."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wild_type is not None and self.sequence is not None:
            raise ConfigError("sequence", self.sequence, "`wild_type` already gives the wild type")
        if self.wild_type is None and self.id is not None:
            raise ConfigError("id", self.id, "it names a record of `wild_type`, which is not given")


class ScoreConfig(Config):
    """Scores: how variants are scored, and where the table is written."""

    output: Path | None = option(
        None,
        "Output table, CSV if its name ends in .csv, else TSV; - is stdout. Default: the name of the input with "
        ".scores.tsv.",
        short="-o",
    )
    method: ScoreMethod = option(
        "masked-marginals",
        "; ".join(f"{name}: {formula}" for name, formula in FORMULAS.items())
        + f". Here {PROBABILITY}; the wild type scores 0, and higher is better. pseudo-perplexity runs the model once "
        "for each residue of each variant; the other methods run it only on the wild type.",
    )
    window_residues: int | None = window_option()
    precision: EmbedPrecisionName = precision_option()
    force: bool = option(False, "Replace an existing table.")


class ScoreOptions(Options):
    """All options of `protembed score`."""

    command = "score"
    model: ModelConfig = field(default_factory=ModelConfig)
    table: VariantTableConfig = field(default_factory=VariantTableConfig)
    scoring: ScoreConfig = field(default_factory=ScoreConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)
