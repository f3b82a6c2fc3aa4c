"""Labels as users write them, through the whole command: the plan, the messages and the tables."""

import csv
import json

import openpyxl
import pytest

from protembed.callbacks import Callbacks
from protembed.cli.messages import finetune_plan_lines
from protembed.config.finetune import PredictOptions
from protembed.errors import OutputExistsError, TableError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.label_cells import residue_entries
from protembed.finetuning.predict import predict_fasta

SPLITS = ("test", "valid", "train", "train", "train")
NUM_PROTEINS, NUM_TEST = 40, 8


@pytest.fixture
def finetune(proteins, tiny_model, tmp_path, read_rows, finetune_options):
    """Fine-tune on the first residues of forty proteins; return the plan and the rows of the test predictions."""

    def run(label_of, *, length=12, fasta=False, header="id,sequence,label,split", name="t", **labels):
        rows = [
            (f"p{row}", protein[:length], label_of(row, protein[:length]), SPLITS[row % 5])
            for row, protein in enumerate(proteins)
        ]
        if fasta:
            text = "".join(f">{name} set={split} Target={label}\n{protein}\n" for name, protein, label, split in rows)
        else:
            lines = [f'{identifier},{protein},"{label}",{split}\n' for identifier, protein, label, split in rows]
            text = "".join([header + "\n", *lines])
        table, plans = tmp_path / f"{name}.csv", []
        table.write_text(text)
        chosen = finetune_options(tmp_path / f"{name}.model", tiny_model, method="frozen", labels=labels)
        finetune_model(table, chosen, Callbacks(on_plan=plans.append))
        return plans[0], read_rows(tmp_path / f"{name}.model" / "test_predictions.tsv")

    return run


