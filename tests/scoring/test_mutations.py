import re

import pytest
from hypothesis import given, strategies as st

from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import MismatchedResidueError, TableError, UnsupportedVariantError
from protembed.scoring.mutations import (
    Mutation,
    Place,
    check_mutations,
    find_mutations,
    mutate,
    parse_mutations,
    revert_mutations,
)

ROW = Place("variants.csv", 7)
WILD_TYPE = "MKTAYIAKQR"
SEPARATORS = (":", ";", ", ", "/", "+", "|", "_", "-", " ")
HGVS = [
    "p.K2R:p.A4G",
    "p.Lys2Arg:p.Ala4Gly",
    "Lys2Arg:Ala4Gly",
    "p.(Lys2Arg):p.(Ala4Gly)",
    "p.[Lys2Arg;Ala4Gly]",
    "LYS2ARG:ala4gly",
    "Lys2Arg_Ala4Gly",
]
AS_IN_PAPERS = [
    *("Lys2→Arg, Ala4→Gly", "K2>R A4>G", "K2 -> R; A4 -> G", "Lys-2-Arg/Ala-4-Gly", "K 2 R, A 4 G", "K_2_R + A_4_G"),
    *("K2R & A4G", "K2R and A4G", "K2R·A4G", "K2R – A4G", "K2R–A4G", "K2\u200bR\u00a0/\u00a0A4G", "Lys2Arg\nAla4Gly"),
]

sequences = st.text(AMINO_ACIDS, min_size=1, max_size=30)


def parse(text, offset=0):
    return parse_mutations(text, offset, ROW)


@pytest.mark.parametrize(
    "text",
    [*(f"K2R{separator}A4G" for separator in SEPARATORS), "k2r:a4g", "K02R:A4G:", "K2R|A4G|", *HGVS, *AS_IN_PAPERS],
)
def test_mutations_are_parsed_with_any_separator(text):
    assert parse(text) == (Mutation("K", 2, "R"), Mutation("A", 4, "G"))


@pytest.mark.parametrize(
    "text", ["WT", "wt", "_wt", "wild-type", "wild type", "Wildtyp", "_sy", "p.=", "p.%3D", "p.(=)", "NP_1.1:p.="]
)
def test_the_wild_type_has_no_mutation(text):
    assert parse(text) == ()


@pytest.mark.parametrize("text", ["p.Ala4=", "p.Ala4%3D", "p.(Ala4%3d)"])
def test_an_equals_sign_means_the_same_residue(text):
    assert parse(text) == (Mutation("A", 4, "A"),)


@pytest.mark.parametrize(
    "protein",
    ["NP_000001.1", "ENSP00000412345.2", "LRG_1p1", "P06654", "A0A024R1R8-2", "NP_000001.1(TP53)", "BRCA1", "HLA-A"],
)
@pytest.mark.parametrize("text", ["p.(Lys2Arg):p.(Ala4Gly)", "p.[Lys2Arg;Ala4Gly]", "p.K2R:p.A4G"])
def test_an_accession_or_a_gene_before_hgvs_is_ignored(protein, text):
    assert parse(f"{protein}:{text}") == parse(f"{protein} {text}") == parse("K2R:A4G")


@pytest.mark.parametrize("text", ["NM_000059.4(BRCA2):c.10G>C (p.Ala4Gly)", "NM_1.1:c.[10G>C;11A>T] (p.Ala4Gly)"])
def test_the_protein_part_of_a_name_of_clinvar_is_parsed(text):
    assert parse(text) == parse("A4G")
    assert parse("NM_000059.4(BRCA2):c.12A>G (p.Ala4=)") == parse("A4A")


@pytest.mark.parametrize("name", ["K2", "K2RR", "2K", "LYS2", "NP_000001"])
def test_a_misspelled_mutation_is_not_ignored_as_an_accession(name):
    with pytest.raises(UnsupportedVariantError, match=rf"'{name}' is not a substitution"):
        parse(f"{name}:{'A4G' if name.startswith('NP') else 'p.Ala4Gly'}")


