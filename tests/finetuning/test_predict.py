import pytest

from protembed.config.common import ModelConfig
from protembed.config.finetune import PredictConfig
from protembed.errors import InputNotFoundError, OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta


def test_a_model_without_a_head_cannot_predict(tiny_model, proteins_fasta, tmp_path):
    with pytest.raises(InputNotFoundError, match="has no head to predict with") as caught:
        predict_fasta([proteins_fasta], ModelConfig(model=tiny_model), PredictConfig(output=tmp_path / "p.tsv"))

    assert caught.value.exit_status == 66
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_not_overwritten_unasked(tiny_model, proteins_fasta, tmp_path):
    (tmp_path / "p.tsv").write_text("precious")

    with pytest.raises(OutputExistsError):
        predict_fasta([proteins_fasta], ModelConfig(model=tiny_model), PredictConfig(output=tmp_path / "p.tsv"))

    assert (tmp_path / "p.tsv").read_text() == "precious"


@pytest.fixture(scope="module")
def signal_model(tables, tiny_model, options, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "rich.model"
    finetune_model(tables / "classification.csv", options(output, tiny_model, method="frozen"))
    return output


def test_what_is_read_is_never_written_over(signal_model, proteins_fasta, tmp_path):
    fasta = tmp_path / "seqs.fasta"
    fasta.write_bytes(proteins_fasta.read_bytes())
    weights = (signal_model / "model.safetensors").read_bytes()

    for output in (fasta, tmp_path / ".." / tmp_path.name / "seqs.fasta", signal_model / "model.safetensors"):
        with pytest.raises(OutputExistsError, match="is read by this command"):
            predict_fasta([fasta], ModelConfig(model=signal_model), PredictConfig(output=output, force=True))

    assert fasta.read_bytes() == proteins_fasta.read_bytes()
    assert (signal_model / "model.safetensors").read_bytes() == weights
