from collections import Counter

import numpy as np
import pytest

from protembed.embedding.checks import list_checks
from protembed.embedding.diagnosis import Diagnosis
from protembed.embedding.input_residues import InputResidues
from protembed.embedding.unusual import find_unusual

VECTORS = np.random.default_rng(0).normal(size=(40, 8)) + 2
SEQUENCES = [f"MKT{'A' * number}" for number in range(40)]


def found(result, residues=None):
    """List what was found in a result by its subject: the clause, and whether there is nothing to look at."""
    return {check.subject: (check.found, check.is_passed) for check in list_checks(Diagnosis.make(result, residues))}


def changed(row, values):
    vectors = VECTORS.copy()
    vectors[row] = values
    return vectors


def test_sound_result_passes_all_checks(store):
    assert found(store(VECTORS)) == {
        "Numbers": ("all numbers are finite", True),
        "Dimensions": ("none of 8 dimensions is constant", True),
        "Norms": ("no norm is far from those of the others", True),
        "Identical vectors": ("different sequences have different vectors", True),
        "Windows": ("every protein fits into the window of 50 residues", True),
        "Sequences": ("no sequence occurs twice", True),
        "Identifiers": ("no identifier occurs twice", True),
        "Residues": ("no residue is unknown (X)", True),
        "Records": ("no record was left out or cut off", True),
    }


@pytest.mark.parametrize(
    ("vectors", "subject", "clause"),
    [
        (changed(3, np.nan), "Numbers", "1 vector contains NaN or infinity (p4)"),
        (np.where(np.arange(8) == 2, 0.5, VECTORS), "Dimensions", "1 of 8 dimensions is constant"),
        (changed(3, 90), "Norms", "1 protein has a norm far from those of the others (p4)"),
        (
            changed(3, VECTORS[9]),
            "Identical vectors",
            "2 proteins share their vector with a protein of another sequence",
        ),
    ],
)
def test_planted_fault_of_the_vectors_is_found_and_no_other(store, vectors, subject, clause):
    checks = found(store(vectors))

    assert checks[subject] == (clause, False)
    assert [name for name, (_, is_passed) in checks.items() if not is_passed] == [subject]


def test_copies_of_a_sequence_may_share_their_vector(store):
    checks = found(store(changed(3, VECTORS[9]), [*SEQUENCES[:3], SEQUENCES[9], *SEQUENCES[4:]]))

    assert checks["Identical vectors"][1]
    assert checks["Sequences"] == ("1 protein repeats the sequence of an earlier one", False)


def test_repeated_identifiers_are_found(store):
    ids = ["p1", "p1", "p1", *(f"p{number}" for number in range(4, 41))]

    assert found(store(VECTORS, ids=ids))["Identifiers"] == (
        "2 proteins repeat the identifier of an earlier one",
        False,
    )


@pytest.mark.parametrize(
    ("lowest", "clause", "is_passed"),
    [
        (0.79, "the windows of 1 of 2 proteins longer than 50 residues agree to less than 0.80 (p1)", False),
        (0.91, "the windows of 2 proteins longer than 50 residues agree to 0.91 or more", True),
    ],
)
def test_low_agreement_of_windows_is_found(store, lowest, clause, is_passed):
    checks = found(store(VECTORS, agreements=[lowest, 0.97, *[None] * 38]))

    assert checks["Windows"] == (clause, is_passed)


def test_nonstandard_residues_are_counted_and_a_protein_full_of_them_is_found(store):
    few = InputResidues(letters="XBZUO", counts=Counter(B=2, U=1), num_nonstandard=np.array([0] * 39 + [3]))
    many = InputResidues(letters="XBZUO", counts=Counter(X=1), num_nonstandard=np.array([1] + [0] * 39))
    none = InputResidues(letters="XBZUO", counts=Counter(), num_nonstandard=np.zeros(40, int))

    start = "of 900 residues"
    assert found(store(VECTORS), none)["Residues"] == ("all residues are standard amino acids", True)
    assert found(store(VECTORS), few)["Residues"] == (
        f"3 {start} are not among the 20 standard amino acids: 2 B, 1 U",
        True,
    )
    assert found(store(VECTORS), many)["Residues"] == (
        f"1 {start} is not among the 20 standard amino acids: 1 X, in 1 protein more than 10 % (p1)",
        False,
    )


def test_records_that_were_left_out_or_cut_off_are_found(store):
    skipped = [("a.fasta", 7, "p9", "it is too long")]

    assert found(store(VECTORS, skipped=skipped))["Records"] == ("1 record was left out", False)
    assert found(store(VECTORS, long="truncate", window_residues=42))["Records"] == (
        "1 protein of 42 residues may have been longer, because it was cut off there",
        False,
    )


def test_few_proteins_are_checked_for_what_they_can_show(store):
    assert list(found(store(VECTORS[:2]))) == [
        *("Numbers", "Identical vectors", "Windows", "Sequences", "Identifiers", "Residues", "Records")
    ]


def test_many_proteins_are_counted_and_not_named(store):
    vectors = VECTORS.copy()
    vectors[:5] = np.nan

    assert found(store(vectors))["Numbers"] == ("5 vectors contain NaN or infinity", False)


def test_equal_norms_have_no_deviations(store):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)

    assert "Norms" not in found(store(unit))


# Unusual proteins


def test_unusual_proteins_are_listed_with_all_their_reasons(store):
    vectors = changed(39, 90)
    vectors[0] = np.nan

    unusual = find_unusual(Diagnosis.make(store(vectors, agreements=[None] * 38 + [0.5, None])))

    reasons = {protein.index: protein.reasons for protein in unusual}
    assert list(reasons)[:2] == [0, 39]
    assert reasons[0] == ["NaN or infinity", "shortest"]
    assert reasons[39] == ["highest norms", "longest"]
    assert reasons[38] == ["lowest agreement", "longest"]
    assert sum("longest" in found for found in reasons.values()) == 5


def test_equal_lengths_make_no_protein_long_or_short(store):
    result = store(VECTORS, ["".join(np.random.default_rng(row).permutation(list("MKTAY"))) for row in range(40)])

    reasons = {reason for protein in find_unusual(Diagnosis.make(result)) for reason in protein.reasons}

    assert reasons == {"highest norms", "lowest norms"}
