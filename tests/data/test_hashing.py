import hashlib

from protembed.data.hashing import hash_fraction, sequence_sha256


def test_sequence_sha256_hashes_the_letters():
    assert sequence_sha256("MKT") == hashlib.sha256(b"MKT").digest()


def test_hash_fractions_are_uniform_between_zero_and_one():
    fractions = [hash_fraction("MKT" * number) for number in range(2000)]

    assert 0 <= min(fractions) < 0.01 < 0.99 < max(fractions) < 1
    assert abs(sum(fraction < 0.05 for fraction in fractions) - 100) < 40


def test_copies_have_the_same_hash_fraction_and_similar_sequences_different_ones():
    assert hash_fraction("MKTAYIAKQR") == hash_fraction("MKTAYIAKQR")
    assert abs(hash_fraction("MKTAYIAKQR") - hash_fraction("MKTAYIAKQK")) > 0.001


def test_hash_fractions_of_different_seeds_are_independent():
    sequences = ["MKT" * number for number in range(1, 500)]
    fractions = [[hash_fraction(sequence, seed) for sequence in sequences] for seed in (0, 1, 2)]

    assert fractions[0] == [hash_fraction(sequence) for sequence in sequences]
    held_out = [{row for row, fraction in enumerate(of_seed) if fraction < 0.1} for of_seed in fractions]
    assert all(30 < len(rows) < 75 for rows in held_out)
    # Two independent tenths share a hundredth.
    assert all(len(held_out[first] & held_out[second]) < 15 for first, second in ((0, 1), (0, 2), (1, 2)))
