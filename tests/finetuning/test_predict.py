from dataclasses import replace

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.config.finetune import PredictOptions
from protembed.errors import ConfigError, InputNotFoundError, OutputExistsError, TableError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta
from protembed.finetuning.prediction import prediction_cells, prediction_header
from protembed.io.reading import read_json, sha256_of_file
from protembed.model.catalog import locate_model
from protembed.model.heads import TaskHead
from protembed.text import LabelText, format_row


def cells(prediction, task, classes=None, threshold=0.5):
    head = TaskHead(1, TASKS[task], classes)
    head.threshold.fill_(threshold)
    return prediction_cells(np.array(prediction, np.float32), head)


def test_a_predicted_class_comes_with_the_probability_of_each_class():
    classes = ("membrane", "soluble", "other")

    assert prediction_header(classes) == ["prediction", "p_membrane", "p_soluble", "p_other"]
    assert cells([0.125, 0.5, 0.375], "classification", classes) == ["soluble", "0.125", "0.5", "0.375"]


def test_a_predicted_value_has_no_probabilities():
    assert prediction_header(None) == ["prediction"]
    assert cells(0.1, "regression") == ["0.1"]
    assert cells(123456.7, "regression") == ["123457"]


def test_all_labels_that_reach_the_threshold_are_predicted():
    def predicted(threshold):
        return cells([0.5, 0.25, 0.75], "multilabel", ("a", "b", "c"), threshold=threshold)[0]

    assert cells([0.5, 0.25, 0.75], "multilabel", ("a", "b", "c")) == ["a;c", "0.5", "0.25", "0.75"]
    assert [predicted(threshold) for threshold in (0.25, 0.5, 0.6, 0.8)] == ["a;b;c", "a;c", "c", ""]


def test_the_threshold_does_not_choose_among_classes():
    assert cells([0.25, 0.75], "classification", ("a", "b"), threshold=0.1)[0] == "b"


def test_residue_classes_of_one_letter_are_a_string_as_long_as_the_protein():
    probabilities = [[0.75, 0.25], [0.25, 0.75], [0.875, 0.125]]

    assert cells(probabilities, "residue-classification", ("E", "H")) == ["EHE", "0.75;0.25;0.875", "0.25;0.75;0.125"]


def test_residue_classes_of_several_letters_are_a_list():
    probabilities = [[0.75, 0.25], [0.25, 0.75]]

    assert cells(probabilities, "residue-classification", ("buried", "x")) == ["buried;x", "0.75;0.25", "0.25;0.75"]
    assert cells(probabilities[:1], "residue-classification", ("buried", "x")) == ["buried", "0.75", "0.25"]


def test_residue_values_are_a_list():
    assert cells([0.5, 1e-9, 123456.7], "residue-regression") == ["0.5;1e-09;123457"]


@pytest.mark.parametrize("value", [-1.5, -0.25, -3e-9, -1e20])
def test_a_negative_value_is_written_as_a_number(value):
    line = format_row(["protein", *cells(value, "regression")])

    assert float(line.decode().split("\t")[1]) == pytest.approx(value)


def test_negative_residue_values_are_written_as_numbers():
    line = format_row(["protein", *cells([-1.5, 0.25, -3e-9], "residue-regression")])

    assert line.decode().rstrip().split("\t")[1].split(";") == ["-1.5", "0.25", "-3e-09"]


@pytest.mark.promise(17)
def test_class_names_are_escaped_in_a_table():
    classes = ("=cmd()", "a\tb")

    header = format_row(prediction_header(classes))
    line = format_row(cells([0.9, 0.1], "classification", classes))

    assert header == b"prediction\tp_=cmd()\tp_a\\x09b\n"
    assert line == b"'=cmd()\t0.9\t0.1\n"


@pytest.mark.parametrize("names", [("+", "-"), ("+ve", "-ve"), ("=x", "@x"), ("-like", "other"), ("=cmd()", "@SUM(1)")])
def test_a_class_has_the_same_name_as_label_and_as_prediction(names):
    label = format_row([LabelText(names[0])])
    prediction = format_row(cells([0.9, 0.1], "classification", names)[:1])
    several = format_row(cells([0.9, 0.1], "multilabel", names)[:1])

    assert label == prediction == several
    assert label.decode().strip() == (f"'{names[0]}" if "(" in names[0] else names[0])


# The command


