import os
import platform
from pathlib import Path

import pytest
import torch

from protembed.config.model_sizes import SIZES, EncoderShape
from protembed.data.alphabet import encode
from protembed.data.batching import cut, pack
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.finetuning.labels import LabelledProtein, LabelTable
from protembed.model.checkpoint import new_checkpoint, save_checkpoint
from protembed.model.esm2 import Encoder, initialise
from protembed.pretraining.corpus import Corpus, corpus_writer

# As every command sets it before MKL's first product; some tests multiply before that, and compare with commands.
os.environ.setdefault("MKL_CBWR", "AUTO")

FIXTURES = Path(__file__).parent / "data" / "fixtures"
TINY = EncoderShape(num_layers=2, dim=32, num_heads=4)


def pytest_report_header():
    """Name the processor, on which the last bit of a number depends."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"processor: {model}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Several threads slow small models down, and very much so on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def proteins_fasta():
    """Forty real proteins; four of them hold an X or a B."""
    return FIXTURES / "proteins.fasta"


@pytest.fixture(scope="session")
def proteins(proteins_fasta):
    """The sequences of `proteins_fasta`."""
    return [record.sequence for record in read_fasta([proteins_fasta])]


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory):
    """Build a corpus of the sequences given."""

    def make(sequences, name="corpus"):
        directory = tmp_path_factory.mktemp("corpora") / name
        with corpus_writer(directory, name=name) as writer:
            for sequence in sequences:
                writer.add(sequence)
        return Corpus(directory)

    return make


@pytest.fixture(scope="session")
def corpus(make_corpus, proteins):
    """The corpus of `proteins_fasta`."""
    return make_corpus(proteins)


@pytest.fixture(scope="session")
def make_table(proteins):
    """Label the forty proteins, or so many residues of each: 24 for training, 8 for validation, 8 for the test."""

    def make(label_of, num_residues=None):
        names = ["train"] * 24 + ["valid"] * 8 + ["test"] * 8
        sequences = [protein[:num_residues] for protein in proteins]
        labelled = [
            LabelledProtein(id=f"p{line}", sequence=sequence, label=label_of(sequence), split=split, line=line)
            for line, (sequence, split) in enumerate(zip(sequences, names, strict=True), start=2)
        ]
        parts = {split: [one for one in labelled if one.split == split] for split in ("train", "valid", "test")}
        return LabelTable(path="labels.csv", target="label", parts=parts)

    return make


@pytest.fixture(scope="session")
def whole_batch():
    """Pack whole proteins into one batch."""

    def make(sequences):
        residues = [encode(sequence) for sequence in sequences]
        return pack([cut(protein, 0, len(protein)) for protein in residues], range(len(residues)))

    return make


@pytest.fixture
def tiny_encoder():
    encoder = Encoder(TINY)
    initialise(encoder, "gaussian", torch.Generator().manual_seed(0))
    return encoder.eval()


@pytest.fixture
def tiny_checkpoint():
    return new_checkpoint(TINY, "gaussian", seed=0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The directory of a tiny model."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(new_checkpoint(TINY, "gaussian", seed=0), directory, "# tiny\n")
    return directory


@pytest.fixture(scope="session")
def make_esm():
    """Make a random EsmForMaskedLM of transformers, the oracle; its biases and LayerNorms are random too."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()

    def make(shape, **changes):
        fields = {
            "vocab_size": 33,
            "hidden_size": shape.dim,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "intermediate_size": 4 * shape.dim,
            "mask_token_id": 32,
            "pad_token_id": 1,
            "token_dropout": True,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
            "layer_norm_eps": 1e-5,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "attn_implementation": "eager",
        }
        model = transformers.EsmForMaskedLM(transformers.EsmConfig(**fields | changes)).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
            model.esm.contact_head.regression.weight.mul_(100)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_esm(make_esm):
    return make_esm(TINY)


@pytest.fixture(scope="session", params=["t6_8M", "t12_35M"])
def esm2(request, make_esm, tmp_path_factory):
    """A model of transformers in a published shape, and its directory."""
    model = make_esm(SIZES[request.param])
    directory = tmp_path_factory.mktemp("oracles") / request.param
    model.save_pretrained(directory)
    return model, directory


@pytest.fixture(scope="session")
def pool():
    """Two workers; no result depends on how many there are."""
    with WorkerPool(2) as pool:
        yield pool
