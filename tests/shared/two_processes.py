"""Starts two processes on one run, as torchrun does, without the seconds that torchrun itself takes."""

import os
import socket
import subprocess
import sys


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run_two_processes(*arguments, statuses=(0, 0)):
    """Run Python with these arguments in two processes, check their exit statuses, and return what each printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate()[1] for process in processes]
    assert tuple(process.returncode for process in processes) == statuses, "\n".join(printed)
    return printed