def test_an_offset_is_added_to_every_position():
    assert parse("K25R:A27G", -23) == parse("K2R:A4G")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((name, "not a substitution, insertion or deletion") for name in ("ins4A", "4G", "A4", "A4.5G", "A4AG")),
        *(
            (name, "not a substitution, insertion or deletion")
            for name in ("Ala4_Tyr5insXaa", "A4_K8ins(5)", "A4_K5ins12")
        ),
        *((name, "a stop codon") for name in ("A4*", "Ala4Ter", "Ala4_Tyr5insTrpTer", "Ala4delinsTer", "A4_Y5insW*")),
        *((name, "a frameshift, whose new residues are unknown") for name in ("A4fs", "Ala4ProfsTer23", "A4Pfs*2")),
        *((name, "an extension of the protein") for name in ("Met1ext-5", "Ter11GlnextTer17")),
    ],
)
def test_a_variant_that_cannot_be_scored_is_rejected_with_its_line_and_what_it_is(text, found):
    with pytest.raises(UnsupportedVariantError, match="only substitutions, insertions and deletions") as caught:
        parse(f"K2R:{text}")

    assert str(caught.value).startswith(f"variants.csv, line 7: {text!r} is {found}")
    assert caught.value.exit_status == 65


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("K2_A4insR", "does not name the two neighbours of the inserted residues, as K23_L24insRS does"),
        ("K2insR", "does not name the two neighbours"),
        ("A4_K2del", "ends before it begins"),
        ("K2_T3ins", "does not name the inserted residues"),
        ("K2delins", "does not name the inserted residues"),
        ("K2delK", "names residues after del, which follow from the wild type: leave them out"),
        ("K2_T3insX", "is not one of the 20 amino acids"),
    ],
)
def test_an_incomplete_insertion_or_deletion_is_rejected_with_what_it_lacks(text, found):
    with pytest.raises(UnsupportedVariantError, match=rf"line 7: .*'{text}' {re.escape(found)}"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("K2del", "p.Lys2del", "p.(Lys2del)", "k2DEL", "K2 del", "delK2", "delLys2", "GENE:p.Lys2del"),
        *("\u0394K2", "\u2206K2", "p.\u0394K2", "(\u0394K2)", "\u0394(K2)", "\u0394Lys2", "\u2206 Lys2"),
        *("K2\u0394", "Lys2\u2206", "K2 \u0394"),
    ],
)
def test_a_deleted_residue_is_parsed_however_papers_write_it(text):
    assert parse(text) == parse("K2del")
    assert parse(f"{text}:A4G") == parse(f"{text}, A4G") == parse("K2del:A4G")


@pytest.mark.parametrize(
    "text",
    [
        *("M1_K5del", "M1-K5del", "M1\u2013K5del", "p.Met1_Lys5del", "p.(Met1_Lys5del)", "M1_K5\u0394"),
        *("\u0394M1-K5", "\u2206M1_K5", "\u0394(M1\u2013K5)", "delM1_K5"),
    ],
)
def test_deleted_residues_are_parsed_however_papers_write_them(text):
    assert parse(text) == parse("M1_K5del")


@pytest.mark.parametrize(
    "text", ["\u03941-5", "\u22061\u20135", "\u0394(1-5)", "\u0394508", "del1-5", "1_5del", "p.1_5del", "508del"]
)
def test_a_deletion_that_names_no_residue_is_rejected_because_it_cannot_be_checked(text):
    with pytest.raises(UnsupportedVariantError, match=rf"'{re.escape(text)}' names no residues to check"):
        parse(text)


@pytest.mark.parametrize("text", ["\u0394N10", "\u0394C10", "\u2206(N10)"])
def test_a_deleted_end_that_may_be_a_residue_is_rejected(text):
    with pytest.raises(UnsupportedVariantError, match="may be a deleted end of the protein or a deleted residue"):
        parse(text)
    assert parse("delN10") == parse("N10del")


@pytest.mark.parametrize("text", ["\u0394", "\u0394K", "\u0394K2del", "\u0394K2R", "K2-", "K2_"])
def test_an_incomplete_deletion_is_rejected(text):
    with pytest.raises(UnsupportedVariantError, match=f"'{text}' is not a substitution, insertion or deletion;"):
        parse(text)


@pytest.mark.parametrize(
    ("three", "one"),
    [
        ("p.Lys23del", "K23del"),
        ("p.(Lys23_Val25del)", "K23_V25del"),
        ("p.Lys23_Leu24insArgSer", "K23_L24insRS"),
        ("p.Ala3_Ser5dup", "A3_S5dup"),
        ("LYS23DUP", "k23dup"),
        ("p.Cys28delinsTrpVal", "C28delinsWV"),
        ("p.Cys28_Lys29delinsTrp", "C28_K29delinsW"),
        ("p.[Lys23del;Ala42Gly]", "K23del_A42G"),
    ],
)
def test_both_codes_of_an_insertion_or_deletion_are_read_the_same(three, one):
    assert parse(three) == parse(one)
    assert parse(":".join(map(str, parse(three)))) == parse(three)


def test_inserted_letters_that_look_like_words_are_residues():
    assert [str(mutation) for mutation in parse("K2_T3insTERFS")] == ["K2_T3insTERFS"]


