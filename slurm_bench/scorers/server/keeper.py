"""Between a scoring process and the server that it starts: `python keeper.py COMMAND…`, run by its path alone.

However the scoring process ends, its end of this one's standard input closes, and the server goes with all that it has
started: none may stay behind and keep the GPUs. A server's own children outlive it, and a parent-death signal is bound
to the thread that started the child, so neither alone would do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

# Seconds that a server gets to end by itself when it isn't needed any more.
GRACE = 5.0
# Seconds at most for what the server has started to be gone once it was killed.
ENDING = 2.0
# The exit code where somebody (Slurm, which tells every process of a job) asked this process to end.
TOLD = 86
# Slurm tells the processes of a job one after the other. Where the server was the first, this one is told within so
# many seconds; else the server died by itself.
IN_TURN = 1.0

_told = False


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, _hear)  # a handler isn't inherited: the server has the default
    # Slurm's warning ahead of a time limit reaches every process. Ignoring it is inherited: the server goes on while
    # what is in hand is judged.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_this_process
        )
    except OSError as error:
        print(f"slurm_bench: {command[0]} can't be run: {error.strerror}", flush=True)
        return 127
    threading.Thread(target=_end_with_the_scorer, args=(server.pid,), daemon=True).start()
    code = server.wait()
    _signal(server.pid, signal.SIGKILL)
    _await_end(server.pid)
    how = f"left with exit code {code}" if code >= 0 else f"was killed by signal {-code}, {signal.strsignal(-code)}"
    print(f"slurm_bench: the server {how}", flush=True)
    return TOLD if _is_told() else code if code >= 0 else 128 - code


def _hear(*_: object) -> None:
    global _told
    _told = True


def _is_told() -> bool:
    """By now, or within its turn. It looks again and again: a handler that sets a `threading.Event` for which its own
    thread has just begun to wait would wait for that thread's lock for ever."""
    deadline = time.monotonic() + IN_TURN
    while not _told and time.monotonic() < deadline:
        time.sleep(0.02)
    return _told


def _end_with_the_scorer(group: int) -> None:
    """Told to end by a byte, the server gets its time; where the scorer has died, the next one wants the GPUs now."""
    dismissed = sys.stdin.buffer.read()
    _hear()
    if dismissed:
        _signal(group, signal.SIGTERM)
        time.sleep(GRACE)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _await_end(group: int) -> None:
    """Its workers hold GPU memory, which who comes next wants, until they are gone."""
    deadline = time.monotonic() + ENDING
    while _is_at_work(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_at_work(group: int) -> bool:
    """Whether any of its processes is left, as far as can be seen. A dead one that nobody has collected, as in many a
    container, holds nothing."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it has gone meanwhile
            state, _, of = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                return True
    return False


def _die_with_this_process() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # the thread that reads standard input never ends by itself
