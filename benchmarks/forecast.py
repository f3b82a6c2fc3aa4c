"""Say what a pretraining would come to: its validation perplexity at the end, from the validations so far.

    python benchmarks/forecast.py RUN

RUN is a run directory of protembed pretrain. The loss of the later half of the validations is extrapolated as a line in
the logarithm of the residues seen. The decay of the learning rate takes a model below that line.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from protembed.io.reading import read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    print(forecast(lines, read_json(run / "run.json")["plan"]["num_steps"]))


def forecast(lines: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    """Describe in a sentence where a run stands, and where it would end.

    Args:
        lines: The log of the run.
        num_steps: Its planned number of steps.
    """
    last = lines[-1]
    standing = (
        f"{datetime.fromisoformat(last['time']):%d %b %H:%M}: step {last['step']:,} of {num_steps:,}, "
        f"{last['residues'] / 1e6:.1f} M residues"
    )
    validated = [line for line in lines if "valid_loss" in line]
    if not validated:
        return f"{standing}; not validated yet"
    standing += f"; validation perplexity {math.exp(validated[-1]['valid_loss']):.2f}"
    later = validated[len(validated) // 2 :]
    if len(later) < 2:
        return standing
    logarithms = np.log([line["residues"] for line in later])
    slope = np.polyfit(logarithms, [line["valid_loss"] for line in later], 1)[0]
    residues = last["residues"] * num_steps / last["step"]
    loss = later[-1]["valid_loss"] + slope * (math.log(residues) - logarithms[-1])
    return f"{standing}, and {math.exp(loss):.2f} or less at the end, after {residues / 1e6:.0f} M"


if __name__ == "__main__":
    main()
