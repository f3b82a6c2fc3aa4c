import pytest
from hypothesis import given, strategies as st

from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import MismatchedResidueError, TableError, UnsupportedVariantError
from protembed.scoring.mutations import (
    Mutation,
    check_mutations,
    find_mutations,
    mutate,
    parse_mutations,
    revert_mutations,
)

PLACE = ("variants.csv", 7)
WILD_TYPE = "MKTAYIAKQR"
HGVS = ["p.Lys2Arg:p.Ala4Gly", "Lys2Arg:Ala4Gly", "p.(Lys2Arg):p.(Ala4Gly)", "p.[Lys2Arg;Ala4Gly]", "LYS2ARG:ala4gly"]

sequences = st.text(AMINO_ACIDS, min_size=1, max_size=30)


def parse(text, offset=0):
    return parse_mutations(text, offset, *PLACE)


@pytest.mark.parametrize(
    "text", ["K2R:A4G", "k2r:a4g", "K2R;A4G", "K2R, A4G", "K2R/A4G", "p.K2R:p.A4G", "K02R:A4G:", "K2R+A4G", *HGVS]
)
def test_mutations_are_read_however_they_are_joined(text):
    assert parse(text) == (Mutation("K", 2, "R"), Mutation("A", 4, "G"))


@pytest.mark.parametrize(
    "text", ["WT", "wt", "_wt", "wild-type", "wild type", "_sy", "p.=", "p.%3D", "p.(=)", "NP_1.1:p.="]
)
def test_the_wild_type_has_no_mutation(text):
    assert parse(text) == ()


@pytest.mark.parametrize("text", ["p.Ala4=", "p.Ala4%3D", "p.(Ala4%3d)"])
def test_an_equals_sign_is_the_same_residue(text):
    assert parse(text) == (Mutation("A", 4, "A"),)


@pytest.mark.parametrize("protein", ["NP_000001.1", "ENSP00000412345.2", "LRG_1p1", "P06654", "A0A024R1R8-2"])
@pytest.mark.parametrize("text", HGVS[2:4])
def test_the_accession_of_hgvs_is_passed_over(protein, text):
    assert parse(f"{protein}:{text}") == parse("K2R:A4G")


@pytest.mark.parametrize("text", ["K2:p.Ala4Gly", "K2RR:p.Ala4Gly", "2K:p.Ala4Gly", "NP_000001.1:A4G"])
def test_a_misspelled_mutation_is_no_accession(text):
    with pytest.raises(UnsupportedVariantError, match=r"'(K2|K2RR|2K|NP_000001\.1)' is no substitution"):
        parse(text)


def test_an_offset_moves_every_position():
    assert parse("K25R:A27G", -23) == parse("K2R:A4G")


@pytest.mark.parametrize("text", ["A4del", "A4_K8del", "ins4A", "A4*", "A4fs", "4G", "A4", "Ala4Ter", "A4.5G", "A4AG"])
def test_what_is_no_substitution_is_refused_with_its_row(text):
    with pytest.raises(
        UnsupportedVariantError, match="only substitutions among the 20 amino acids are scored"
    ) as caught:
        parse(f"K2R:{text}")

    assert str(caught.value).startswith(f"variants.csv, line 7: {text!r} is no substitution")
    assert caught.value.exit_status == 65


@pytest.mark.parametrize("text", ["A4X", "A4B", "A4J", "J4A"])
def test_a_letter_that_is_no_amino_acid_is_refused(text):
    with pytest.raises(UnsupportedVariantError, match=r"'[XBJ]' in .* is none of the 20 amino acids"):
        parse(text)


def test_a_position_that_is_named_twice_is_refused():
    with pytest.raises(TableError, match="line 7: 'K2R:K2A' names a position twice"):
        parse("K2R:K2A")


@given(wild_type=sequences, data=st.data())
def test_mutations_that_are_found_make_the_mutated_sequence_and_are_undone(wild_type, data):
    mutated = data.draw(st.text(AMINO_ACIDS, min_size=len(wild_type), max_size=len(wild_type)))

    mutations = find_mutations(wild_type, mutated, *PLACE)

    assert mutate(wild_type, mutations) == mutated
    assert revert_mutations(mutated, mutations, *PLACE) == wild_type
    assert parse(":".join(map(str, mutations)) or "WT") == mutations
    check_mutations(mutations, wild_type, *PLACE)


def test_sequences_of_unequal_length_are_no_substitution():
    with pytest.raises(UnsupportedVariantError, match="line 7: the mutated sequence has 9 residues, the wild type 10"):
        find_mutations(WILD_TYPE, WILD_TYPE[1:], *PLACE)


def test_an_unknown_residue_is_no_mutation_where_both_have_it_and_else_refused():
    assert find_mutations("MXT", "MXA", *PLACE) == (Mutation("T", 3, "A"),)
    with pytest.raises(UnsupportedVariantError, match="'X' in place of residue 3"):
        find_mutations("MKT", "MKX", *PLACE)


def test_a_mutation_that_names_another_residue_says_what_stands_there():
    with pytest.raises(
        MismatchedResidueError, match="line 7: A2G does not fit, because residue 2 of the wild type is 'K'"
    ):
        check_mutations(parse("A2G"), WILD_TYPE, *PLACE)


@pytest.mark.parametrize("position", [-1, 0, 11])
def test_a_position_outside_the_wild_type_is_refused(position):
    with pytest.raises(MismatchedResidueError, match="the wild type has residues 1 to 10"):
        check_mutations(parse(f"A{position}G"), WILD_TYPE, *PLACE)


@pytest.mark.parametrize("letter", "XBZUO")
def test_a_residue_that_is_no_amino_acid_has_no_probability(letter):
    with pytest.raises(UnsupportedVariantError, match=f"residue 2 of the wild type is '{letter}', which has no probab"):
        check_mutations(parse(f"{letter}2A"), f"M{letter}T", *PLACE)


def test_a_mutated_sequence_in_place_of_the_wild_type_is_recognised():
    with pytest.raises(MismatchedResidueError, match="stand there already: name the column .* by --mutated-sequence"):
        check_mutations(parse("K2R"), "MRTAY", *PLACE)


def test_a_mutation_that_is_not_to_be_seen_is_not_undone():
    with pytest.raises(
        MismatchedResidueError, match="K2R does not fit, because residue 2 of the mutated sequence is 'K'"
    ):
        revert_mutations("MKT", parse("K2R"), *PLACE)
