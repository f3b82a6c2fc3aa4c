"""`protembed predict`."""

from protembed.cli.display import Display
from protembed.cli.messages import describe_region
from protembed.cli.options import FastaPaths, configured
from protembed.config.common import ConsoleConfig, DeviceConfig, InputConfig
from protembed.config.finetune import FinetunedModelConfig, PredictConfig
from protembed.io.reading import STANDARD_STREAM
from protembed.text import pluralize


@configured
def predict(
    fasta: FastaPaths,
    model: FinetunedModelConfig,
    prediction: PredictConfig,
    reader: InputConfig,
    compute: DeviceConfig,
    show: ConsoleConfig,
) -> None:
    """Apply a fine-tuned model: write a table with the prediction, or class probabilities, of each protein."""
    from protembed.finetuning.predict import predict_fasta

    display = Display(show, data_on_stdout=prediction.output == STANDARD_STREAM)
    display.announce_download(model)
    with display.progress("predicted") as counter:
        summary = predict_fasta(fasta, model, prediction, reader=reader, compute=compute, on_protein=counter.advance)
    display.warn(summary.warnings)
    proteins = pluralize(summary.num_proteins, "protein")
    what = f"predictions of {summary.target!r} for {proteins}{describe_region(summary.region, prediction.region)}"
    display.summary(summary, f"{summary.output or 'stdout'}: {what}")
