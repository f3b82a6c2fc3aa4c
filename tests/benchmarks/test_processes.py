import sys

import pytest

from processes import run_measured

MEGABYTE = 2**20


def test_the_peak_of_a_process_is_its_highest_memory():
    usage = run_measured([sys.executable, "-S", "-c", f"kept = b'1' * {200 * MEGABYTE}; import time; time.sleep(0.2)"])

    assert 200 * MEGABYTE <= usage.private_bytes < usage.peak_bytes < 260 * MEGABYTE


def test_private_memory_leaves_out_the_pages_of_mapped_files(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(b"1" * (100 * MEGABYTE))
    code = "import mmap, sys, time; file = open(sys.argv[1], 'rb'); "
    code += "pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(pages[::4096]); time.sleep(0.2)"

    usage = run_measured([sys.executable, "-S", "-c", code, path])

    assert usage.private_bytes < 50 * MEGABYTE
    assert usage.peak_bytes > 100 * MEGABYTE


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
