import gzip
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import protembed
from protembed.cli.app import app
from protembed.cli.messages import model_lines
from protembed.config.common import DEFAULT_MODEL
from protembed.data.fasta import read_fasta
from protembed.model.catalog import list_models


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shell(command, **options):
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, **options)


@pytest.fixture
def embed_arguments(proteins_fasta, tiny_model, tmp_path):
    return ["embed", proteins_fasta, "-m", tiny_model, "-o", tmp_path / "emb.npy"]


def test_version_is_a_bare_number():
    assert invoke("--version").stdout == f"{protembed.__version__}\n"


def test_messages_go_to_stderr_and_data_to_files(embed_arguments):
    result = invoke(*embed_arguments)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "40 proteins" in result.stderr


def test_quiet_prints_only_warnings(embed_arguments):
    result = invoke(*embed_arguments, "--quiet")

    assert result.stdout == ""
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())


def test_json_prints_the_summary_on_stdout(embed_arguments):
    summary = json.loads(invoke(*embed_arguments, "--json").stdout)

    assert summary["num_proteins"] == 40
    assert summary["output"].endswith("emb.npy")


def test_unusual_input_is_warned_of(embed_arguments):
    assert "warning: non-standard residues: " in invoke(*embed_arguments).stderr


def test_pretraining_fine_tuning_and_prediction_work_in_sequence(proteins_fasta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = ["id,sequence,label,split"]
    for record in read_fasta([proteins_fasta]):
        split = "test" if record.row % 3 == 0 else "train"
        table.append(f"{record.id},{record.sequence},{len(record.sequence) % 2},{split}")
    (tmp_path / "parity.csv").write_text("\n".join(table))

    trained = invoke("pretrain", proteins_fasta, "--size", "t4_1M", "--steps", "2", "--batch-tokens", "1024")
    assert trained.exit_code == 0, trained.output
    assert "unigram model" in trained.stderr
    assert invoke("embed", proteins_fasta, "-m", "proteins.run").exit_code == 0
    assert invoke("finetune", "parity.csv", "-m", "proteins.run", "--epochs", "1").exit_code == 0
    frozen = invoke("finetune", "parity.csv", "-m", "proteins.run", "--method", "frozen", "-o", "frozen.model")
    assert "accuracy" in frozen.stderr and "majority" in frozen.stderr
    assert invoke("predict", proteins_fasta, "-m", "parity.model").exit_code == 0
    assert invoke("predict", proteins_fasta, "-m", "parity.model").stderr.count("already up to date") == 1
    assert invoke("inspect-attention", proteins_fasta, "-m", "parity.model", "--save-maps", "1").exit_code == 0

    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"proteins.run", "proteins.npy", "parity.model", "proteins.predictions.tsv", "proteins.attention"}


LABELS = {
    "classification": lambda sequence: "long" if len(sequence) > 150 else "short",
    "multilabel": lambda sequence: ";".join(["any", *(letter for letter in "WC" if letter in sequence)]),
    "regression": lambda sequence: f"{sequence.count('L') / len(sequence):.4f}",
    "residue-classification": lambda sequence: "".join("H" if letter in "AELK" else "C" for letter in sequence),
    "residue-regression": lambda sequence: " ".join(
        "nan" if letter == "G" else str(ord(letter)) for letter in sequence
    ),
}


