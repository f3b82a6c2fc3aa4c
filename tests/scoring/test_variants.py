import bz2
import gzip
import lzma
import re
from pathlib import Path

import pytest

from protembed.config.common import InputConfig
from protembed.config.score import ScoreOptions, VariantTableConfig
from protembed.data.fasta import ReadStatistics
from protembed.errors import (
    ConfigError,
    DataError,
    IllegalResidueError,
    MismatchedResidueError,
    RecordError,
    TableError,
    UnsupportedVariantError,
)
from protembed.scoring.variants import VariantTable, read_wild_types

WILD_TYPE = "MKTAYIAKQRQISFVKSHFSRQ"
MUTATED = "MRTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture
def read(tmp_path):
    """Write a table of variants and read it."""

    def write_and_read(content, *, wild_types=None, on_illegal="error", statistics=None, **config):
        path = tmp_path / "variants.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(
            VariantTable(path, VariantTableConfig(**config), wild_types, InputConfig(on_illegal=on_illegal)).read(
                statistics
            )
        )

    return write_and_read


def parsed(variants):
    return [(variant.wild_type, ":".join(map(str, variant.mutations))) for variant in variants]


TABLES = {
    "sequence and mutations": f"sequence,mutant\n{WILD_TYPE},K2R\n",
    "wild type and mutated sequence": f"wild_type\tmutated_sequence\n{WILD_TYPE}\t{MUTATED}\n",
    "mutations and mutated sequence, as in ProteinGym": f"mutant,mutated_sequence,DMS_score\nK2R,{MUTATED},-0.5\n",
    "all three": f"Mutations,Mutated_Sequence,target_seq\nK2R,{MUTATED},{WILD_TYPE}\n",
    "lower case, a byte-order mark, a final stop": f"\ufeffvariant,sequence\r\nk2r,{WILD_TYPE.lower()}*\r\n",
    "a comment before the header": f"# made by hand\nvariant,sequence\nK2R,{WILD_TYPE}\n",
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_every_way_to_write_a_variant_is_read_the_same(content, read):
    assert parsed(read(content)) == [(WILD_TYPE, "K2R")]


@pytest.mark.parametrize("content", ["mutant\nK2R\n", f"mutated_sequence\n{MUTATED}\n"])
def test_the_only_wild_type_of_a_file_is_used_for_every_row(content, read):
    assert parsed(read(content, wild_types={"any": WILD_TYPE})) == [(WILD_TYPE, "K2R")]


def test_a_row_that_names_another_protein_is_rejected(read):
    wild_types, content = {"one": WILD_TYPE}, "protein,mutant\none,K2R\ntwo,K2R\n"

    with pytest.raises(TableError, match="line 3: `wild_type` has 1 record, and none of them is 'two'"):
        read(content, wild_types=wild_types)
    with pytest.raises(TableError, match="line 2: `wild_type` has 1 record, and none of them is 'v1'"):
        read("name,mutant\nv1,K2R\n", wild_types=wild_types, wild_type=Path("wild.fasta"), id="name")
    # Which rows come first makes no difference.
    with pytest.raises(TableError, match="line 2: `wild_type` has 1 record, and none of them is 'two'"):
        read("protein,mutant\ntwo,K2R\none,K2R\n", wild_types=wild_types)
    # Identifiers of variants are not read as identifiers of wild types.
    assert parsed(read("id,mutant\nv1,K2R\n", wild_types=wild_types)) == [(WILD_TYPE, "K2R")]


def test_wild_types_of_the_table_and_the_file_have_to_agree(read):
    wild_types = {"one": WILD_TYPE}

    assert parsed(read(f"mutant,sequence\nK2R,{WILD_TYPE.lower()}*\n", wild_types=wild_types)) == [(WILD_TYPE, "K2R")]
    with pytest.raises(TableError, match="line 2: the column 'sequence' has another wild type than `wild_type`"):
        read("mutant,sequence\nK2R,MKT\n", wild_types=wild_types)
    mutated = read(f"sequence\n{MUTATED}\n", wild_types=wild_types, mutated_sequence="sequence")
    assert parsed(mutated) == [(WILD_TYPE, "K2R")]


def test_the_id_column_selects_among_several_wild_types_of_a_file(read):
    wild_types = {"one": WILD_TYPE, "two": WILD_TYPE[5:]}
    content = "which,mutant\ntwo,I1V\none,K2R\n"

    variants = read(content, wild_types=wild_types, wild_type=Path("wild.fasta"), id="which")

    assert parsed(variants) == [(WILD_TYPE[5:], "I1V"), (WILD_TYPE, "K2R")]
    with pytest.raises(TableError, match="no id column among 'which', 'mutant', and `wild_type` has 2 records"):
        read(content, wild_types=wild_types)
    with pytest.raises(TableError, match="line 2: `wild_type` has 2 records, and none of them is 'three'"):
        read("id,mutant\nthree,K2R\n", wild_types=wild_types)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables_are_recognised_by_content(compress, read):
    assert parsed(read(compress(f"sequence,mutant\n{WILD_TYPE},K2R\n".encode()))) == [(WILD_TYPE, "K2R")]


def test_skipping_every_row_is_an_error(read):
    with pytest.raises(TableError, match="every row was left out, the first because 'K2fs' is a frameshift"):
        read(f"sequence,mutant\n{WILD_TYPE},K2fs\n", on_illegal="skip")


def test_columns_of_any_name_can_be_named(read):
    content = f"a,b,c\nK2R,{WILD_TYPE},{MUTATED}\n"

    assert parsed(read(content, mutations="a", sequence="b", mutated_sequence="c")) == [(WILD_TYPE, "K2R")]
    with pytest.raises(TableError, match="no column 'd' among 'a', 'b', 'c'"):
        read(content, mutations="d")


@pytest.mark.parametrize("mutations", ["", "K2R"])
def test_a_column_named_as_mutated_sequences_is_not_read_as_the_wild_type(read, mutations):
    with_wild_type = f"mutant,wild_type,sequence\n{mutations},{WILD_TYPE},{MUTATED}\n"

    assert parsed(read(with_wild_type, mutated_sequence="sequence")) == [(WILD_TYPE, "K2R")]
    assert parsed(read(with_wild_type, mutated_sequence="sequence", wild_types={"any": WILD_TYPE})) == [
        (WILD_TYPE, "K2R")
    ]
    with pytest.raises(TableError, match="line 1: no wild type among 'sequence'"):
        read(f"sequence\n{MUTATED}\n", mutated_sequence="sequence")


def test_a_column_of_single_letters_is_not_read_as_a_wild_type(read):
    content = "wildtype,position,mutant\nK,2,K2R\n"

    assert parsed(read(content, wild_types={"any": WILD_TYPE})) == [(WILD_TYPE, "K2R")]


THREE_COLUMNS = {
    "short names": "wt,pos,mut\nK,2,R\n",
    "as dbNSFP": "aaref,aapos,aaalt\nK,2,R\n",
    "long names": "Wild-type AA\tSite\tMutant residue\nLys\t2\tArg\n",
    "a column of mutations": "wild_type,position,mutation\nK,2.0,R\n",
    "lower case": "wildtype,resi,mutant\nk,02,r\n",
}


@pytest.mark.parametrize("content", THREE_COLUMNS.values(), ids=THREE_COLUMNS)
def test_a_mutation_in_three_columns_is_read_as_one(content, read):
    assert parsed(read(content, wild_types={"any": WILD_TYPE})) == [(WILD_TYPE, "K2R")]
    header, row = content.splitlines()
    delimiter = "\t" if "\t" in header else ","
    with_sequence = f"{header}{delimiter}sequence\n{row}{delimiter}{WILD_TYPE}\n"
    assert parsed(read(with_sequence)) == [(WILD_TYPE, "K2R")]
    with_mutated = f"{header}{delimiter}mutated_sequence\n{row}{delimiter}{MUTATED}\n"
    assert parsed(read(with_mutated)) == [(WILD_TYPE, "K2R")]


def test_columns_of_residues_and_positions_can_be_named(read):
    options = {"wild_type_residue": "old", "position": "where", "mutations": "new"}

    variants = read("old,where,new\nK,25,R\n", wild_types={"any": WILD_TYPE}, position_offset=-23, **options)

    assert parsed(variants) == [(WILD_TYPE, "K2R")]


def test_rows_of_three_columns_may_have_the_wild_type_or_silent_mutations(read):
    content = "wt,pos,mut\nK,2,K\nK,2,=\n,,WT\nK,2,R\n"

    variants = read(content, wild_types={"any": WILD_TYPE})

    assert [mutations for _, mutations in parsed(variants)] == ["", "", "", "K2R"]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("K,2,*", "'K2*' is a stop codon"),
        ("K,2.5,R", "'K2.5R' is not a substitution"),
        ("K,2,fs", "'K2fs' is a frameshift"),
        ("K,,R", "the row of the mutation 'R' has no position"),
        (",2,R", "the row of the mutation 'R' has no wild-type residue"),
        ("K,2,", "the mutations cell is empty"),
    ],
)
def test_a_row_of_three_columns_that_cannot_be_scored_is_skipped_on_request(row, found, read):
    statistics, content = ReadStatistics(), f"wt,pos,mut\nK,2,R\n{row}\n"

    with pytest.raises(UnsupportedVariantError, match=f"line 3: {re.escape(found)}"):
        read(content, wild_types={"any": WILD_TYPE})
    assert len(read(content, wild_types={"any": WILD_TYPE}, on_illegal="skip", statistics=statistics)) == 1
    assert [record.line for record in statistics.skipped] == [3]


