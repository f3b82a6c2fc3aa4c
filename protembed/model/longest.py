"""The most residues that a model can compute at once. No torch."""

from protembed.config.model_sizes import EncoderShape
from protembed.errors import ConfigError


def check_max_residues(shape: EncoderShape, option: str, num_residues: int) -> int:
    """Return the length of windows or crops that an option asks for, if the model has positions for it.

    Raises:
        ConfigError: The model has learned positions, and fewer.
    """
    if shape.max_residues is not None and num_residues > shape.max_residues:
        raise ConfigError(option, num_residues, f"the model has learned positions for {shape.max_residues:,} residues")
    return num_residues
