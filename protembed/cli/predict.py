"""`protembed predict`."""

from protembed.cli.display import Display
from protembed.cli.messages import predict_summary_lines
from protembed.cli.next_steps import after_predict
from protembed.cli.options import ProteinPaths, configured
from protembed.config.finetune import PredictOptions


@configured
def predict(fasta: ProteinPaths, options: PredictOptions, display: Display) -> None:
    """Apply a fine-tuned model: write a table with the prediction, or class probabilities, of each protein.

    Examples:
        protembed predict proteins.fasta -m labels.model
        protembed predict proteins.csv -m labels.model -o predictions.csv
        protembed predict proteins.fasta -m labels.model -o - | head
    """
    from protembed.finetuning.predict import predict_fasta

    display.announce_download()
    with display.progress("predicted") as progress:
        callbacks = display.callbacks(on_progress=progress.advance)
        summary = predict_fasta(fasta, options, callbacks)
    lines = predict_summary_lines(summary, options.prediction.region)
    display.summary(summary, lines, next_step=after_predict(summary, options))