def test_a_column_of_residues_alone_gives_no_wild_type(read):
    with pytest.raises(TableError, match="line 2: the column 'wildtype' has residues, not sequences of wild types"):
        read("wildtype,position,mutant\nK,2,R\n")
    with pytest.raises(TableError, match="line 1: no wild type among 'wt', 'pos', 'mut'; give it with `wild_type`"):
        read("wt,pos,mut\nK,2,R\n")


@pytest.mark.parametrize("name", ["HGVSp", "HGVSp_Short", "AA_substitution", "aa_substitutions", "Protein change"])
def test_usual_names_of_mutations_are_found(name, read):
    assert parsed(read(f"{name}\np.Lys2Arg\n", wild_types={"any": WILD_TYPE})) == [(WILD_TYPE, "K2R")]


def test_three_letter_code_is_rejected(read):
    with pytest.raises(TableError, match="line 2: the wild type is in three-letter code; write one letter for each"):
        read("mutant,sequence\nM1A,MetLysThr\n")


def test_the_wild_type_and_silent_mutations_have_no_mutations(read):
    variants = read(f"sequence,mutant\n{WILD_TYPE},WT\n{WILD_TYPE},p.=\n{WILD_TYPE},K2K\n{WILD_TYPE},K2K:T3A\n")

    assert [mutations for _, mutations in parsed(variants)] == ["", "", "", "T3A"]


