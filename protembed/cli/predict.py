"""`protembed predict`."""

from protembed.callbacks import Callbacks
from protembed.cli.display import Display
from protembed.cli.messages import describe_region
from protembed.cli.options import FastaPaths, configured
from protembed.config.common import ConsoleConfig
from protembed.config.finetune import PredictOptions
from protembed.io.reading import STANDARD_STREAM
from protembed.text import pluralize


@configured
def predict(fasta: FastaPaths, options: PredictOptions, show: ConsoleConfig) -> None:
    """Apply a fine-tuned model: write a table with the prediction, or class probabilities, of each protein."""
    from protembed.finetuning.predict import predict_fasta

    display = Display(show, data_on_stdout=options.prediction.output == STANDARD_STREAM)
    display.announce_download(options.model)
    with display.progress("predicted") as counter:
        summary = predict_fasta(fasta, options, Callbacks(on_progress=counter.advance))
    display.warn(summary.warnings)
    proteins = pluralize(summary.num_proteins, "protein")
    what = (
        f"predictions of {summary.target!r} for {proteins}{describe_region(summary.region, options.prediction.region)}"
    )
    display.summary(summary, f"{summary.output or 'stdout'}: {what}")
