import csv
import io
import os
import platform
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser_pages import browser as browser, open_in_browser as open_in_browser

from protembed.config.common import TASKS, DeviceConfig, ModelConfig
from protembed.config.finetune import FinetuneConfig, FinetuneOptions, LabelTableConfig
from protembed.config.model_sizes import SIZES, ESM2Shape, ESMCShape
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import MASK, encode
from protembed.data.batching import MaskedBatch, concatenate, make_crop
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool, worker_pool
from protembed.errors import DataError
from protembed.finetuning.labels import LabelledProtein, LabelledTable, SplitTable, read_labels
from protembed.inference.engine import Engine
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.encoder import initialise
from protembed.model.esm2 import ESM2Encoder
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.corpus import Corpus, corpus_writer
from protembed.training.objective import MaskedLM

# As every command sets it before MKL's first product; some tests multiply before that, and compare with commands.
os.environ.setdefault("MKL_CBWR", "AUTO")

_LONGEST = ("test_readme.py", "test_notebook.py")
FIXTURES = Path(__file__).parent / "data" / "fixtures"
_SIZE = {"num_layers": 2, "dim": 32, "num_heads": 4}
TINY = ESM2Shape(**_SIZE)
FAMILY = {
    "ESM-2": TINY,
    "ESM-1b": ESM2Shape(**_SIZE, num_positions=1024, has_embedding_norm=True),
    "ESM-C": ESMCShape(**_SIZE),
}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Share the whole suite among the cores; a part of it would end before the workers have started."""
    options = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    is_interactive = options.usepdb or options.trace or options.capture == "no"
    is_chosen = options.numprocesses is not None or options.dist != "no"
    is_whole = any(Path(__file__).is_relative_to(Path(argument).resolve()) for argument in config.args)
    if is_interactive or is_chosen or options.keyword or not is_whole:
        return
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_cores > 1:
        options.numprocesses = min(num_cores, 8)  # each imports torch, which takes half a gigabyte
        options.dist = "worksteal"  # each begins with tests that follow one another and share fixtures


def pytest_collection_modifyitems(items):
    """Run the commands of pages and the notebook first: begun last, they would leave the other cores without work."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


def pytest_report_header():
    """Name the processor, on which the last bit of a number depends."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"processor: {model}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


@pytest.fixture(scope="session", autouse=True)
def default_signals():
    """Restore signals that `nohup` or a background job ignores: tests send them to themselves and to processes."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


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

    def make(sequences, name="corpus", **block_sizes):
        directory = tmp_path_factory.mktemp("corpora") / name
        with corpus_writer(directory, name=name, **block_sizes) as writer:
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
    """Label the forty proteins, or their first residues: 24 for training, 8 for validation, 8 for testing."""

    def make(label_of, num_residues=None):
        names = ["train"] * 24 + ["valid"] * 8 + ["test"] * 8
        sequences = [protein[:num_residues] for protein in proteins]
        labelled = [
            LabelledProtein(id=f"p{line}", sequence=sequence, label=label_of(sequence), split=split, line=line)
            for line, (sequence, split) in enumerate(zip(sequences, names, strict=True), start=2)
        ]
        splits = {
            split: [protein for protein in labelled if protein.split == split] for split in ("train", "valid", "test")
        }
        return SplitTable(path="labels.csv", target="label", splits=splits)

    return make


@pytest.fixture(scope="session")
def whole_batch():
    """Concatenate whole proteins into one batch."""

    def make(sequences):
        residues = [encode(sequence) for sequence in sequences]
        return concatenate([make_crop(protein, 0, len(protein)) for protein in residues], range(len(residues)))

    return make


@pytest.fixture
def tiny_encoder():
    encoder = ESM2Encoder(TINY)
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


@pytest.fixture(scope="session", params=FAMILY)
def family_shape(request):
    """A tiny shape of each architecture."""
    return FAMILY[request.param]