def test_a_table_can_be_read_twice_with_all_its_cells(tmp_path):
    path = tmp_path / "variants.csv"
    path.write_text(f'mutant,note,sequence\nK2R,"a, b",{WILD_TYPE}\n')
    table = VariantTable(path, VariantTableConfig(), None, InputConfig())

    assert table.header == ["mutant", "note", "sequence"]
    assert [variant.cells for variant in table.read()] == [["K2R", "a, b", WILD_TYPE]]
    assert list(table.read()) == list(table.read())


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", TableError, "variants.csv, line 1: the first line is empty"),
        ("mutant,sequence\n", TableError, "the table has no rows"),
        (
            "fitness,sequence\n1,MKT\n",
            TableError,
            "no column of variants among 'fitness', 'sequence'; begin with a header",
        ),
        ("mutant\nK2R\n", TableError, "no wild type among 'mutant'; give it with `wild_type` FASTA"),
        ("mutated_sequence\nMKT\n", TableError, "no wild type among 'mutated_sequence'"),
        ("mutant,mutant,sequence\nK2R,K2R,MKT\n", TableError, "2 columns named 'mutant'"),
        ("mutant,sequence\nK2R,\n", TableError, "line 2: this row has no wild type"),
        ("sequence,mutated_sequence\nMKT,\n", TableError, "line 2: this row has no mutated sequence"),
        ("mutant,sequence\nWT,MKT\nC2R,MKT\n", MismatchedResidueError, "line 3: C2R does not fit, because residue 2"),
        ("mutant,sequence\nK9R,MKT\n", MismatchedResidueError, "line 2: K9R does not fit, because the wild type has r"),
        ("mutant,sequence\nC2C,MKT\n", MismatchedResidueError, "residue 2 of the wild type is 'K'"),
        ("mutant,sequence\nK2*,MKT\n", UnsupportedVariantError, "line 2: 'K2*' is a stop codon"),
        ("mutant,sequence\nK2R,MK?\n", IllegalResidueError, "line 2: '?' in column 3"),
        ("mutant,sequence,mutated\nK2R,MKT,MAT\n", TableError, "is not the wild type with these mutations"),
        ("sequence,mutated\nMKT,MKXT\n", UnsupportedVariantError, "the mutated sequence has 'X', which is not one of"),
        ("mutant,sequence\nM1_T3del,MKT\n", UnsupportedVariantError, "line 2: no amino acid is left"),
        ("mutant,sequence\nK2_A3del,MKT\n", MismatchedResidueError, "K2_A3del does not fit, because residue 3 of"),
        ("mutant,sequence\nT3_K4insA,MKT\n", MismatchedResidueError, "T3_K4insA does not fit, because the wild type"),
        ("mutant,mutated_sequence\nK2del,MT\n", TableError, "the wild type does not follow from K2del"),
        ("mutant,sequence,mutated\nK2del,MKT,MK\n", TableError, "is not the wild type with these mutations"),
    ],
)
def test_an_invalid_table_is_rejected_in_one_sentence_with_the_line(content, error, message, read):
    with pytest.raises(error) as caught:
        read(content)

    assert message in str(caught.value)
    assert str(caught.value).startswith("variants.csv") or "/variants.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError)