@pytest.mark.parametrize("task", LABELS)
def test_every_kind_of_task_is_inferred_trained_and_predicted(task, proteins_fasta, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = list(read_fasta([proteins_fasta]))
    lines = [f"{one.sequence}\t{LABELS[task](one.sequence)}\t{'train' if one.row % 3 else 'test'}" for one in records]
    (tmp_path / "labels.tsv").write_bytes(gzip.compress("\n".join(["sequence\ttarget\tsplit", *lines]).encode()))

    learned = invoke("finetune", "labels.tsv", "-m", tiny_model, "--epochs", "1", "--skip-random-baseline", "--json")
    predicted = invoke("predict", proteins_fasta, "-m", "labels.model", "-o", "-")

    assert (learned.exit_code, predicted.exit_code) == (0, 0), learned.stderr
    assert f" {task} of 'target'" in learned.stderr
    assert "fine-tuned" in json.loads(learned.stdout)["comparison"]["predictors"]
    header, *rows = predicted.stdout.splitlines()
    assert header.split("\t")[:2] == ["id", "prediction"]
    assert [row.split("\t")[0] for row in rows] == [record.id for record in records]


def test_stdin_to_stdout_in_a_pipeline(proteins_fasta, tiny_model):
    protembed_command = f"{sys.executable} -m protembed"

    npy = shell(f"gzip -c {proteins_fasta} | {protembed_command} embed - -o - -m {tiny_model} --quiet", check=True)
    tsv = shell(f"{protembed_command} embed - -o - -m {tiny_model} --format tsv < {proteins_fasta}", check=True)

    rows = np.load(io.BytesIO(npy.stdout))
    lines = tsv.stdout.decode().splitlines()[1:]
    assert rows.shape == (40, 32)
    text = np.array([line.split("\t")[1:] for line in lines], dtype=np.float32)
    np.testing.assert_allclose(rows, text, rtol=0, atol=1e-6)


def test_a_result_is_checked_against_its_input(embed_arguments, proteins_fasta, tiny_model, tmp_path):
    invoke(*embed_arguments)
    check = ["check", tmp_path / "emb.npy", proteins_fasta, "-m", tiny_model]

    true = invoke(*check)
    assert true.exit_code == 0
    assert "emb.npy: complete and consistent with the input, 40 proteins; 20 computed again, largest " in true.stderr
    assert json.loads(invoke(*check, "--sample-size", 3, "--json").stdout)["num_recomputed"] == 3

    (tmp_path / "emb.npy").write_bytes((tmp_path / "emb.npy").read_bytes()[:-4] + b"abcd")
    false = invoke(*check)
    assert false.exit_code == 1
    assert false.stderr.count("\n") == 1
    assert "emb.npy is not verified: its hash differs from the one in its meta file" in false.stderr


@pytest.fixture
def variants(proteins, tmp_path):
    """Three variants of a real protein, and the wild type."""
    protein, path = proteins[3], tmp_path / "variants.csv"
    mutants = [f"{protein[place]}{place + 1}W" for place in (1, 5, 8)]
    path.write_text("mutant,sequence\n" + "".join(f"{mutant},{protein}\n" for mutant in [*mutants, "WT"]))
    return path


def test_variants_are_scored_into_a_file_and_to_stdout(variants, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = invoke("score", "variants.csv", "-m", tiny_model)
    printed = invoke("score", "variants.csv", "-m", tiny_model, "-o", "-", "--json")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "variants.scores.tsv: masked-marginals of 4 variants of 1 wild type, mutated at 3 positions" in result.stderr
    assert printed.stdout == (tmp_path / "variants.scores.tsv").read_text()
    summary = json.loads(printed.stderr.splitlines()[-1])
    assert summary["num_variants"] == 4 and "position i alone masked" in summary["formula"]
    assert invoke("score", "variants.csv", "-m", tiny_model).stderr.count("already up to date") == 1
    assert invoke("score", "variants.csv", "-m", tiny_model, "--method", "wildtype-marginals").exit_code == 1
    assert invoke("score", "variants.csv", "-m", tiny_model, "--force", "--quiet").output == ""


def test_sequences_are_scored_and_reported_in_a_line(small_fasta, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.fasta").write_text(small_fasta.read_text() * 2)
    num_proteins = 2 * small_fasta.read_text().count(">")

    result = invoke("score", "twice.fasta", "-m", tiny_model, "--json")

    assert f"twice.scores.tsv: pseudo_log_likelihood of {num_proteins} proteins (" in result.stderr
    assert f", {num_proteins // 2} of them with the sequence of an earlier one" in result.stderr
    assert "sort it by 'per_residue': higher is better" in result.stderr
    assert json.loads(result.stdout)["num_distinct"] == num_proteins // 2


def test_probabilities_of_positions_are_written_to_stdout_and_their_summary_to_stderr(tiny_model, tmp_path):
    (tmp_path / "a.fasta").write_text(">a\nMKT\n")

    result = invoke("score", tmp_path / "a.fasta", "-m", tiny_model, "--positions", "-", "--json")

    assert result.stdout.startswith("# log_probability: ") and len(result.stdout.splitlines()) == 5
    assert json.loads(result.stderr.splitlines()[-1])["kind"] == "positions"


def test_two_models_score_with_a_column_each_and_their_mean(variants, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("score", variants, "-m", tiny_model, "-m", DEFAULT_MODEL, "-o", "-", "--json")

    header = result.stdout.splitlines()[1].split("\t")
    assert header[-4:] == ["num_mutations", "score", f"score_{tiny_model.name}", f"score_{DEFAULT_MODEL}"]
    summary = json.loads(result.stderr.splitlines()[-1])
    assert summary["model"] == summary["models"] == [tiny_model.name, DEFAULT_MODEL]
    shown = invoke("score", variants, "-m", tiny_model, "-m", DEFAULT_MODEL)
    assert "masked-marginals of 4 variants of 1 wild type by 2 models and their mean" in shown.stderr
    again = invoke("score", variants, "-m", tiny_model, "-m", tiny_model)
    assert again.exit_code == 2 and "--model is" in again.stderr and "the same model is given twice" in again.stderr


def test_score_table_begins_with_the_formula(variants, tiny_model):
    for method in ("masked-marginals", "wildtype-marginals", "pseudo-perplexity"):
        lines = invoke(
            "score", variants, "-m", tiny_model, "-o", "-", "--method", method, "--quiet"
        ).stdout.splitlines()

        assert lines[0].startswith(f"# score: {method}, ") and "the softmax over the 20 amino acids" in lines[0]
        assert lines[1] == "mutant\tsequence\tnum_mutations\tscore"
        assert [line.startswith("#") for line in lines[1:]] == [False] * 5


def test_score_help_gives_every_formula():
    text = " ".join(invoke("score", "--help").stdout.replace("│", " ").split())

    for part in ("sum over", "PLL(mutated sequence)", "renormalised"):
        assert part in text


def test_check_needs_the_model_unless_the_sample_is_empty(embed_arguments, proteins_fasta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke(*embed_arguments)

    result = invoke("check", tmp_path / "emb.npy", proteins_fasta, "--quiet")

    assert result.exit_code == 1
    assert "its model tiny, which is needed to compute a sample again, is not available" in result.stderr
    assert invoke("check", tmp_path / "emb.npy", proteins_fasta, "--sample-size", "0").exit_code == 0


def test_embed_reports_how_long_proteins_were_treated(embed_arguments, tmp_path):
    windowed = invoke(*embed_arguments, "--window-residues", 64)
    assert windowed.exit_code == 0
    assert "33 proteins longer than 64 residues: embedded in overlapping windows" in windowed.stderr

    refused = invoke(*embed_arguments, "--window-residues", 64, "--long-proteins", "error", "--force")
    assert refused.exit_code == 65
    assert "more than the window of 64; choose --long-proteins window, truncate or skip" in refused.stderr

    left_out = invoke(*embed_arguments, "--window-residues", 64, "--long-proteins", "skip", "--force")
    assert left_out.exit_code == 0
    assert "warning: 33 records left out" in left_out.stderr
    assert (tmp_path / "emb.failed.tsv").read_text().count("\n") == 34


def test_embed_dry_run_prints_the_estimate_and_writes_nothing(embed_arguments, tmp_path):
    result = invoke(*embed_arguments, "--window-residues", 64, "--pooling", "mean,std", "--dry-run", "--json")

    plan = json.loads(result.stdout)
    assert (plan["num_proteins"], plan["num_windowed"], plan["dim"]) == (40, 33, 64)
    assert "40 proteins" in result.stderr and "64 dimensions" in result.stderr
    assert "33 proteins longer than a window" in result.stderr
    assert "estimated: " in result.stderr and "of memory, " in result.stderr and "on disk" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_embed_with_a_report_prints_what_to_look_at_and_where(small_fasta, predictor, tmp_path):
    arguments = ("embed", small_fasta, "-m", predictor, "-o", tmp_path / "emb.npy", "--report", "--json")

    result, again = invoke(*arguments), invoke(*arguments)

    page = tmp_path / "emb.report.html"
    assert result.exit_code == again.exit_code == 0
    for run in (result, again):
        assert f"{page}: nothing speaks against these vectors" in run.stderr
        assert f"next: open {page} in a browser" in run.stderr
        assert json.loads(run.stdout)["report"] == str(page) in json.loads(run.stdout)["files"]


def test_report_has_no_effect_in_a_dry_run(embed_arguments, tmp_path):
    result = invoke(*embed_arguments, "--report", "--dry-run")

    assert "--report has no effect: it needs a command without --dry-run" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_pretrain_dry_run_prints_the_plan_and_writes_nothing(proteins_fasta, tmp_path):
    result = invoke(
        *("pretrain", proteins_fasta, "-o", tmp_path / "a.run", "--size", "t4_1M", "--steps", 9),
        *("--crop-residues", 32, "--batch-tokens", 128, "--dry-run", "--json"),
    )

    assert result.exit_code == 0
    assert json.loads(result.stdout)["num_steps"] == 9
    assert "estimated: 0 min" in result.stderr
    assert "longer than a crop" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_pretrain_ends_with_a_table_of_amino_acids(proteins_fasta, tmp_path):
    result = invoke(
        *("pretrain", proteins_fasta, "-o", tmp_path / "a.run", "--size", "t4_1M", "--steps", 1),
        *("--crop-residues", 32, "--batch-tokens", 128, "--json"),
    )

    assert result.exit_code == 0
    assert "top confusion" in result.stderr
    summary = json.loads(result.stdout)
    assert [figures["name"] for figures in summary["amino_acids"]] == list("LAGVSERTIDPKQNFYMHWC")
    assert summary["references"].keys() == {"unigram", "bigram"}


@pytest.mark.parametrize("command", ["pretrain", "finetune", "inspect-attention"])
def test_force_does_not_replace_a_folder_that_holds_the_input(command, proteins_fasta, tiny_model, tmp_path):
    input_file = tmp_path / "result" / "mine.fasta"
    input_file.parent.mkdir()
    input_file.write_bytes(proteins_fasta.read_bytes())
    (input_file.parent / "heads.tsv").touch()
    model = ["--init-from", tiny_model] if command == "pretrain" else ["-m", tiny_model]
    (input_file.parent / "metrics.json").touch()

    refused = invoke(command, input_file, "-o", input_file.parent, "--force", *model)

    assert refused.exit_code == 1
    assert "mine.fasta, which is read by this command" in refused.stderr
    assert input_file.read_bytes() == proteins_fasta.read_bytes()


@pytest.mark.slow
@pytest.mark.promise(20)
def test_closed_stderr_does_not_end_a_run(proteins_fasta, tiny_model, tmp_path):
    command = f"{sys.executable} -m protembed embed {proteins_fasta} -m {tiny_model} -o emb.npy"

    for to in ("2> >(head -c 1 > /dev/null)", "2> /dev/full"):
        assert shell(f"{command} --force {to}", cwd=tmp_path).returncode == 0
        assert np.load(tmp_path / "emb.npy").shape == (40, 32)


def test_models_are_listed_on_stdout_as_text_and_as_json():
    text, summary = invoke("models"), json.loads(invoke("models", "--json").stdout)

    names = [model["name"] for model in summary["models"]]
    assert DEFAULT_MODEL in names and "esm2_t33_650M" in names
    assert all(name in text.stdout for name in names if "esm1v" not in name)
    assert "protembed_t6_8M is bundled, and used if none is named: perplexity 15.2" in text.stdout
    rows = [line.split() for line in text.stdout.splitlines()]
    assert "esm2_t12_35M 33.5 M 480 165 MB 83 MB 1,022 MIT".split() in rows
    assert "esm2_t12_35M 11.65 28.8 % 0.32 most work on a CPU".split() in rows
    assert "esm1v_t33_650M_1-5 35.3 % variants, mean of all five".split() in rows  # one row for five models
    (largest,) = (model for model in summary["models"] if model["name"] == "esm2_t48_15B")
    assert f"`{largest['how_to_get']}`" in text.stdout
    assert "use an ESM-2 or ESM-C model, which is downloaded once: --model esm2_t12_35M" in text.stderr
    assert invoke("models", "--quiet").stderr == ""


def test_a_model_for_each_purpose_is_recommended_for_this_computer():
    text, summary = invoke("models", "--recommend"), json.loads(invoke("models", "--recommend", "--json").stdout)

    header, first, *others = text.stdout.splitlines()
    assert header.split() == ["for", "--model", "memory", "time", "because"]
    assert first.startswith("trials without network") and DEFAULT_MODEL in first
    assert len(others) == len(summary["models"]) - 1
    assert "this computer: " in text.stderr and "`protembed models` lists all" in text.stderr


def test_the_tables_of_models_fit_80_columns():
    lines = list(model_lines(list_models(), 80))

    assert all(len(line) <= 80 for line in lines[: lines.index("", lines.index("") + 1)])
    assert [line.split()[0] for line in lines if line].count("esmc_300m") == 2  # no table is continued below itself


def test_commands_without_a_model_use_the_bundled_one(proteins_fasta, tmp_path):
    output = tmp_path / "emb.npy"

    result = invoke("embed", proteins_fasta, "-o", output)

    assert result.exit_code == 0
    assert f"using the bundled model {DEFAULT_MODEL} (small); `protembed models` lists larger ones" in result.stderr
    assert json.loads((tmp_path / "emb.meta.json").read_text())["model_name"] == DEFAULT_MODEL
    assert "already up to date" in invoke("embed", proteins_fasta, "-o", output, "-m", DEFAULT_MODEL).stderr


def test_errors_without_a_named_model_are_one_line(tmp_path):
    assert invoke("embed", tmp_path / "missing.fasta").stderr.count("\n") == 1


def test_predict_help_shows_no_default_model():
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", invoke("predict", "--help").stdout).split())

    assert "A fine-tuned model (required)" in text
    assert "Default: protembed_t6_8M" not in text


def test_predict_warns_of_longer_proteins_once_on_stderr_and_in_its_summary(
    small_fasta, predictor, proteins_fasta, tmp_path
):
    result = invoke("predict", proteins_fasta, "-m", predictor, "-o", tmp_path / "p.tsv", "--json")
    cut = invoke("predict", proteins_fasta, "-m", predictor, "-o", tmp_path / "cut.tsv", "--region", "-40")

    assert (result.exit_code, cut.exit_code) == (0, 0)
    longer = [sentence for sentence in json.loads(result.stdout)["warnings"] if "longer than the longest" in sentence]
    assert len(longer) == 1
    assert "of 40 proteins" in longer[0]
    assert longer[0].endswith(
        "(40 residues); it was never tested on such proteins, but on fragments of one length: select them with --region"
    ) or longer[0].endswith("use --region 1-40")
    assert result.stderr.count(longer[0]) == 1
    assert "longer than the longest" not in cut.stderr
    assert "for 40 proteins, residues 1-40 of each\n" in cut.stderr


def test_predict_with_the_bundled_model_explains_that_it_has_no_head(proteins_fasta, tmp_path):
    result = invoke("predict", proteins_fasta, "-o", tmp_path / "p.tsv")

    assert result.exit_code == 66
    assert "has no head to predict with; fine-tune one with `protembed finetune" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "closed", "status", "sentence"),
    [
        ("embed - -o emb.npy", "<&-", 65, "the file is empty"),
        ("embed {fasta} -m {model} -o - --format tsv --quiet", ">&-", 1, "cannot write <stdout>"),
        ("embed {fasta} -m {model} -o emb.npy --quiet", "<&- >&-", 0, ""),
    ],
)
@pytest.mark.promise(20)
def test_closed_stdin_is_empty_and_closed_stdout_an_error(
    proteins_fasta, tiny_model, tmp_path, arguments, closed, status, sentence
):
    words = arguments.format(fasta=proteins_fasta, model=tiny_model)
    command = f"{sys.executable} -m protembed {words} {closed}"
    result = subprocess.run(command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)

    assert result.returncode == status
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_inspect_attention_prints_its_estimate(proteins_fasta, tiny_model, tmp_path):
    arguments = ["inspect-attention", proteins_fasta, "-m", tiny_model, "-o", tmp_path / "out", "--save-maps", "1"]

    result = invoke(*arguments, "--json")

    assert "of memory, " in result.stderr.splitlines()[0]
    plan = json.loads(result.stdout)["plan"]
    assert plan["memory_bytes"] > plan["disk_bytes"] > 0
    assert plan["num_proteins"] == json.loads(result.stdout)["num_proteins"]
