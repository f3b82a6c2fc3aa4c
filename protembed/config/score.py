"""Options of `protembed score`, and which of its modes they belong to. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import InferenceDeviceConfig, InputConfig, ModelsConfig, precision_option, window_option
from protembed.config.embed import EmbedPrecisionName
from protembed.config.fill import FillConfig
from protembed.config.positions import PositionsConfig
from protembed.config.scan import ScanConfig
from protembed.errors import ConfigError

ScoreMethod = Literal["masked-marginals", "wildtype-marginals", "pseudo-perplexity"]
# What is scored: the variants of a table, the sequences of a FASTA file, each position of these, residues at their
# masked positions, or all their single mutants.
ScoreMode = Literal["variants", "sequences", "positions", "fill", "scan"]

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

PER_RESIDUE_FORMULA = "PLL(mutated sequence) / its residues - PLL(wild type) / its residues"


def describe_formula(method: ScoreMethod, *, num_models: int = 1, has_indels: bool = False) -> str:
    """Describe what a score is, in one line; with what insertions and deletions have if there are any."""
    mean = f"mean over {num_models} models of " if num_models > 1 else ""
    indels = ""
    if has_indels:
        pll = FORMULAS["pseudo-perplexity"]
        indels = f"; of variants with insertions or deletions {pll}; score_per_residue, {PER_RESIDUE_FORMULA}"
    return f"{mean}{method}, {FORMULAS[method]}{indels}; {PROBABILITY}"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """A log-likelihood of sequences, and the columns of it and its perplexity."""

    column: str
    perplexity_column: str
    formula: str
    position_formula: str


def _likelihood(name: str, given: str) -> Likelihood:
    return Likelihood(
        column=f"{name}_log_likelihood",
        perplexity_column=f"{name}_perplexity",
        formula=f"sum over the standard residues i of log p(residue i), p from the sequence with {given} masked",
        position_formula=f"log p(amino acid at position i), p from the sequence with {given} masked",
    )


# Source: Wang and Cho 2019, "BERT has a mouth, and it must speak"; Salazar et al. 2020, "Masked language model
# scoring".
LIKELIHOODS: Mapping[ScoreMethod, Likelihood] = {
    "masked-marginals": _likelihood("pseudo", "position i alone"),
    "wildtype-marginals": _likelihood("unmasked", "nothing"),
}


def describe_likelihood(method: ScoreMethod) -> str:
    """Describe what the likelihood of a sequence is, in one line."""
    likelihood = LIKELIHOODS[method]
    perplexity = f"per_residue is its mean over them, {likelihood.perplexity_column} is exp(-per_residue)"
    return f"{likelihood.formula}; {perplexity}; {PROBABILITY}"


def describe_positions(method: ScoreMethod) -> str:
    """Describe what the log probability at a position is, in one line."""
    return f"{LIKELIHOODS[method].position_formula}; {PROBABILITY}"


class VariantTableConfig(Config):
    """Input table: its columns, and the wild types; beside a scan the columns of its measurements."""

    wild_type: Path | None = option(
        None,
        "FASTA file with the wild type of all rows, or with several and a column that names each row's. Without it, "
        "wild types come from a column, or from mutations together with mutated sequences.",
        reads="fasta",
    )
    mutations: str | None = option(
        None,
        "Column with mutations such as A42G, p.Ala42Gly, K23_V25del or K23_L24insRS, several joined by a colon, "
        "positions from 1; WT, _wt, _sy and p.= are the wild type. Default: mutant, mutations, variant, hgvs_pro or "
        "similar.",
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
        "Column that names each row's record of --wild-type, or of the proteins of a scan. Default: id or protein, if "
        "there are several records or the column names the only one.",
    )
    measured_column: str | None = option(
        None,
        "Column with measured values, higher for better variants: their rank correlation with the scores, and with "
        "those of BLOSUM62, is printed. Default: DMS_score, if there is one; of --measurements also score, fitness, "
        "effect or similar.",
    )
    position_offset: int = option(
        0, "Number added to every position of the mutations, if they do not count from the wild type's first residue."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wild_type is not None and self.sequence is not None:
            raise ConfigError("sequence", self.sequence, "`wild_type` already gives the wild type")


class ScoreConfig(Config):
    """Scores: how variants and sequences are scored, and where the table is written."""

    output: Path | None = option(
        None,
        "Output table, CSV if its name ends in .csv, else TSV; - is stdout. Default: the name of the input with "
        ".scores.tsv. Of a scan: the directory; default: with .scan.",
        short="-o",
    )
    method: ScoreMethod = option(
        "masked-marginals",
        "; ".join(f"{name}: {formula}" for name, formula in FORMULAS.items())
        + f". Here {PROBABILITY}; the wild type scores 0, and higher is better. pseudo-perplexity runs the model once "
        "for each residue of each variant; the other methods run it only on the wild type. Insertions and deletions "
        "are scored as by pseudo-perplexity, whatever the method. Of a sequence in FASTA, "
        + "; ".join(f"{name}: {likelihood.formula}" for name, likelihood in LIKELIHOODS.items())
        + ".",
    )
    window_residues: int | None = window_option()
    precision: EmbedPrecisionName = precision_option()
    force: bool = option(False, "Replace an existing table.")


# The options that request a mode other than the usual one of the input; all of them need FASTA.
_REQUESTS: Sequence[ScoreMode] = ("positions", "fill", "scan")
# The configs, as `ScoreOptions` names them, whose options belong to some modes only.
_MODES_OF: Mapping[str, Sequence[ScoreMode]] = {
    "table": ("variants", "scan"),
    "per_position": ("positions",),
    "filling": ("fill",),
}
_METHODS_OF: Mapping[ScoreMode, Sequence[ScoreMethod]] = {
    "variants": tuple(FORMULAS),
    "sequences": tuple(LIKELIHOODS),
    "positions": tuple(LIKELIHOODS),
    "fill": ("masked-marginals",),
    "scan": ("masked-marginals", "wildtype-marginals"),
}
_WORDS: Mapping[ScoreMode, str] = {
    "variants": "a table of variants",
    "sequences": "sequences in FASTA",
    "positions": "each position of sequences in FASTA",
    "fill": "masked positions in FASTA",
    "scan": "single mutants of a scan",
}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _changed(config: Config) -> dict[str, Any]:
    """Return the options of a config that are not the default, with paths as texts."""
    default = type(config)()
    return {name: _plain(value) for name, value in vars(config).items() if value != getattr(default, name)}


class ScoreOptions(Options):
    """All options of `protembed score`."""

    command = "score"
    model: ModelsConfig = field(default_factory=ModelsConfig)
    table: VariantTableConfig = field(default_factory=VariantTableConfig)
    scoring: ScoreConfig = field(default_factory=ScoreConfig)
    per_position: PositionsConfig = field(default_factory=PositionsConfig)
    filling: FillConfig = field(default_factory=FillConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)

    def __post_init__(self) -> None:
        table = _changed(self.table)
        if not self.scan.scan:
            if "id" in table and self.table.wild_type is None:
                raise ConfigError("id", self.table.id, "it names a record of `wild_type`, which is not given")
            return
        for name, value in table.items():
            if name == "wild_type":
                raise ConfigError(name, value, "the proteins of the FASTA file are the wild types of a scan")
            if self.scan.measurements is None:
                raise ConfigError(name, value, "it describes the table of `measurements`, which is not given")

    def choose_mode(self, name: str, *, is_fasta: bool) -> ScoreMode:
        """Choose what is scored by the content of the input and the options, and check that these fit.

        Args:
            name: Name of the input, for messages.
            is_fasta: Whether the input is FASTA; otherwise it is a table.

        Raises:
            ConfigError: An option belongs to another mode, or two options request different ones.
        """
        values = {name: _plain(value) for config in vars(self).values() for name, value in vars(config).items()}
        requested = [mode for mode in _REQUESTS if values[mode]]
        if len(requested) > 1:
            raise ConfigError(requested[1], values[requested[1]], f"`{requested[0]}` is given too: choose one of them")
        if requested and not is_fasta:
            raise ConfigError(requested[0], values[requested[0]], f"{name} is not FASTA, from which proteins are read")
        mode: ScoreMode = requested[0] if requested else "sequences" if is_fasta else "variants"
        self._check_belongs(mode, name)
        return mode

    def _check_belongs(self, mode: ScoreMode, name: str) -> None:
        """Check that every option that is not the default belongs to a mode."""
        for part, modes in _MODES_OF.items():
            for given, value in _changed(getattr(self, part)).items() if mode not in modes else ():
                expected = f"it is an option for {_WORDS[modes[0]]}, and {name} is {_WORDS[mode]}"
                raise ConfigError(given, value, expected)
        if self.scoring.method not in _METHODS_OF[mode]:
            expected = f"{_WORDS[mode]} are scored by {' or '.join(_METHODS_OF[mode])}"
            raise ConfigError("method", self.scoring.method, expected)
