import pytest

from protembed.config.predict import PredictConfig
from protembed.config.shared import ModelConfig
from protembed.errors import InputNotFoundError, OutputExistsError
from protembed.tasks.predict import predict_fasta


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
