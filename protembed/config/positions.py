"""Options of `protembed score --positions`. No torch."""

from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option

PositionsFormat = Literal["npz", "h5", "tsv", "csv"]


class PositionsConfig(Config):
    """Positions: the probability of each amino acid at each position of the proteins of a FASTA file."""

    positions: Path | None = option(
        None,
        "Write, in place of a table of scores, the log probabilities of the 20 amino acids at each residue of each "
        "protein: .npz or .h5; or .tsv or .csv with a line for each residue: its log probability and rank, the "
        "entropy, and the best other amino acid.",
    )
