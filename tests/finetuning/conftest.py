from types import SimpleNamespace

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.finetuning.comparison import Predictions
from protembed.finetuning.evaluation import Evaluation, Relatives


@pytest.fixture(scope="session")
def make_evaluation():
    """Make the evaluation of predictions for proteins with given targets, which are named p0, p1, …"""

    def make(task, truth, predicted, classes=None, **values):
        proteins = [
            SimpleNamespace(id=f"p{number}", sequence="M" * (50 + number), label="") for number in range(len(truth))
        ]
        relatives = Relatives(similarities=np.zeros(len(truth)), neighbours=[""] * len(truth))
        return Evaluation(
            **{
                "classes": classes,
                "training": [],
                "proteins": proteins,
                "predictions": Predictions(task=TASKS[task], truth=truth, predicted=predicted),
                "threshold": 0.5,
                "relatives": relatives,
                **values,
            }
        )

    return make
