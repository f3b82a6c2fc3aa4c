import re

import numpy as np
import pytest

from protembed.data import alphabet
from protembed.data.alphabet import decode, encode, is_amino_acid
from protembed.errors import ConfigError


def test_tokens_have_the_order_of_the_published_vocabulary():
    assert " ".join(alphabet.TOKENS) == (
        "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"
    )


def test_special_tokens_have_the_ids_of_esm2():
    ids = (alphabet.CLS, alphabet.PAD, alphabet.EOS, alphabet.MASK)

    assert ids == (0, 1, 2, 32)


def test_decoding_reverses_encoding():
    assert decode(encode(alphabet.RESIDUES)) == alphabet.RESIDUES


def test_an_empty_sequence_is_encoded_to_no_tokens():
    assert encode("").shape == (0,)


@pytest.mark.parametrize("letter", ["J", "*", "-", ".", "m", " ", "ſ", "Ж", "\udc80", "😀"])
def test_encoding_a_letter_that_is_no_residue_is_an_error(letter):
    with pytest.raises(ConfigError, match=f"sequence is 'MK.*', but {re.escape(repr(letter))} is not one of the upper"):
        encode(f"MK{letter}")


@pytest.mark.parametrize("token", ["<cls>", "<pad>", "<eos>", "<unk>", "<null_1>", "<mask>"])
def test_decoding_a_special_token_is_an_error_that_names_it(token):
    with pytest.raises(ValueError, match=token):
        decode(np.array([20, alphabet.TOKENS.index(token)]))


def test_exactly_the_twenty_standard_residues_are_amino_acids():
    chosen = is_amino_acid(np.arange(len(alphabet.TOKENS)))

    assert "".join(np.array(alphabet.TOKENS)[chosen]) == alphabet.AMINO_ACIDS
    assert set(alphabet.AMINO_ACIDS) == set("ACDEFGHIKLMNPQRSTVWY")