@pytest.fixture
def family_checkpoint(family_shape):
    """A tiny model of each architecture, whose biases and LayerNorms are random too."""
    checkpoint = new_checkpoint(family_shape, "gaussian", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (checkpoint.encoder, checkpoint.lm_head):
            for parameter in part.eval().parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return checkpoint


@pytest.fixture
def family_encoder(family_checkpoint):
    return family_checkpoint.encoder


@pytest.fixture(scope="session")
def family_model(family_shape, tmp_path_factory):
    """The directory of a tiny model of each architecture."""
    directory = tmp_path_factory.mktemp("models") / "member"
    save_checkpoint(new_checkpoint(family_shape, "gaussian", seed=0), directory, "# tiny\n")
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


@pytest.fixture(scope="module")
def pool():
    """Two workers; no result depends on how many there are. Until they stop, torch's settings are not the caller's."""
    with WorkerPool(2) as pool:
        yield pool


AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture
def read_labelled(tmp_path):
    """Write a labelled table and read it."""

    def write_and_read(content, *, name="labels.csv", columns=None, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labels(path, columns or LabelTableConfig(), **options)

    return write_and_read


@pytest.fixture(scope="session")
def make_labels():
    """Make a labelled table that was read; its rows are named by their number, from 1."""

    def make(sequences, labels=None, splits=None):
        labels = [str(row / 2) for row in range(len(sequences))] if labels is None else labels
        splits = [None] * len(sequences) if splits is None else splits
        proteins = [
            LabelledProtein(id=str(row), sequence=sequence, label=label, split=split, line=row + 1)
            for row, (sequence, label, split) in enumerate(zip(sequences, labels, splits, strict=True), start=1)
        ]
        return LabelledTable(path="labels.csv", target="target", proteins=proteins)

    return make


@pytest.fixture(scope="session")
def mutate():
    """Replace a share of a protein's residues by others."""

    def replace(sequence, share, seed=0):
        rng = np.random.default_rng(seed)
        letters = list(sequence)
        for place in rng.choice(len(letters), round(share * len(letters)), replace=False):
            letters[place] = AMINO_ACIDS[(AMINO_ACIDS.find(letters[place]) + rng.integers(1, 20)) % 20]
        return "".join(letters)

    return replace


@pytest.fixture(scope="session")
def rejected():
    """Expect an error about a table: one sentence with its line and what is wrong."""

    @contextmanager
    def expect(message, line=None):
        with pytest.raises(DataError) as caught:
            yield
        text = str(caught.value)
        assert message in text
        assert "\n" not in text
        assert (f"labels.csv, line {line}: " if line else "labels.csv: ") in text
        assert caught.value.exit_status == 65

    return expect


WINDOW = 64
NUM_TRAIN, NUM_VALID = 24, 6


@pytest.fixture(scope="session")
def windowed_model(tiny_model, tmp_path_factory):
    """The tiny model, with a window of 64 residues: of the forty proteins most are longer."""
    checkpoint = load_checkpoint(tiny_model)
    checkpoint.metadata = replace(checkpoint.metadata, window_residues=WINDOW)
    directory = tmp_path_factory.mktemp("models") / "windowed"
    save_checkpoint(checkpoint, directory, "# windowed\n")
    return directory


@pytest.fixture
def small_chunks(monkeypatch):
    """Let `embed` make its rows safe every 800 tokens."""

    @contextmanager
    def engine(config, device, shape, width, layers):
        with worker_pool(config, device) as pool:
            yield Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=800, layers=layers)

    monkeypatch.setattr("protembed.embedding.job.inference_engine", engine)


@pytest.fixture
def give_stdin(monkeypatch):
    """Let the next command find some bytes on stdin."""

    def give(content):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return give


# Labelled tables


def share_of(letter, sequence):
    return sequence.count(letter) / len(sequence)


def labels_of(proteins, task):
    """Labels that real proteins have indeed, of each kind."""
    shares = {letter: np.array([share_of(letter, protein) for protein in proteins]) for letter in "LGK"}
    middles = {letter: np.median(values[:NUM_TRAIN]) for letter, values in shares.items()}
    if task == "classification":
        return ["rich" if share > middles["L"] else "poor" for share in shares["L"]]
    if task == "regression":
        return [f"{100 * share:.3f}" for share in shares["L"]]
    if task == "multilabel":
        rows = zip(*((shares[letter] > middles[letter]).tolist() for letter in "LGK"), strict=True)
        return [";".join(["all", *(letter for letter, has in zip("LGK", row, strict=True) if has)]) for row in rows]
    if task == "residue-classification":
        return ["".join("H" if letter in "AELKM" else "C" for letter in protein) for protein in proteins]
    return [";".join("nan" if letter == "X" else f"{ord(letter) / 10}" for letter in protein) for protein in proteins]


@pytest.fixture(scope="session")
def labelled_tables(tmp_path_factory, proteins):
    """A table of each task, of forty real proteins."""
    folder = tmp_path_factory.mktemp("tables")
    splits = ["train"] * NUM_TRAIN + ["valid"] * NUM_VALID + ["test"] * (len(proteins) - NUM_TRAIN - NUM_VALID)
    for task in TASKS:
        with (folder / f"{task}.csv").open("w", newline="") as stream:
            ids = [f"p{row}" for row in range(len(proteins))]
            rows = zip(ids, proteins, labels_of(proteins, task), splits, strict=True)
            csv.writer(stream).writerows([("id", "sequence", "label", "split"), *rows])
    return folder


@pytest.fixture(scope="session")
def finetune_options():
    """Make the options of a short fine-tuning."""

    def make(output, model, *, labels=None, **settings):
        return FinetuneOptions(
            finetune=FinetuneConfig(
                output=output, **{"epochs": 2, "batch_tokens": 1024, "skip_random_baseline": True} | settings
            ),
            labels=LabelTableConfig(**labels or {}),
            model=ModelConfig(model=model),
            compute=DeviceConfig(threads=1),
        )

    return make


@pytest.fixture(scope="session")
def read_rows():
    """Read the rows of a table."""

    def read(path, delimiter="\t"):
        with path.open() as stream:
            return list(csv.DictReader(stream, delimiter=delimiter))

    return read


@pytest.fixture
def masked_lm(tiny_checkpoint):
    return MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head)


