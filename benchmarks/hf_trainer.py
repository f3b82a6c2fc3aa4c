"""Pretrain with transformers' Trainer, for comparison in `pretrain.py` and `learning.py`.

    python benchmarks/hf_trainer.py '{"fasta": "data.fasta", "output": "hf.run", "size": "t6_8M", "steps": 100}'

The argument holds `Settings`. The run writes the files of a protembed run: `metrics.jsonl`, with a line for each step,
and `model/`. Proteins are tokenised once; batches are grouped by length; padding is not counted. Crops, masks and the
alphabet are those of protembed, so that both learn the same task.

On a shared machine, start it with OMP_WAIT_POLICY=PASSIVE, as the two scripts do: with OpenMP's threads waiting
actively it took two (t6_8M) to six times (t4_1M) as long beside two other processes on two cores.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import (
    EsmConfig,
    EsmForMaskedLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from protembed.config.model_sizes import SIZES
from protembed.data.alphabet import CLS, EOS, FIRST_AMINO_ACID, MASK, NUM_AMINO_ACIDS, PAD, encode, is_amino_acid
from protembed.data.fasta import read_fasta
from protembed.model.formats import config_json

WARMUP_FRACTION = 0.1
MASK_RATE = 0.15
IGNORED = -100
ENDLESS = 10**9

Tokens = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run; either `steps` or `minutes` is given, and `save_model` writes `model/` at the end."""

    fasta: str
    output: str
    size: str
    steps: int | None = None
    minutes: float | None = None
    threads: int = 2
    batch_tokens: int = 4096
    crop_residues: int = 512
    learning_rate: float = 4e-4
    precision: str = "float32"
    is_compiled: bool = False
    save_model: bool = False
    seed: int = 0


class Crops(Dataset[dict[str, Tokens]]):
    """A random crop of each protein at each access; `<cls>` and `<eos>` only at its true ends, as in protembed."""

    def __init__(self, proteins: Sequence[Tokens], crop_residues: int, seed: int) -> None:
        self._proteins = [np.concatenate([[CLS], protein, [EOS]]).astype(np.uint8) for protein in proteins]
        self._crop_residues, self._rng = crop_residues, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._proteins)

    def __getitem__(self, row: int) -> dict[str, Tokens]:
        protein = self._proteins[row]
        last_start = max(0, len(protein) - 2 - self._crop_residues)
        start = int(self._rng.integers(last_start + 1))
        first = start + 1 if start else 0
        stop = len(protein) if start == last_start else start + 1 + self._crop_residues
        return {"input_ids": protein[first:stop]}

    def mean_length(self) -> float:
        """Return the mean number of tokens of a crop."""
        return float(np.mean([len(self[row]["input_ids"]) for row in range(len(self))]))


class MaskingCollator:
    """Pads crops and masks 15 % of their amino acids: 80 % by `<mask>`, 10 % by a random one, 10 % unchanged."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])

    def __call__(self, crops: Sequence[dict[str, Tokens]]) -> dict[str, Tensor]:
        lengths = [len(crop["input_ids"]) for crop in crops]
        tokens = np.full((len(crops), max(lengths)), PAD, dtype=np.int64)
        for row, crop in zip(tokens, crops, strict=True):
            row[: len(crop["input_ids"])] = crop["input_ids"]
        is_target = is_amino_acid(tokens) & (self._rng.random(tokens.shape) < MASK_RATE)
        draw, amino_acids = self._rng.random(tokens.shape), self._rng.integers(NUM_AMINO_ACIDS, size=tokens.shape)
        masked = np.where(is_target & (draw < 0.8), MASK, tokens)
        masked = np.where(is_target & (draw >= 0.8) & (draw < 0.9), FIRST_AMINO_ACID + amino_acids, masked)
        return {
            "input_ids": torch.from_numpy(masked),
            "attention_mask": torch.from_numpy((tokens != PAD).astype(np.int64)),
            "labels": torch.from_numpy(np.where(is_target, tokens, IGNORED)),
        }


class Progress:
    """The progress of a run: the fraction that is done, by steps or by the clock, and the residues trained on.

    By the clock, the schedule ends exactly with the minutes on a busy machine too. A number of steps estimated
    beforehand would end early, or be cut off before the learning rate has fallen.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._began, self.num_residues = settings, time.perf_counter(), 0

    def fraction(self, step: int) -> float:
        """Return the fraction of the run that is done after a number of steps."""
        if self._settings.minutes is None:
            return min(1.0, step / (self._settings.steps or 1))
        return min(1.0, (time.perf_counter() - self._began) / (60 * self._settings.minutes))

    def rate(self, step: int) -> float:
        """Return the learning rate as a fraction of its peak: linear warm-up, linear decay to zero."""
        done = self.fraction(step)
        return min(max(done, 1e-3) / WARMUP_FRACTION, (1 - done) / (1 - WARMUP_FRACTION))


class MaskedLMTrainer(Trainer):
    """Counts the residues trained on, and follows the schedule of a `Progress`."""

    def __init__(self, progress: Progress, **arguments: object) -> None:
        super().__init__(**arguments)
        self._progress = progress

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self._progress.rate)
        return self.lr_scheduler

    def training_step(self, model: EsmForMaskedLM, inputs: dict[str, Tensor], *rest: object) -> Tensor:
        tokens = inputs["input_ids"]
        self._progress.num_residues += int(((tokens != PAD) & (tokens != CLS) & (tokens != EOS)).sum())
        return super().training_step(model, inputs, *rest)


class Log(TrainerCallback):
    """Writes a line after each step, in protembed's format; ends a run whose minutes are over."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file, self._progress = path.open("w", encoding="utf-8", buffering=1), progress
        self._residues, self._when = 0, time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        now, residues = time.perf_counter(), self._progress.num_residues
        rate = (residues - self._residues) / (now - self._when)
        line = {"step": state.global_step, "residues": residues, "residues_per_second": round(rate, 1)}
        self._file.write(json.dumps(line) + "\n")
        self._residues, self._when = residues, now
        control.should_training_stop |= self._progress.fraction(state.global_step) >= 1


def pretrain(settings: Settings) -> None:
    """Train with the given settings."""
    torch.set_num_threads(settings.threads)
    set_seed(settings.seed)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    sequences = dict.fromkeys(record.sequence for record in read_fasta([Path(settings.fasta)]))
    crops = Crops([encode(sequence) for sequence in sequences], settings.crop_residues, settings.seed)
    config = EsmConfig.from_dict(config_json(SIZES[settings.size]))
    config._attn_implementation = "sdpa"  # 1.5 times as fast as eager (t6_8M, crops of 512; busy machine)
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=settings.steps or ENDLESS,
        per_device_train_batch_size=max(1, round(settings.batch_tokens / crops.mean_length())),
        train_sampling_strategy="group_by_length",
        optim="adamw_torch_fused",
        learning_rate=settings.learning_rate,
        adam_beta1=0.9,
        adam_beta2=0.98,
        weight_decay=0.01,
        seed=settings.seed,
        use_cpu=True,
        bf16=settings.precision == "bfloat16",
        torch_compile=settings.is_compiled,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    progress = Progress(settings)
    trainer = MaskedLMTrainer(
        progress,
        model=EsmForMaskedLM(config),
        args=arguments,
        train_dataset=crops,
        data_collator=MaskingCollator(settings.seed),
        callbacks=[Log(output / "metrics.jsonl", progress)],
    )
    trainer.train()
    if settings.save_model:
        trainer.model.save_pretrained(output / "model")


if __name__ == "__main__":
    pretrain(Settings(**json.loads(sys.argv[1])))