def shifted_table(shift, num_rows=5):
    mutants = [f"{WILD_TYPE[row]}{row + 1 + shift}{'G' if row else 'A'}" for row in range(num_rows)]
    return "mutant\n" + "\n".join(mutants) + "\n"


@pytest.mark.parametrize("shift", [23, 1, -3])
def test_shifted_positions_are_rejected_with_the_offset_that_fits(shift, read):
    with pytest.raises(MismatchedResidueError, match=f"would all fit with `position_offset` {-shift}$"):
        read(shifted_table(shift), wild_types={"one": WILD_TYPE})

    assert len(read(shifted_table(shift), wild_types={"one": WILD_TYPE}, position_offset=-shift)) == 5


def test_the_suggested_offset_replaces_a_wrong_one(read):
    with pytest.raises(MismatchedResidueError, match="would all fit with `position_offset` -23$"):
        read(shifted_table(23), wild_types={"one": WILD_TYPE}, position_offset=2)


def test_an_offset_is_also_suggested_from_mutated_sequences(read):
    rows = [f"{WILD_TYPE[row]}{row + 24}W,{WILD_TYPE[:row]}W{WILD_TYPE[row + 1 :]}" for row in range(5)]

    with pytest.raises(MismatchedResidueError, match="of the mutated sequence is|has residues") as caught:
        read("mutant,mutated_sequence\n" + "\n".join(rows))
    assert str(caught.value).endswith("with `position_offset` -23")


