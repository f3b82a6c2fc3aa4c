import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_leaves(proteins_fasta, tmp_path, number, status):
    run = tmp_path / "a.run"
    command = [sys.executable, "-m", "protembed", "pretrain", str(proteins_fasta), "-o", str(run), "--size", "t4_1M"]
    command += ["--steps", "100000", "--tokens-per-batch", "1024", "--validate-every", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)

    assert process.returncode == status
    assert "repeat the command to go on" in told
    assert "Traceback" not in told
    assert len(list((run / "checkpoints").glob("step-*/MANIFEST.json"))) == 1