@pytest.mark.parametrize("text", ["K2del:K2R", "K2_A4del:T3A", "K2_T3insR:K2_T3insS"])
def test_overlapping_mutations_are_rejected(text):
    with pytest.raises(TableError, match="names a position twice"):
        parse(text)


@given(wild_type=sequences, data=st.data())
def test_deleting_what_was_inserted_gives_the_wild_type(wild_type, data):
    end = data.draw(st.integers(1, len(wild_type)))
    start = data.draw(st.integers(1, end))
    name = f"{wild_type[start - 1]}{start}_{wild_type[end - 1]}{end}dup"

    doubled = mutate(wild_type, parse(name))
    back = f"{doubled[end]}{end + 1}_{doubled[2 * end - start]}{2 * end - start + 1}del"

    assert len(doubled) == len(wild_type) + end - start + 1
    assert mutate(doubled, parse(back)) == wild_type


@pytest.mark.parametrize("text", ["NM_000059.4(BRCA2):c.5074G>C", "c.[6A>T;9G>C]", "NC_000001.11:g.1A>T"])
def test_a_change_of_dna_is_rejected_by_name(text):
    with pytest.raises(
        UnsupportedVariantError,
        match=rf"'{re.escape(text)}' is a change of DNA; only substitutions, insertions and deletions",
    ):
        parse(text)


@pytest.mark.parametrize("text", ["A4X", "A4B", "A4J", "J4A"])
def test_a_letter_that_is_no_amino_acid_is_rejected(text):
    with pytest.raises(UnsupportedVariantError, match=r"'[XBJ]' in .* is not one of the 20 amino acids"):
        parse(text)


def test_two_mutations_of_one_position_are_rejected():
    with pytest.raises(TableError, match="line 7: 'K2R:K2A' names a position twice"):
        parse("K2R:K2A")


@given(wild_type=sequences, data=st.data())
def test_found_mutations_make_the_mutated_sequence_and_can_be_reverted(wild_type, data):
    mutated = data.draw(st.text(AMINO_ACIDS, min_size=len(wild_type), max_size=len(wild_type)))

    mutations = find_mutations(wild_type, mutated, ROW)

    assert mutate(wild_type, mutations) == mutated
    assert revert_mutations(mutated, mutations, ROW) == wild_type
    assert parse(":".join(map(str, mutations)) or "WT") == mutations
    check_mutations(mutations, wild_type, ROW)


def test_an_unknown_residue_is_rejected_unless_both_sequences_have_it():
    assert find_mutations("MXT", "MXA", ROW) == (Mutation("T", 3, "A"),)
    with pytest.raises(UnsupportedVariantError, match="residue 3 of the mutated sequence is 'X'"):
        find_mutations("MKT", "MKX", ROW)


def test_a_mutation_of_another_residue_is_rejected_with_the_residue_found():
    with pytest.raises(
        MismatchedResidueError, match="line 7: A2G does not fit, because residue 2 of the wild type is 'K'"
    ):
        check_mutations(parse("A2G"), WILD_TYPE, ROW)


@pytest.mark.parametrize("position", [-1, 0, 11])
def test_a_position_outside_the_wild_type_is_rejected(position):
    with pytest.raises(MismatchedResidueError, match="the wild type has residues 1 to 10"):
        check_mutations(parse(f"A{position}G"), WILD_TYPE, ROW)


@pytest.mark.parametrize("letter", "XBZUO")
def test_a_mutation_of_a_residue_without_a_probability_is_rejected(letter):
    with pytest.raises(UnsupportedVariantError, match=f"residue 2 of the wild type is '{letter}', which has no probab"):
        check_mutations(parse(f"{letter}2A"), f"M{letter}T", ROW)


def test_a_mutated_sequence_given_as_the_wild_type_is_recognised():
    with pytest.raises(
        MismatchedResidueError, match="already has the mutations: give the wild type, or name its column with"
    ):
        check_mutations(parse("K2R"), "MRTAY", ROW)


def test_a_mutation_that_does_not_fit_a_gene_says_to_translate_it():
    with pytest.raises(MismatchedResidueError, match="K2R does not fit, .*looks like nucleotides: translate its gene"):
        check_mutations(parse("K2R"), "ATGAAAACCGCGTATATTGCG", ROW)


def test_a_mutation_that_the_sequence_does_not_have_cannot_be_reverted():
    with pytest.raises(
        MismatchedResidueError, match="K2R does not fit, because residue 2 of the mutated sequence is 'K'"
    ):
        revert_mutations("MKT", parse("K2R"), ROW)


def test_the_error_names_a_letter_of_another_alphabet():
    with pytest.raises(
        UnsupportedVariantError, match=r"is not a substitution, insertion or deletion \(CYRILLIC CAPITAL LETTER A\)"
    ):
        parse("K2\u0410")
