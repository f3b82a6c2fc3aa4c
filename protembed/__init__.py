"""protembed: protein language models at the command line and in Python.

The public names load their modules only when they are first used, so that `import protembed` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "protembed.model.checkpoint",
    "Encoder": "protembed.model.encoder",
    "Record": "protembed.data.fasta",
    "embed_fasta": "protembed.tasks.embed",
    "finetune_model": "protembed.tasks.finetune",
    "inspect_attention": "protembed.tasks.inspect_attention",
    "list_models": "protembed.tasks.models",
    "load_checkpoint": "protembed.model.checkpoint",
    "predict_fasta": "protembed.tasks.predict",
    "pretrain_model": "protembed.tasks.pretrain",
    "read_fasta": "protembed.data.fasta",
}

__all__ = [
    "Checkpoint",
    "Encoder",
    "Record",
    "__version__",
    "embed_fasta",
    "finetune_model",
    "inspect_attention",
    "list_models",
    "load_checkpoint",
    "predict_fasta",
    "pretrain_model",
    "read_fasta",
]

if TYPE_CHECKING:
    from protembed.data.fasta import Record, read_fasta
    from protembed.model.checkpoint import Checkpoint, load_checkpoint
    from protembed.model.encoder import Encoder
    from protembed.tasks.embed import embed_fasta
    from protembed.tasks.finetune import finetune_model
    from protembed.tasks.inspect_attention import inspect_attention
    from protembed.tasks.models import list_models
    from protembed.tasks.predict import predict_fasta
    from protembed.tasks.pretrain import pretrain_model


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'protembed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