@pytest.mark.parametrize("content", [shifted_table(23, num_rows=2), shifted_table(23) + "W1G\n"])
def test_no_offset_is_suggested_from_few_or_contradictory_rows(content, read):
    with pytest.raises(MismatchedResidueError, match="correct the row, or give its wild type$"):
        read(content, wild_types={"one": WILD_TYPE})


def test_variants_that_cannot_be_scored_are_skipped_on_request_and_counted(read):
    statistics = ReadStatistics()
    content = f"mutant,sequence\nK2*,{WILD_TYPE}\nK2R,{WILD_TYPE}\nA4fs,{WILD_TYPE}\nK2R,MK?\n"

    assert parsed(read(content, on_illegal="skip", statistics=statistics)) == [(WILD_TYPE, "K2R")]
    assert statistics.num_records == 1
    assert [(record.id, record.line) for record in statistics.skipped] == [("1", 2), ("3", 4), ("4", 5)]


def test_an_empty_mutations_cell_is_an_error_not_the_wild_type(read):
    statistics = ReadStatistics()
    content = f"mutant,sequence\nK2R,{WILD_TYPE}\n,{WILD_TYPE}\n"

    with pytest.raises(UnsupportedVariantError, match="line 3: the mutations cell is empty"):
        read(content)
    assert parsed(read(content, on_illegal="skip", statistics=statistics)) == [(WILD_TYPE, "K2R")]
    assert [(record.id, record.line) for record in statistics.skipped] == [("2", 3)]


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "None", "null"])
def test_a_stand_in_for_a_missing_sequence_is_an_error_not_a_protein(cell, read):
    statistics = ReadStatistics()
    with pytest.raises(UnsupportedVariantError, match=f"line 3: the wild type is '{cell}', which seems to stand for a"):
        read(f"mutant,sequence\nK2R,{WILD_TYPE}\nWT,{cell}\n")
    with pytest.raises(UnsupportedVariantError, match=f"line 3: the mutated sequence is '{cell}'"):
        read(f"sequence,mutated_sequence\n{WILD_TYPE},{MUTATED}\n{WILD_TYPE},{cell}\n")

    content = f"mutant,sequence\nK2R,{WILD_TYPE}\nWT,{cell}\n"
    assert parsed(read(content, on_illegal="skip", statistics=statistics)) == [(WILD_TYPE, "K2R")]
    assert [(record.id, record.line) for record in statistics.skipped] == [("2", 3)]


def test_an_empty_mutations_cell_is_filled_from_the_mutated_sequence(read):
    mutated = "W" + WILD_TYPE[1:]

    assert parsed(read(f"mutant,sequence,mutated_sequence\n,{WILD_TYPE},{mutated}\n")) == [(WILD_TYPE, "M1W")]
    with pytest.raises(TableError, match="line 2: this row has no mutations, so its wild type is unknown"):
        read(f"mutant,mutated_sequence\n,{mutated}\n")


def test_a_mismatch_is_an_error_even_when_skipping(read):
    with pytest.raises(MismatchedResidueError):
        read(f"mutant,sequence\nC2R,{WILD_TYPE}\n", on_illegal="skip")


def test_an_illegal_residue_of_a_wild_type_can_be_masked(read):
    statistics = ReadStatistics()

    (variant,) = read("mutant,sequence\nK2R,MK?\n", on_illegal="mask", statistics=statistics)

    assert variant.wild_type == "MKX"
    assert statistics.num_masked == 1


def test_two_wild_types_with_one_identifier_are_rejected_unless_equal(tmp_path):
    path = tmp_path / "wild.fasta"
    path.write_text(">one first\nMKT\n>one\nMKT\n")
    assert read_wild_types(path, reader=InputConfig(), statistics=ReadStatistics()) == {"one": "MKT"}

    path.write_text(">one first\nMKT\n>one\nMKA\n")
    with pytest.raises(RecordError, match=r"line 3: record 2 \('one'\) differs from an earlier record"):
        read_wild_types(path, reader=InputConfig(), statistics=ReadStatistics())


