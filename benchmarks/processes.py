"""Run commands as separate processes, and measure what each takes from its start to its end."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process took.

    Attributes:
        seconds: Time from start to end, in seconds.
        cpu_seconds: Time on all processors, in seconds.
        peak_bytes: Highest resident memory, with the pages of mapped files, which the system may drop.
        private_bytes: Highest resident memory without these pages; 0 where there is no /proc.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    private_bytes: int


def run_measured(
    command: Sequence[object], environment: Mapping[str, str] = os.environ, *, shows_errors: bool = True
) -> Usage:
    """Run a command to its end, without its output.

    Args:
        command: The program and its arguments.
        environment: The environment variables of the process.
        shows_errors: Whether what the command prints to stderr is shown.

    Raises:
        SystemExit: If the command fails.
    """
    stderr = None if shows_errors else subprocess.DEVNULL
    began = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
    peaks = {"VmHWM": 0, "RssAnon": 0}
    poll = threading.Thread(target=_poll_memory, args=(process.pid, peaks), daemon=True)
    poll.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {process.returncode}")
    poll.join()
    # Without /proc: the peak of the process, or that of this one at the start, if that was higher.
    peak = peaks["VmHWM"] or usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Usage(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=peak,
        private_bytes=peaks["RssAnon"],
    )


def _poll_memory(pid: int, peaks: dict[str, int]) -> None:
    """Raise the peaks, in bytes, to what the kernel reports of a process, until it ends.

    The kernel keeps the peak of all resident memory (VmHWM), so that only its last moment can be missed.
    """
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        if "VmHWM:" not in status:  # the process has ended, and its memory is freed
            return
        for name in peaks:
            peaks[name] = max(peaks[name], int(status.split(f"{name}:")[1].split()[0]) * 1024)
        time.sleep(POLL_SECONDS)
