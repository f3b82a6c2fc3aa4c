import pytest

from protembed.errors import ConfigError, DataError, OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.io.reading import STANDARD_STREAM

INVALID_OPTIONS = {
    "an unknown pooling": ({"pooling": "sum"}, "regression"),
    "a pooling twice": ({"pooling": "mean,mean"}, "regression"),
    "attention over a frozen encoder": ({"pooling": "attention", "method": "frozen"}, "regression"),
    "attention over residues": ({"pooling": "attention"}, "residue-regression"),
    "a pooling of residues": ({"pooling": "max", "method": "frozen"}, "residue-classification"),
    "repeats of a frozen encoder": ({"repeats": 2, "method": "frozen"}, "regression"),
    "class weights of values": ({"balance_classes": True}, "regression"),
    "class weights of a frozen encoder with an mlp": (
        {"balance_classes": True, "method": "frozen", "head": "mlp"},
        "classification",
    ),
}


@pytest.mark.parametrize(("settings", "task"), INVALID_OPTIONS.values(), ids=INVALID_OPTIONS)
def test_options_that_do_not_fit_the_task_are_a_usage_error_and_write_nothing(
    labelled_tables, tiny_model, tmp_path, settings, task, finetune_options
):
    with pytest.raises(ConfigError):
        finetune_model(labelled_tables / f"{task}.csv", finetune_options(tmp_path / "x.model", tiny_model, **settings))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a file", "a directory", "the table"])
def test_an_output_that_is_no_fine_tuned_model_is_never_replaced(
    labelled_tables, tiny_model, tmp_path, finetune_options, kind
):
    table, output = labelled_tables / "regression.csv", tmp_path / "thesis"
    if kind == "a file":
        output.write_text("precious")
    elif kind == "a directory":
        output.mkdir()
        (output / "chapter").write_text("precious")
    else:
        output.write_bytes(table.read_bytes())
        table = output
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(OutputExistsError, match="`force` does not replace it either"):
        finetune_model(table, finetune_options(output, tiny_model, force=True))

    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_stdout_is_no_output_for_a_model(labelled_tables, tiny_model, finetune_options):
    with pytest.raises(ConfigError, match="a directory is expected"):
        finetune_model(labelled_tables / "regression.csv", finetune_options(STANDARD_STREAM, tiny_model))


HEADER = "id,sequence,label,split,mask\n"
ROWS = "a,MKTAY,1.5,train,\nb,MKVAY,2.5,train,\nc,MAYAY,3.5,valid,\nd,MCCAY,4.5,test,\n"
CLASSES = ROWS.replace("1.5", "x").replace("2.5", "y").replace("3.5", "x").replace("4.5", "y")
RESIDUES = "a,MKTAY,HHHCC,train,11110\nb,MKVAY,HHCCC,train,11111\nc,MAYAY,HHHCC,valid,\nd,MCCAY,HCCCC,test,\n"
# The table, its bad line and the message.
BAD_TABLES = {
    "empty": ("", 1, "the first line is empty"),
    "a header alone": (HEADER, None, "the table has no rows"),
    "no sequence column": (ROWS, 1, "no sequence column among"),
    "no target column": (HEADER.replace("label", "y") + ROWS, 1, "no target column among"),
    "a column twice": (HEADER.replace("mask", "label") + ROWS, 1, "the header has 2 columns named 'label'"),
    "too few cells": (HEADER + ROWS + "e,MKT\n", 6, "this row has 2 cells, the header 5"),
    "no sequence": (HEADER + ROWS + "e,*,1,train,\n", 6, "row 'e' has no sequence"),
    "no label": (HEADER + ROWS + "e,MKTAY,,train,\n", 6, "row 'e' has no label"),
    "an illegal residue": (
        HEADER + ROWS + "e,MK1AY,1,train,\n",
        6,
        "'1' in column 3 of record 'e' is not an amino acid",
    ),
    "an unknown split": (HEADER + ROWS + "e,MKTAY,1,fold1,\n", 6, "the split 'fold1' is unknown"),
    "no train split": (HEADER + ROWS.replace("train", "test"), None, "the train split is empty"),
    "no test split": (HEADER + ROWS.replace("test", "train"), None, "the test split is empty"),
    "a constant target": (HEADER + ROWS.replace("2.5", "1.5"), None, "all training labels are 1.5"),
    "one class": (HEADER + CLASSES.replace("y,", "x,"), None, "all training labels are 'x'"),
    "a class in test alone": (
        HEADER + CLASSES.replace("y,test", "z,test"),
        5,
        "the test protein 'd' has the class 'z'",
    ),
    "a label for each protein": (HEADER + CLASSES + "e,M,z,train,\n", None, "different labels"),
    "labels that are too few": (HEADER + RESIDUES * 3 + "e,MKTAY,HHH,train,\n", 14, "3 labels for 5 residues"),
    "a mask that is too short": (HEADER + RESIDUES.replace("11110", "111"), 2, "a mask of 3 for 5 residues"),
    "masks without any 1": (
        HEADER + RESIDUES.replace("11110", "00000").replace("11111", "00000"),
        None,
        "check the mask",
    ),
    "no identifier": (HEADER + ROWS + ",MKTAY,1,train,\n", 6, "a row has no identifier"),
    "values beyond float32": (
        HEADER
        + "".join(f"r{row},MKTAY,{row}.5,{('train', 'valid', 'test')[row % 3]},\n" for row in range(30))
        + "e,MKTAY,1e300,train,\n",
        32,
        "which is not a finite number up to 1e18",
    ),
    "values that float32 cannot distinguish": (
        HEADER + "".join(f"r{row},MKTAY,{10**9 + row}.5,{('train', 'valid', 'test')[row % 3]},\n" for row in range(30)),
        None,
        "subtract their mean",
    ),
    "values that float32 cannot distinguish from zero": (
        HEADER + "".join(f"r{row},MKTAY,{row}.5e-50,{('train', 'valid', 'test')[row % 3]},\n" for row in range(30)),
        None,
        "or scale them",
    ),
    "a mask of letters": (HEADER + RESIDUES.replace("11110", "1111H"), 2, "row 'a' has 'H' in its mask"),
    "a split without known residues": (
        HEADER + RESIDUES.replace("valid,", "valid,00000"),
        None,
        "no residue of the valid split",
    ),
    "text among a residue's values": (
        HEADER
        + "".join(f"r{row},MKTAY,1;2;3;4;{row},{('train', 'valid', 'test')[row % 3]},\n" for row in range(40))
        + "e,MKTAY,1;2;3;4;high,train,\n",
        42,
        "row 'e' has the label 'high' at residue 5",
    ),
    "a spreadsheet": ("PK\x03\x04\x00\x01\x02", None, "this is a zip archive"),
}


@pytest.mark.parametrize(("content", "line", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_an_error_of_one_line_that_names_its_row_and_writes_nothing(
    tiny_model, tmp_path, finetune_options, content, line, message
):
    table = tmp_path / "bad.csv"
    table.write_text(content)

    with pytest.raises(DataError) as caught:
        finetune_model(table, finetune_options(tmp_path / "bad.model", tiny_model))

    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.startswith(f"{table}, line {line}: " if line else f"{table}: ")
    assert caught.value.exit_status == 65
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
