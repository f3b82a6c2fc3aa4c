import pytest

from protembed.config.common import ModelConfig
from protembed.config.finetune import PredictConfig
from protembed.errors import InputNotFoundError, OutputExistsError
from protembed.finetuning.finetune import finetune_model
from protembed.finetuning.predict import predict_fasta


def test_a_model_without_a_head_is_an_error(tiny_model, proteins_fasta, tmp_path):
    with pytest.raises(InputNotFoundError, match="has no head to predict with") as caught:
        predict_fasta([proteins_fasta], ModelConfig(model=tiny_model), PredictConfig(output=tmp_path / "p.tsv"))

    assert caught.value.exit_status == 66
    assert list(tmp_path.iterdir()) == []


def test_an_existing_table_is_not_overwritten_without_force(tiny_model, proteins_fasta, tmp_path):
    (tmp_path / "p.tsv").write_text("precious")

    with pytest.raises(OutputExistsError):
        predict_fasta([proteins_fasta], ModelConfig(model=tiny_model), PredictConfig(output=tmp_path / "p.tsv"))

    assert (tmp_path / "p.tsv").read_text() == "precious"


@pytest.fixture(scope="module")
def classifier(tables, tiny_model, options, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "classifier.model"
    finetune_model(tables / "classification.csv", options(output, tiny_model, method="frozen"))
    return output


def test_inputs_and_the_model_are_not_overwritten_with_force(classifier, proteins_fasta, tmp_path):
    fasta = tmp_path / "seqs.fasta"
    fasta.write_bytes(proteins_fasta.read_bytes())
    weights = (classifier / "model.safetensors").read_bytes()

    for output in (fasta, tmp_path / ".." / tmp_path.name / "seqs.fasta", classifier / "model.safetensors"):
        with pytest.raises(OutputExistsError, match="is read by this command"):
            predict_fasta([fasta], ModelConfig(model=classifier), PredictConfig(output=output, force=True))

    assert fasta.read_bytes() == proteins_fasta.read_bytes()
    assert (classifier / "model.safetensors").read_bytes() == weights
