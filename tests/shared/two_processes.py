"""Starts several processes on one run, as torchrun does, without the seconds that torchrun itself takes."""

import os
import socket
import subprocess
import sys


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run_processes(*commands):
    """Run Python with the arguments of each command, together; return the exit statuses, and what each printed."""
    size = str(len(commands))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        **{"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    printed = [process.communicate(timeout=600)[1] for process in processes]
    return [process.returncode for process in processes], printed


def run_two_processes(*arguments, statuses=(0, 0)):
    """Run Python with these arguments in two processes, check their exit statuses, and return what each printed."""
    found, printed = run_processes(arguments, arguments)
    assert tuple(found) == statuses, "\n".join(printed)
    return printed
