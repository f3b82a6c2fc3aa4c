"""Options of `protembed check`. No torch."""

from dataclasses import dataclass

from protembed.config.base import Config, option


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Config):
    """The verification."""

    num_rows: int = option(20, "How many proteins are computed again, drawn at random by --seed.", min=0)
    seed: int = option(0, "Which proteins are drawn.", min=0)
