"""Options of the optimiser, which pretraining and fine-tuning share. No torch."""

from dataclasses import dataclass
from typing import Literal

from protembed.config.base import Config, option

OptimizerName = Literal["muon", "adamw", "sgd"]
ScheduleName = Literal["stable", "cosine"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """The optimiser."""

    optimizer: OptimizerName | None = option(
        None,
        "muon (AdamW for what is no matrix of a layer), adamw, or sgd: w - lr * gradient as it stands, no clipping. "
        "By default muon when pretraining, adamw when finetuning.",
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate; by default 0.003 for muon, 0.001 for adamw, 0.1 for sgd. Finetuning: 0.16 over "
        "the encoder's width for muon and adamw, 1.6 over it for sgd, and more for lora.",
        min=0.0,
    )
    schedule: ScheduleName = option(
        "stable", "The rate after the warm-up: stable with a linear fall at the end, or a falling cosine."
    )
    warmup_steps: int | None = option(None, "Steps of linear warm-up; a twentieth of all steps by default.", min=0)
    decay_share: float = option(
        0.25, "The last share of the steps, over which the rate falls to zero (stable).", min=0.0, max=1.0
    )
    weight_decay: float = option(0.01, "Decay of weight matrices (muon, adamw).", min=0.0)
    clip_norm: float = option(1.0, "Largest norm of a step's gradient (muon, adamw).", min=1e-6)