@pytest.mark.parametrize("options", [{"id": "which"}, {"wild_type": Path("wild.fasta"), "sequence": "sequence"}])
def test_contradictory_options_are_rejected(options):
    with pytest.raises(ConfigError, match="wild_type"):
        ScoreOptions.from_values(**options)


def test_a_table_in_another_encoding_is_rejected_with_its_line(tmp_path):
    path = tmp_path / "variants.csv"
    path.write_bytes("mutant,sequence,note\nA2G,MAKT,Kern\nK3R,MAKT,Hülle\n".encode("cp1252"))

    with pytest.raises(TableError, match=r"variants.csv, line 3: character 11 of this line is not UTF-8"):
        list(VariantTable(path, VariantTableConfig(), None, InputConfig()).read())


# Insertions and deletions

INDELS = {
    "K2del": "MTAYIAKQRQISFVKSHFSRQ",
    "p.Lys2del": "MTAYIAKQRQISFVKSHFSRQ",
    "p.(Lys2_Ala4del)": "MYIAKQRQISFVKSHFSRQ",
    "Lys2_Thr3insArgSer": "MKRSTAYIAKQRQISFVKSHFSRQ",
    "K2_T3insRS": "MKRSTAYIAKQRQISFVKSHFSRQ",
    "p.Lys2_Ala4dup": "MKTAKTAYIAKQRQISFVKSHFSRQ",
    "Q22dup": "MKTAYIAKQRQISFVKSHFSRQQ",
    "p.Tyr5delinsTrpVal": "MKTAWVIAKQRQISFVKSHFSRQ",
    "Y5_I6delinsW": "MKTAWAKQRQISFVKSHFSRQ",
    "M1R:K2_T3insRS:Y5del": "RKRSTAIAKQRQISFVKSHFSRQ",
    "NP_000001.1:p.[Lys2del;Ala4Gly]": "MTGYIAKQRQISFVKSHFSRQ",
}


@pytest.mark.parametrize(("name", "mutated"), INDELS.items())
def test_insertions_and_deletions_give_the_mutated_sequence(name, mutated, read):
    (variant,) = read(f"mutant,sequence\n{name},{WILD_TYPE}\n")

    assert variant.has_indels and variant.sequence == mutated
    assert variant.num_mutations == len(re.findall("[:;]", name.removeprefix("NP_000001.1:"))) + 1


def test_a_mutated_sequence_of_another_length_is_read_without_the_names_of_its_mutations(read):
    (variant,) = read(f"sequence,mutated_sequence\n{WILD_TYPE},{WILD_TYPE[3:]}\n")

    assert (variant.has_indels, variant.sequence, variant.num_mutations) == (True, WILD_TYPE[3:], None)


def test_as_many_residues_in_place_of_others_are_substitutions(read):
    content = f"mutant,sequence\nK2_A4delinsRTG,{WILD_TYPE}\nK2delinsK,{WILD_TYPE}\n"

    assert parsed(read(content)) == [(WILD_TYPE, "K2R:A4G"), (WILD_TYPE, "")]


def test_an_offset_applies_to_both_ends_of_a_deletion(read):
    (variant,) = read(f"mutant,sequence\nK25_A27del,{WILD_TYPE}\n", position_offset=-23)

    assert variant.sequence == INDELS["p.(Lys2_Ala4del)"]


def test_an_offset_is_suggested_from_deletions_too(read):
    rows = "".join(f"{WILD_TYPE[start]}{start + 24}_{WILD_TYPE[start + 1]}{start + 25}del\n" for start in range(4))

    with pytest.raises(MismatchedResidueError, match="would all fit with `position_offset` -23"):
        read(f"mutant\n{rows}", wild_types={"one": WILD_TYPE})


def test_a_residue_without_a_probability_can_stay_beside_a_deletion(read):
    (variant,) = read("mutant,sequence\nT3del,MXTAYU\n")

    assert variant.sequence == "MXAYU"
