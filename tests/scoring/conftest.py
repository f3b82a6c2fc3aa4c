import numpy as np
import pytest
import torch

from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, MASK, encode, is_amino_acid
from protembed.data.fasta import Record
from protembed.data.windows import most_central_window, window_spans
from protembed.model.formats import config_json, format_of
from protembed.scoring.displayed_scan import DisplayedScan
from protembed.scoring.protein_scan import ProteinScan
from protembed.scoring.scan_measurements import compare_with_measurements

_SHAPES = {
    "ESM-2": ESM2Shape(num_layers=2, dim=64, num_heads=4),
    "ESM-1b": ESM2Shape(num_layers=2, dim=64, num_heads=4, num_positions=1024, has_embedding_norm=True),
    "ESM-C": ESMCShape(num_layers=2, dim=64, num_heads=4),
}


class PlainModel:
    """A model of transformers, which computes one position of one protein at a time.

    Attributes:
        directory: Directory in which transformers saved it.
    """

    def __init__(self, directory, model):
        self.directory, self._model = directory, model

    @torch.no_grad()
    def log_probs(self, sequence, position, *, is_masked=True, window_residues=1000):
        """Compute the log probabilities of the 20 amino acids, (20,), at a position from 0."""
        start, stop = most_central_window(window_spans(len(sequence), window_residues), position)
        residues = encode(sequence).tolist()
        if is_masked:
            residues[position] = MASK
        tokens = [*[CLS] * (start == 0), *residues[start:stop], *[EOS] * (stop == len(residues))]
        tokens = torch.tensor([tokens])
        logits = self._model(tokens, torch.ones_like(tokens)).logits[0, position - start + (start == 0)]
        return logits[AMINO_ACID_IDS].log_softmax(0).numpy()


@pytest.fixture(scope="session", params=_SHAPES)
def plain_model(request, tmp_path_factory):
    """A random model of each architecture, made and saved by transformers."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    shape = _SHAPES[request.param]
    config = transformers.AutoConfig.for_model(**config_json(shape))
    torch.manual_seed(0)
    model = getattr(transformers, format_of(shape).class_name)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    directory = tmp_path_factory.mktemp("plain") / request.param
    model.save_pretrained(directory)
    return PlainModel(directory, model)


@pytest.fixture(scope="session")
def make_scan():
    """Return a function that makes the scan of a protein from random probabilities, with measured values or without."""

    def make(sequence=None, *, num_residues=40, id="P12345", first=1, has_measurements=False, seed=0):
        rng = np.random.default_rng(seed)
        if sequence is None:
            sequence = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), num_residues))
        record = Record(row=0, id=id, description=id, sequence=sequence, path="x.fasta", line=1)
        positions = np.flatnonzero(is_amino_acid(encode(sequence)))
        positions = positions[positions >= first - 1]
        logits = rng.normal(size=(len(positions), 20))
        log_probs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        scan = ProteinScan(record=record, positions=positions, log_probs=log_probs)
        if not has_measurements:
            return scan
        measured = scan.scores + rng.normal(size=scan.scores.shape)
        measured[scan.scores == 0] = np.nan
        measured[:3] = np.nan
        return ProteinScan(record=record, positions=positions, log_probs=log_probs, measured=measured)

    return make


@pytest.fixture(scope="session")
def add_to_page():
    """Return a function that adds a scan to a page, with its comparison if it has measured values."""

    def add(page, scan):
        comparison = None if scan.measured is None else compare_with_measurements(scan, "DMS_score")
        page.add(scan, DisplayedScan.from_scan(scan), comparison)

    return add