def test_a_model_without_a_head_is_an_error(tiny_model, proteins_fasta, tmp_path):
    with pytest.raises(InputNotFoundError, match="has no head to predict with") as caught:
        predict_fasta(
            [proteins_fasta],
            PredictOptions.from_values(model=tiny_model, output=tmp_path / "p.tsv"),
        )

    assert caught.value.exit_status == 66
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def classifier(labelled_tables, tiny_model, finetune_options, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "classifier.model"
    finetune_model(labelled_tables / "classification.csv", finetune_options(output, tiny_model, method="frozen"))
    return output


@pytest.fixture
def predict(classifier, proteins_fasta, tmp_path):
    """Predict with the classifier, and write `p.tsv`."""

    def run(**settings):
        options = PredictOptions.from_values(model=classifier, output=tmp_path / "p.tsv", **settings)
        return predict_fasta([proteins_fasta], options)

    return run


def test_an_existing_table_is_not_overwritten_without_force(predict, tmp_path):
    (tmp_path / "p.tsv").write_text("precious")

    with pytest.raises(OutputExistsError, match="has no valid meta file beside it"):
        predict()

    assert (tmp_path / "p.tsv").read_text() == "precious"


def test_the_same_prediction_is_done_and_not_computed_again(predict, tmp_path):
    first = predict()
    table = tmp_path / "p.tsv"
    made = (table.read_bytes(), table.stat().st_mtime_ns)

    again = predict()

    assert (first.was_done, again.was_done) == (False, True)
    assert replace(again, was_done=False) == first
    assert (again.num_proteins, again.target, again.region) == (first.num_proteins, "label", None)
    assert first.warnings[0].startswith("non-standard residues")
    assert (table.read_bytes(), table.stat().st_mtime_ns) == made


def test_a_prediction_with_another_region_says_so_and_is_made_with_force(predict, tmp_path):
    predict()

    with pytest.raises(OutputExistsError, match=r"was made with other settings \(`region` was none, not 1-40\)"):
        predict(region="1-40")

    assert predict(region="1-40", force=True).region == "1-40"
    assert (tmp_path / "p.tsv").read_text().startswith("id\tfirst_residue\tlast_residue")


def test_a_prediction_records_its_model_and_its_input(predict, classifier, tmp_path):
    predict()

    recorded = read_json(tmp_path / "p.tsv.meta.json")
    assert recorded["model_name"] == "classifier.model"
    assert recorded["model_sha256"] == locate_model(classifier).sha256()
    assert recorded["sha256"] == sha256_of_file(tmp_path / "p.tsv")
    assert {"protembed_version", "input_sha256", "on_illegal", "num_proteins"} <= recorded.keys()
    assert "left_out" not in recorded


def test_rows_that_were_left_out_on_request_are_listed_in_the_record(classifier, tmp_path):
    table = tmp_path / "holes.csv"
    table.write_text("id,sequence\na,MKTAYIAKQR\nb,\n")
    options = PredictOptions.from_values(model=classifier, output=tmp_path / "p.tsv", on_missing="skip")

    predict_fasta([table], options)

    left_out = [{"id": "b", "file": "holes.csv", "line": 3, "reason": "no sequence"}]
    assert read_json(tmp_path / "p.tsv.meta.json")["left_out"] == left_out


def test_inputs_and_the_model_are_not_overwritten_with_force(classifier, proteins_fasta, tmp_path):
    fasta = tmp_path / "seqs.fasta"
    fasta.write_bytes(proteins_fasta.read_bytes())
    weights = (classifier / "model.safetensors").read_bytes()

    for output in (fasta, tmp_path / ".." / tmp_path.name / "seqs.fasta", classifier / "model.safetensors"):
        with pytest.raises(OutputExistsError, match="is read by this command"):
            predict_fasta(
                [fasta],
                PredictOptions.from_values(model=classifier, output=output, force=True),
            )

    assert fasta.read_bytes() == proteins_fasta.read_bytes()
    assert (classifier / "model.safetensors").read_bytes() == weights


# Tables


@pytest.fixture
def predict_from(classifier, tmp_path, read_rows):
    """Write an input of a name, predict with the classifier, and return the summary and the rows of the result."""

    def run(content, name="proteins.csv", output="p.tsv", **settings):
        (tmp_path / name).write_text(content)
        options = PredictOptions.from_values(model=classifier, output=tmp_path / output, threads=1, **settings)
        summary = predict_fasta(tmp_path / name, options)
        return summary, read_rows(tmp_path / output, "," if output.endswith(".csv") else "\t")

    return run


@pytest.fixture(scope="module")
def table(proteins):
    rows = [
        f'{name},"of mouse, {number}",{sequence},{number / 2}'
        for number, (name, sequence) in enumerate(zip("abc", proteins[:3], strict=True))
    ]
    return "\n".join(["Entry,Protein names,Sequence,Tm", *rows]) + "\n"


def test_a_table_keeps_its_rows_and_columns_and_gets_predictions(predict_from, table, proteins):
    fasta = "".join(f">{name} of mouse\n{protein}\n" for name, protein in zip("abc", proteins[:3], strict=True))

    summary, rows = predict_from(table)
    _, of_fasta = predict_from(fasta, "proteins.fasta", "f.tsv")

    assert list(rows[0]) == ["Entry", "Protein names", "Sequence", "Tm", "prediction", "p_poor", "p_rich"]
    assert [row["Protein names"] for row in rows] == ["of mouse, 0", "of mouse, 1", "of mouse, 2"]
    assert [{"id": row["Entry"], **dict(list(row.items())[4:])} for row in rows] == of_fasta
    assert (summary.num_proteins, summary.sequence_column, summary.id_column) == (3, "Sequence", "Entry")
    assert predict_from(table)[0] == replace(summary, was_done=True)


def test_the_columns_of_a_table_can_be_named_and_are_recorded(predict_from, table, proteins):
    content = "\n".join(
        f"{row},{'other' if number == 0 else protein}"
        for number, (row, protein) in enumerate(zip(table.splitlines(), proteins, strict=False))
    )

    summary, _ = predict_from(content, sequence="other", id="Protein names")

    assert (summary.sequence_column, summary.id_column) == ("other", "Protein names")
    with pytest.raises(OutputExistsError, match=r"was made with other settings \(`sequence` was other, not none"):
        predict_from(content)


def test_a_column_of_an_earlier_prediction_is_kept_and_the_new_one_gets_a_prefix(predict_from, table):
    content = table.replace("Tm", "prediction")

    summary, rows = predict_from(content)

    assert [row["prediction"] for row in rows] == ["0.0", "0.5", "1.0"]
    assert rows[0]["protembed_prediction"] in ("poor", "rich")
    expected = "the table already has a column 'prediction': the new one is 'protembed_prediction'"
    assert expected in summary.warnings


def test_predictions_are_a_csv_if_the_name_of_the_output_says_so(predict_from, table):
    _, as_tsv = predict_from(table)
    _, as_csv = predict_from(table, output="p.csv")

    assert as_csv == as_tsv


def test_a_region_of_a_table_has_its_residues_in_two_columns(predict_from, table):
    _, rows = predict_from(table, region="2-20")

    assert list(rows[0])[3:7] == ["Tm", "first_residue", "last_residue", "prediction"]
    assert {(row["first_residue"], row["last_residue"]) for row in rows} == {("2", "20")}


def test_descriptions_of_fasta_are_added_on_request(predict_from, table):
    _, rows = predict_from(">a  of mouse, 1 \nMKTAYIAKQR\n>b\nMKTAYIAKQR\n", "s.fasta", descriptions=True)

    assert [(row["id"], row["description"]) for row in rows] == [("a", "of mouse, 1"), ("b", "")]
    with pytest.raises(ConfigError, match="only FASTA has them; a table keeps all its columns"):
        predict_from(table, output="t.tsv", descriptions=True)


def test_a_table_without_sequences_is_an_error_that_leaves_nothing(predict_from, tmp_path):
    with pytest.raises(TableError, match=r"proteins.csv, line 1: no sequence column among 'id', 'protein'"):
        predict_from("id,protein\na,MKT\n")

    assert [path.name for path in tmp_path.iterdir()] == ["proteins.csv"]


def test_a_table_from_a_pipe_is_predicted_to_stdout(classifier, table, give_stdin, capfdbinary, predict_from, tmp_path):
    predict_from(table)
    give_stdin(table.encode())

    predict_fasta("-", PredictOptions.from_values(model=classifier, output="-", threads=1))

    assert capfdbinary.readouterr().out == (tmp_path / "p.tsv").read_bytes()
