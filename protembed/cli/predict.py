"""`protembed predict`."""

from protembed.cli.display import Display
from protembed.cli.messages import predict_summary_lines
from protembed.cli.options import ProteinPaths, configured
from protembed.config.common import ConsoleConfig
from protembed.config.finetune import PredictOptions
from protembed.io.reading import STANDARD_STREAM


@configured
def predict(fasta: ProteinPaths, options: PredictOptions, show: ConsoleConfig) -> None:
    """Apply a fine-tuned model: write a table with the prediction, or class probabilities, of each protein.

    Examples:
        protembed predict proteins.fasta -m labels.model
        protembed predict proteins.csv -m labels.model -o predictions.csv
        protembed predict proteins.fasta -m labels.model -o - | head
    """
    from protembed.finetuning.predict import predict_fasta

    display = Display(show, data_on_stdout=options.prediction.output == STANDARD_STREAM)
    display.announce_download(options.model)
    with display.progress("predicted") as progress:
        callbacks = display.callbacks(on_progress=progress.advance)
        summary = predict_fasta(fasta, options, callbacks)
    display.summary(summary, predict_summary_lines(summary, options.prediction.region))