@pytest.mark.parametrize(
    "names", [("+", "-"), ("=x", "@x"), ("+ve", "-ve"), ("0.0", "1.0"), ("Cell membrane", "Cell wall")]
)
@pytest.mark.parametrize("fasta", [False, True])
def test_predictions_use_the_class_names_of_the_labels(finetune, names, fasta):
    _, rows = finetune(lambda row, protein: names[row // 5 % 2], fasta=fasta)

    classes = {"0", "1"} if names[0] == "0.0" else set(names)
    assert len(rows) == NUM_TEST
    assert {row["label"] for row in rows} == classes
    assert {row["prediction"] for row in rows} <= classes
    assert {name for name in rows[0] if name.startswith("p_")} == {f"p_{name}" for name in classes}


@pytest.mark.parametrize("form", [str, lambda row: " ".join(map(str, row)), lambda row: ", ".join(map(str, row))])
def test_residue_labels_in_a_list_are_predicted_as_their_classes(finetune, form):
    plan, rows = finetune(lambda row, protein: form([int(letter in "AELKM") for letter in protein]))

    assert (plan.task.name, tuple(plan.classes)) == ("residue-classification", ("0", "1"))
    entries = [residue_entries(row[name]) for row in rows for name in ("label", "prediction")]
    assert {entry for cell in entries for entry in cell} <= {"0", "1"}
    assert {len(cell) for cell in entries} == {12}


def test_numbers_of_residues_in_a_fasta_header_are_residue_values(finetune):
    plan, rows = finetune(lambda row, protein: " ".join(f"{ord(letter) / 8}" for letter in protein), fasta=True)

    assert plan.task.name == "residue-regression"
    assert all(len(row["prediction"].split(";")) == 12 for row in rows)


def test_labels_separated_by_commas_are_predicted_with_semicolons(finetune):
    cells = ["nucleus", "cytosol", "nucleus, cytosol", "cytosol, nucleus"]
    plan, rows = finetune(lambda row, protein: cells[row // 5 % 4])

    assert tuple(plan.classes) == ("cytosol", "nucleus")
    assert {row["label"] for row in rows} == {"nucleus", "cytosol", "cytosol;nucleus"}
    assert {row["prediction"] for row in rows} <= {"", "nucleus", "cytosol", "cytosol;nucleus"}


def test_label_separator_names_the_separator_of_labels(finetune):
    plan, _ = finetune(lambda row, protein: ["a/b", "b", "a"][row // 5 % 3], label_separator="/")

    assert (plan.task.name, tuple(plan.classes)) == ("multilabel", ("a", "b"))


def test_the_plan_shows_classes_with_counts_and_the_reading_of_cells(finetune):
    plan, _ = finetune(lambda row, protein: ["no", "no", "yes"][row // 5 % 3])

    assert finetune_plan_lines(plan)[-2:] == [
        "classification of 'label' (2 classes: no 30, yes 10): 24 train, 8 valid, 8 test proteins; frozen",
        "read 'no' as class no, 'yes' as class yes",
    ]


def test_the_plan_shows_the_most_frequent_of_many_classes(finetune):
    plan, _ = finetune(
        lambda row, protein: f"c{min(row // 5, 7) % 8}" if row % 5 in (0, 2, 3) else "c0", task="classification"
    )

    (line,) = [line for line in finetune_plan_lines(plan) if line.startswith("classification of")]
    assert "(8 classes: c0 19, c1 3, c2 3, c3 3, c4 3, c5 3 and 2 more)" in line


def test_many_classes_are_an_error_unless_the_task_was_named(finetune):
    def label_of(row, protein):
        return f"c{row // 2}"

    with pytest.raises(TableError, match="pass `task` classification if they are classes nonetheless"):
        finetune(label_of, split="random")
    plan, _ = finetune(label_of, split="random", task="classification")

    assert len(plan.classes) == 20
    assert any("classes have fewer than 5 training proteins" in sentence for sentence in plan.warnings)


def test_identifiers_of_a_recognised_column_are_in_every_table(finetune, tmp_path, read_rows):
    _, rows = finetune(lambda row, protein: "ab"[row // 5 % 2], header="Protein ID,sequence,label,split")
    similar = read_rows(tmp_path / "t.model" / "test_similarity.tsv")

    assert [row["id"] for row in rows] == [row["id"] for row in similar] == [f"p{row}" for row in range(0, 40, 5)]


def test_rows_without_identifiers_are_numbered_and_noted(finetune, tmp_path):
    plan, rows = finetune(lambda row, protein: "ab"[row // 5 % 2], header="my key,sequence,label,split")
    named, named_rows = finetune(
        lambda row, protein: "ab"[row // 5 % 2], header="my key,sequence,label,split", name="named", id="my key"
    )

    note = "no identifier column: rows are numbered from 1; --id names the column"
    assert note in plan.notes and note not in named.notes
    assert note in json.loads((tmp_path / "t.model" / "metrics.json").read_text())["notes"]
    assert (rows[1]["id"], named_rows[1]["id"]) == ("6", "p5")


def test_a_warning_about_labels_is_stored_with_the_result(finetune, tmp_path):
    plan, _ = finetune(lambda row, protein: ["Yes", "yes", "no"][row // 5 % 3])

    (sentence,) = [sentence for sentence in plan.warnings if "nearly the same" in sentence]
    assert sentence.startswith("'Yes' (15) and 'yes' (15) are different classes")
    assert sentence in json.loads((tmp_path / "t.model" / "metrics.json").read_text())["notes"]


def test_the_result_of_other_label_options_is_not_overwritten(finetune):
    finetune(lambda row, protein: ["a;b", "b", "a"][row // 5 % 3])

    with pytest.raises(OutputExistsError, match="was made with other settings"):
        finetune(lambda row, protein: ["a;b", "b", "a"][row // 5 % 3], label_separator=";")


def test_predict_uses_the_class_names_of_the_table(finetune, tmp_path, proteins, read_rows):
    finetune(lambda row, protein: ["+ve", "-ve"][row // 5 % 2])
    (tmp_path / "few.fasta").write_text("".join(f">{row}\n{protein}\n" for row, protein in enumerate(proteins[:4])))

    predict_fasta(
        [tmp_path / "few.fasta"],
        PredictOptions.from_values(model=tmp_path / "t.model", output=tmp_path / "few.tsv"),
    )

    assert {row["prediction"] for row in read_rows(tmp_path / "few.tsv")} <= {"+ve", "-ve"}


# Tables of spreadsheets


def write_table(path, proteins, label_of, *, separator=",", titles=""):
    rows = [
        separator.join([f"p{row}", protein[:12], label_of(row), SPLITS[row % 5]])
        for row, protein in enumerate(proteins)
    ]
    path.write_text(titles + separator.join(["Protein ID", "Sequence", "Tm", "Set"]) + "\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def finetune_table(tiny_model, tmp_path, finetune_options):
    """Fine-tune on a table; return the plan."""

    def run(table, **labels):
        plans = []
        options = finetune_options(tmp_path / f"{table.stem}.model", tiny_model, method="frozen", labels=labels)
        finetune_model(table, options, Callbacks(on_plan=plans.append))
        return plans[0]

    return run


def test_the_same_table_in_two_forms_gives_the_same_model(finetune_table, proteins, tmp_path):
    commas = write_table(
        tmp_path / "commas.csv",
        proteins,
        lambda row: f"{40 + row / 4}".replace(".", ","),
        separator=";",
        titles="Table S1: melting points;;;\n;;;\n",
    )
    plain = write_table(tmp_path / "plain.csv", proteins, lambda row: f"{40 + row / 4}")
    book = openpyxl.Workbook()
    for row in csv.reader(plain.read_text().splitlines()):
        book.active.append([float(cell) if cell[:1].isdigit() else cell for cell in row])
    book.save(tmp_path / "book.xlsx")

    plans = [finetune_table(table, target="Tm") for table in (plain, commas, tmp_path / "book.xlsx")]

    assert [list(plan.notes) for plan in plans] == [
        [],
        ["read the table with semicolons, its header in line 3, decimal commas"],
        [],
    ]
    assert plans[1].reading.startswith("read '40,0' as value 40, '40,25' as value 40.25")
    heads = [(tmp_path / f"{name}.model" / "head.safetensors").read_bytes() for name in ("plain", "commas", "book")]
    assert heads[0] == heads[1] == heads[2]


def test_faults_of_cells_and_of_labels_are_reported_together_and_skipped_on_request(
    finetune_table, proteins, tmp_path, read_rows
):
    table = write_table(tmp_path / "t.csv", proteins, lambda row: {7: "", 9: "abc"}.get(row, f"{40 + row / 4}"))
    lines = table.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace(lines[4].split(",")[1], "")
    table.write_text("".join(lines))

    with pytest.raises(TableError) as caught:
        finetune_table(table, target="Tm")
    assert str(caught.value).startswith(
        f"{table}: 3 faults: line 5: row 'p3' has no sequence; line 9: row 'p7' has no label; line 11: row 'p9' has "
        "the label 'abc', which is not a finite number up to 1e18; complete or remove it, or pass `on_missing` skip"
    )
    assert not (tmp_path / "t.model").exists()

    table.write_text("".join(lines).replace(",abc,", ",#N/A,"))
    finetune_table(table, target="Tm", on_missing="skip")
    assert read_rows(tmp_path / "t.model" / "failed.tsv") == [
        {"id": "p3", "line": "5", "reason": "no sequence"},
        {"id": "p7", "line": "9", "reason": "no label"},
        {"id": "p9", "line": "11", "reason": "no label but '#N/A'"},
    ]
    metrics = json.loads((tmp_path / "t.model" / "metrics.json").read_text())
    assert (metrics["num_refused"], metrics["identity"]["on_missing"]) == (3, "skip")


def test_options_that_earlier_versions_lacked_are_recorded_only_if_they_are_set(finetune_table, proteins, tmp_path):
    finetune_table(write_table(tmp_path / "t.csv", proteins, str), target="Tm")

    identity = json.loads((tmp_path / "t.model" / "metrics.json").read_text())["identity"]
    assert not {"on_missing", "test_set"} & identity.keys()
