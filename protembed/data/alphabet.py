"""The 33 tokens of ESM-2 and their ids.

Source: Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein structure with a language model";
the order is that of the published `vocab.txt`.
"""

import numpy as np
from numpy.typing import NDArray

from protembed.errors import ConfigError

AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
TOKENS = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *AMINO_ACIDS,
    *("X", "B", "U", "Z", "O", ".", "-", "<null_1>", "<mask>"),
)

CLS = TOKENS.index("<cls>")
PAD = TOKENS.index("<pad>")
EOS = TOKENS.index("<eos>")
MASK = TOKENS.index("<mask>")

# <cls> before a protein and <eos> after it.
NUM_SPECIAL_TOKENS = 2
NUM_AMINO_ACIDS = len(AMINO_ACIDS)
FIRST_AMINO_ACID = TOKENS.index(AMINO_ACIDS[0])
AMINO_ACID_IDS = slice(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS)

NONSTANDARD_RESIDUES = "XBZUO"
RESIDUES = AMINO_ACIDS + NONSTANDARD_RESIDUES
# How a sequence in memory writes a masked position; the readers of files reject it, unless they are asked for it.
MASK_LETTER = "?"

_NOT_A_RESIDUE = 255
_ID_OF_LETTER = np.full(256, _NOT_A_RESIDUE, dtype=np.uint8)
for _letter in RESIDUES:
    _ID_OF_LETTER[ord(_letter)] = TOKENS.index(_letter)
_ID_OF_LETTER[ord(MASK_LETTER)] = MASK
_LETTER_OF_ID = np.array([ord(token) if len(token) == 1 else 0 for token in TOKENS], dtype=np.uint8)


def encode(sequence: str) -> NDArray[np.uint8]:
    """Turn a sequence into token ids, without `<cls>` and `<eos>`.

    Args:
        sequence: Residues, upper case: the 20 standard amino acids and X, B, Z, U, O; `?` is a masked position.

    Returns:
        Token ids, (residues,), uint8.

    Raises:
        ConfigError: A letter is not a residue of the alphabet; the readers of files exclude it.

    >>> encode("MKX?").tolist()
    [20, 15, 24, 32]
    """
    ids = _ID_OF_LETTER[np.frombuffer(sequence.encode(errors="surrogatepass"), dtype=np.uint8)]
    if (ids == _NOT_A_RESIDUE).any():
        letter = next(letter for letter in sequence if letter not in RESIDUES + MASK_LETTER)
        raise ConfigError("sequence", sequence[:40], f"{letter!r} is not one of the upper-case letters {RESIDUES}")
    return ids


def decode(ids: NDArray[np.integer]) -> str:
    """Turn the ids of residues, (residues,), back into letters.

    Raises:
        ValueError: An id is that of a special token.

    >>> decode(np.array([20, 15, 24]))
    'MKX'
    """
    letters = _LETTER_OF_ID[ids]
    if not letters.all():
        raise ValueError(f"{TOKENS[int(np.asarray(ids)[np.argmin(letters)])]} is not a residue")
    return str(letters.tobytes(), "ascii")


def residue_letter(code: str) -> str | None:
    """Return the letter of a residue in one-letter or three-letter code, in any case; None for any other text.

    >>> residue_letter("k"), residue_letter("LYS"), residue_letter("MK")
    ('K', 'K', None)
    """
    from Bio.Data.IUPACData import protein_letters_3to1

    letter = protein_letters_3to1.get(code.capitalize(), code.upper())
    return letter if len(letter) == 1 and letter in RESIDUES else None


def is_amino_acid(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find the tokens, in any shape, that are among the 20 standard amino acids, the only ones that are masked."""
    return (ids >= AMINO_ACID_IDS.start) & (ids < AMINO_ACID_IDS.stop)
