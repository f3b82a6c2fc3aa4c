import hashlib

from protembed.data.hashing import hash_fraction, sequence_sha256


def test_a_sequence_has_the_sha256_of_its_letters():
    assert sequence_sha256("MKT") == hashlib.sha256(b"MKT").digest()


def test_shares_spread_evenly_between_zero_and_one():
    shares = [hash_fraction("MKT" * number) for number in range(2000)]

    assert 0 <= min(shares) < 0.01 < 0.99 < max(shares) < 1
    assert abs(sum(share < 0.05 for share in shares) - 100) < 40


def test_copies_are_never_parted_and_relatives_are_independent():
    assert hash_fraction("MKTAYIAKQR") == hash_fraction("MKTAYIAKQR")
    assert abs(hash_fraction("MKTAYIAKQR") - hash_fraction("MKTAYIAKQK")) > 0.001


def test_another_seed_spreads_the_same_proteins_anew():
    sequences = ["MKT" * number for number in range(1, 500)]
    shares = [[hash_fraction(sequence, seed) for sequence in sequences] for seed in (0, 1, 2)]

    assert shares[0] == [hash_fraction(sequence) for sequence in sequences]
    held_out = [{row for row, share in enumerate(one) if share < 0.1} for one in shares]
    assert all(30 < len(rows) < 75 for rows in held_out)
    # Of a tenth another tenth is held out again.
    assert all(len(held_out[one] & held_out[other]) < 15 for one, other in ((0, 1), (0, 2), (1, 2)))
