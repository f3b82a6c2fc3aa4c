"""Options of `protembed score --fill`. No torch."""

from typing import Any

from protembed.config.base import Config, option

DEFAULT_TOP, DEFAULT_TEMPERATURE, DEFAULT_SEED = 5, 1.0, 0

# What the table holds, for its first line.
FILL_FORMULA = (
    "p(residue at the position | the sequence with all its masked positions masked), from one pass of the model: a "
    "softmax over the 20 amino acids alone"
)


class FillConfig(Config):
    """Masked positions: fill in what is ? or <mask> in FASTA."""

    fill: bool = option(
        False,
        "Fill in the masked positions of a FASTA file, ? or <mask>: write a table with the most probable residues at "
        "each, from one pass of the model.",
    )
    top: int | None = option(
        None, f"Residues in the table for each masked position. Default: {DEFAULT_TOP}.", min=1, max=20
    )
    samples: int | None = option(
        None,
        "Draw so many whole sequences for each record in place of the table, and write FASTA. One position is filled "
        "in at a time, the most certain first: that whose most probable residue has the highest probability.",
        min=1,
    )
    temperature: float | None = option(
        None,
        "Temperature of the draws: probabilities are raised to the power of its inverse; 0 takes the most probable "
        f"residue. Default: {DEFAULT_TEMPERATURE:g}.",
        min=0.0,
        max=100.0,
    )
    seed: int | None = option(
        None,
        f"Seed of the draws; the sequence, the seed and a sample's number determine the sample. Default: "
        f"{DEFAULT_SEED}.",
        min=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fill:
            self._check_absent("top", "samples", expected="it needs `fill`")
        if self.samples is None:
            self._check_absent("temperature", "seed", expected="it needs `samples`: the table is not drawn")
        else:
            self._check_absent("top", expected="`samples` writes whole sequences in place of the table")

    @property
    def num_ranks(self) -> int:
        """Residues in the table for each masked position."""
        return DEFAULT_TOP if self.top is None else self.top

    @property
    def chosen_temperature(self) -> float:
        """Temperature of the draws."""
        return DEFAULT_TEMPERATURE if self.temperature is None else self.temperature

    @property
    def chosen_seed(self) -> int:
        """Seed of the draws."""
        return DEFAULT_SEED if self.seed is None else self.seed

    def settings(self) -> dict[str, Any]:
        """Return what makes two results the same, with the defaults that apply."""
        if self.samples is None:
            return {"fill": True, "top": self.num_ranks}
        return {
            "fill": True,
            "samples": self.samples,
            "temperature": self.chosen_temperature,
            "seed": self.chosen_seed,
        }
