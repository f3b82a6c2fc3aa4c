"""protembed: protein language models at the command line and in Python.

The public names load their modules only when they are first used, so that `import protembed` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protembed._version import __version__ as __version__

_PUBLIC = {
    "AttentionConfig": "protembed.config.inspect_attention",
    "BatchConfig": "protembed.config.pretrain",
    "CheckConfig": "protembed.config.embed",
    "Checkpoint": "protembed.model.checkpoint",
    "DeviceConfig": "protembed.config.common",
    "EmbedConfig": "protembed.config.embed",
    "Encoder": "protembed.model.esm2",
    "FinetuneConfig": "protembed.config.finetune",
    "FinetuneOptions": "protembed.finetuning.finetune",
    "MaskingConfig": "protembed.config.pretrain",
    "ModelConfig": "protembed.config.common",
    "OptimizerConfig": "protembed.config.common",
    "PredictConfig": "protembed.config.finetune",
    "PretrainConfig": "protembed.config.pretrain",
    "PretrainOptions": "protembed.pretraining.pretrain",
    "InputConfig": "protembed.config.common",
    "Record": "protembed.data.fasta",
    "ScoreConfig": "protembed.config.score",
    "VariantTableConfig": "protembed.config.score",
    "check_embeddings": "protembed.embedding.check",
    "embed_fasta": "protembed.embedding.embed",
    "finetune_model": "protembed.finetuning.finetune",
    "inspect_attention": "protembed.attention.inspect_attention",
    "list_models": "protembed.model.catalog",
    "load_checkpoint": "protembed.model.checkpoint",
    "predict_fasta": "protembed.finetuning.predict",
    "pretrain_model": "protembed.pretraining.pretrain",
    "read_fasta": "protembed.data.fasta",
    "score_variants": "protembed.scoring.score",
}

__all__ = [
    "AttentionConfig",
    "BatchConfig",
    "CheckConfig",
    "Checkpoint",
    "DeviceConfig",
    "EmbedConfig",
    "Encoder",
    "FinetuneConfig",
    "FinetuneOptions",
    "MaskingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PredictConfig",
    "PretrainConfig",
    "PretrainOptions",
    "InputConfig",
    "Record",
    "ScoreConfig",
    "VariantTableConfig",
    "__version__",
    "check_embeddings",
    "embed_fasta",
    "finetune_model",
    "inspect_attention",
    "list_models",
    "load_checkpoint",
    "predict_fasta",
    "pretrain_model",
    "read_fasta",
    "score_variants",
]

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import inspect_attention
    from protembed.config.common import DeviceConfig, InputConfig, ModelConfig, OptimizerConfig
    from protembed.config.embed import CheckConfig, EmbedConfig
    from protembed.config.finetune import FinetuneConfig, PredictConfig
    from protembed.config.inspect_attention import AttentionConfig
    from protembed.config.pretrain import BatchConfig, MaskingConfig, PretrainConfig
    from protembed.config.score import ScoreConfig, VariantTableConfig
    from protembed.data.fasta import Record, read_fasta
    from protembed.embedding.check import check_embeddings
    from protembed.embedding.embed import embed_fasta
    from protembed.finetuning.finetune import FinetuneOptions, finetune_model
    from protembed.finetuning.predict import predict_fasta
    from protembed.model.catalog import list_models
    from protembed.model.checkpoint import Checkpoint, load_checkpoint
    from protembed.model.esm2 import Encoder
    from protembed.pretraining.pretrain import PretrainOptions, pretrain_model
    from protembed.scoring.score import score_variants


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'protembed' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
