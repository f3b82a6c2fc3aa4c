import pytest
import torch

from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import AMINO_ACID_IDS, CLS, EOS, MASK, encode
from protembed.data.windows import most_central_window, window_spans
from protembed.model.formats import config_json, format_of

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
