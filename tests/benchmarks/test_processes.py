import sys

import pytest

from processes import run_measured

MEGABYTE = 2**20


def test_the_peak_of_a_process_is_its_highest_memory():
    usage = run_measured([sys.executable, "-S", "-c", f"b'1' * {200 * MEGABYTE}; import time; time.sleep(0.2)"])

    assert 200 * MEGABYTE <= usage.peak_bytes < 260 * MEGABYTE


def test_the_peak_of_a_process_leaves_out_the_memory_of_its_parent():
    parents = bytearray(b"1" * (300 * MEGABYTE))

    usage = run_measured([sys.executable, "-S", "-c", "import time; time.sleep(0.2)"])

    assert 0 < usage.peak_bytes < len(parents) / 3


def test_the_time_of_a_process_that_sleeps_is_not_spent_on_a_processor():
    usage = run_measured([sys.executable, "-S", "-c", "import time; time.sleep(0.5)"])

    assert usage.seconds >= 0.5
    assert usage.cpu_seconds < usage.seconds


def test_a_command_that_fails_ends_the_measurement_and_is_named():
    with pytest.raises(SystemExit, match=r"-c raise SystemExit\(3\): exit status 3"):
        run_measured([sys.executable, "-S", "-c", "raise SystemExit(3)"])
