"""The encoder and the masked-LM head of each architecture, chosen by the type of the shape."""

from collections.abc import Callable
from typing import Any, NamedTuple

from protembed.config.model_sizes import EncoderShape, ESM2Shape, ESMCShape
from protembed.model.encoder import Encoder
from protembed.model.esm2 import ESM2Encoder
from protembed.model.esmc import ESMCEncoder, ESMCMaskedLMHead
from protembed.model.heads import MaskedLMHead


class _Architecture(NamedTuple):
    encoder: Callable[[Any], Encoder]
    lm_head: Callable[[int], MaskedLMHead]


_ARCHITECTURES: dict[type[EncoderShape], _Architecture] = {
    ESM2Shape: _Architecture(ESM2Encoder, MaskedLMHead),
    ESMCShape: _Architecture(ESMCEncoder, ESMCMaskedLMHead),
}


def new_encoder(shape: EncoderShape) -> Encoder:
    """Make an encoder, whose weights are not initialised.

    >>> from protembed.config.model_sizes import SIZES
    >>> type(new_encoder(SIZES["t4_1M"])).__name__
    'ESM2Encoder'
    """
    return _ARCHITECTURES[type(shape)].encoder(shape)


def new_lm_head(shape: EncoderShape) -> MaskedLMHead:
    """Make a masked-LM head with the constant bias of tokens that are no amino acid; its matrices are random."""
    return _ARCHITECTURES[type(shape)].lm_head(shape.dim)
