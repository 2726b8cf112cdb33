"""How a task's process gets to its model: which of them loads now, and how Python's own start is kept short."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from slurm_bench import marks
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.journal import Journal
from slurm_bench.stages.stop import Stopped, StopSignals

POLL = 0.5
# In the order in which they are worth being compiled ahead.
HEAVY_PACKAGES = ("sympy", "torch", "transformers", "diffusers", "peft", "scipy")
SELDOM_IMPORTED = r"/(tests?|torch/(_inductor|ao|onnx|testing)|diffusers/pipelines|transformers/models)/"


def load_plugin(plugin: Any, concurrency: int, journal: Journal, stop: StopSignals) -> None:
    """Have a plug-in load what it needs, in this process's turn. Raises what its `load` raises, and Stopped."""
    if not hasattr(plugin, "load"):
        return
    streams = getattr(plugin, "streams", None)
    if streams is not None:
        keep_bytecode()
    journal.note("waits")
    with load_slot(concurrency, stop, streams or (lambda: False)) as waited:
        journal.note("loads")
        start = time.monotonic()
        with stop.interruptible(), marks.part("load"):
            plugin.load()
        took = time.monotonic() - start
    log.info("waited %.1f s for this node's load slot, loaded in %.1f s", waited, took)
    journal.note("loaded", waited=round(waited, 3), took=round(took, 3))
    journal.memory()


@contextmanager
def load_slot(concurrency: int, stop: StopSignals, unneeded: Callable[[], bool] = lambda: False) -> Iterator[float]:
    """Hold one of this node's `concurrency` load slots, so that host memory holds while models load their own way;
    gives the seconds waited for it. None is held, or waited for, once `unneeded()`. Raises Stopped where the task is
    told to leave meanwhile.

    A lock on a node-local file: the kernel drops it when the process dies, however it dies.
    """
    start = time.monotonic()
    held: IO[str] | None = None
    told = False
    while not unneeded() and (held := _free_slot(concurrency)) is None:
        if stop.reason is not None:
            raise Stopped(stop.reason)
        if not told:
            log.info("waiting for another task of this node to finish loading its model")
            told = True
        time.sleep(POLL)
    try:
        yield time.monotonic() - start
    finally:
        if held is not None:
            held.close()


def _free_slot(concurrency: int) -> IO[str] | None:
    for slot in range(concurrency):
        # In a folder that all may write to, a link in this place would have another file of ours emptied.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(_node_folder() / f"load-{slot}.lock", flags, 0o600), "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            file.close()
    return None


def keep_bytecode() -> None:
    """Packages installed without bytecode, as in many container images, are compiled anew by each process: that is
    two thirds of the time to import torch and diffusers. Keep it in a folder of this node and user, and have what
    this process imports later compiled by all cores while it imports the rest."""
    found = importlib.util.find_spec("torch")
    if found is None or found.cached is None or Path(found.cached).exists():
        return
    with suppress(OSError, UserError):
        bytecode = _node_folder() / "bytecode"
        sys.pycache_prefix, sys.dont_write_bytecode = str(bytecode), False
        with suppress(FileExistsError):
            bytecode.mkdir()
            _compile_ahead(HEAVY_PACKAGES)


def _compile_ahead(packages: Sequence[str]) -> None:
    cores = len(os.sched_getaffinity(0)) - 1  # one is this process's
    if cores < 3:
        return
    specs = [importlib.util.find_spec(name) for name in packages]
    folders = [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(sys.pycache_prefix)
    words = [sys.executable, "-m", "compileall", "-qq", "-j", str(cores), "-x", SELDOM_IMPORTED, *folders]
    null = subprocess.DEVNULL
    subprocess.Popen(words, env=environment, stdin=null, stdout=null, stderr=null)


def _node_folder() -> Path:
    """A folder of this user on this node. Raises UserError where a stranger has made it: what lies there is run."""
    folder = Path(tempfile.gettempdir()) / f"slurm_bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{folder}: made by somebody else; have it removed, or set TMPDIR")
    return folder
