import hashlib

from protembed.data.splits import hash_share, sequence_sha256


def test_a_sequence_has_the_sha256_of_its_letters():
    assert sequence_sha256("MKT") == hashlib.sha256(b"MKT").digest()


def test_shares_spread_evenly_between_zero_and_one():
    shares = [hash_share("MKT" * number) for number in range(2000)]

    assert 0 <= min(shares) < 0.01 < 0.99 < max(shares) < 1
    assert abs(sum(share < 0.05 for share in shares) - 100) < 40


def test_copies_are_never_parted_and_relatives_are_independent():
    assert hash_share("MKTAYIAKQR") == hash_share("MKTAYIAKQR")
    assert abs(hash_share("MKTAYIAKQR") - hash_share("MKTAYIAKQK")) > 0.001
