"""What is decided by a sequence's own hash, so that it is the same in every file, run and tool."""

import hashlib


def sequence_sha256(sequence: str) -> bytes:
    """Hash a sequence of letters.

    >>> sequence_sha256("MKT").hex()[:8]
    '366893d2'
    """
    return hashlib.sha256(sequence.encode()).digest()


def hash_share(sequence: str, seed: int = 0) -> float:
    """Map a sequence to a number from 0 to 1, spread evenly over proteins; copies of one are never parted by it.

    Args:
        sequence: of letters.
        seed: another one spreads the same proteins anew.
    """
    salted = sequence_sha256(f"{sequence}/{seed}" if seed else sequence)
    return int.from_bytes(salted[:8], "big") / 2**64