@pytest.fixture(scope="session")
def mask_residues(whole_batch):
    """Concatenate whole proteins and mask residues of each, given by their indices."""

    def make(sequences, indices):
        batch = whole_batch(sequences)
        pairs = zip(batch.offsets, indices, strict=False)
        positions = [start + 1 + index for start, of_protein in pairs for index in of_protein]
        positions = torch.tensor(positions, dtype=torch.int64)
        targets, tokens = batch.tokens[positions], batch.tokens.clone()
        tokens[positions] = MASK
        return MaskedBatch(
            tokens=tokens,
            offsets=batch.offsets,
            rows=batch.rows,
            positions=positions,
            targets=targets,
            num_residues=sum(map(len, sequences)),
        )

    return make


@pytest.fixture(scope="session")
def three_masked(mask_residues, proteins):
    """A batch of one protein with three masked residues."""
    return mask_residues(proteins[2:3], [range(3, 60, 20)])


@pytest.fixture(scope="session")
def seventeen_masked(mask_residues, proteins):
    """A batch of another protein with seventeen masked residues."""
    return mask_residues(proteins[3:4], [range(3, 54, 3)])


@pytest.fixture(scope="session")
def twenty_masked(mask_residues, proteins):
    """`few` and `many` in one batch."""
    return mask_residues(proteins[2:4], [range(3, 60, 20), range(3, 54, 3)])


@pytest.fixture
def none_masked(mask_residues, proteins):
    """A batch of one protein without masked residues."""
    return mask_residues(proteins[4:5], [[]])


@pytest.fixture(scope="session")
def pretraining_steps(corpus):
    """Steps of about 400 tokens in micro-batches of about 130."""
    batches = BatchConfig(batch_tokens=400, crop_residues=64)
    return PretrainingBatches(corpus, batches, 130, MaskingConfig(), seed=0)


@pytest.fixture(scope="session")
def copy_weights():
    """Copy all numbers of a module, to compare them bit for bit later."""

    def copy(module):
        return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}

    return copy


@pytest.fixture(scope="session")
def have_same_bits():
    def compare(one, other):
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

    return compare
