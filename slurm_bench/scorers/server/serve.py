"""A judge's server that the scoring job starts itself: a command of the user's on a free port of this node, waited for
until it is healthy, started again once where it dies, and ended with the job whatever ends that."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from slurm_bench.errors import ServiceDown, UserError
from slurm_bench.logs import beside_the_log, log
from slurm_bench.machine import free_memory
from slurm_bench.scorers.server import keeper

# So many ports are tried before somebody has to look why all are taken.
PORTS = 5
# Seconds between two looks at a server that isn't up yet: at first, and at most.
LOOK, LOOK_AT_MOST = 0.1, 2.0
# Seconds between two lines in our log about a server that isn't up yet.
TELL = 60.0
# Seconds that a server which has left its port may take to end.
DYING = 10.0
# Of the server's log an error quotes so many lines, and so many characters at most.
LINES, CHARACTERS = 8, 900

_SHELL = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"}
_TAKEN = ("address already in use", "eaddrinuse", "errno 98")


class NeverUp(UserError):
    """Not healthy within its time. Trying again would take as long again, so a person has to look."""


class EndedEarly(Exception):
    """It ended before it was healthy. Another node may do better."""


def check_command(template: str) -> None:
    """As far as it can be told anywhere. Raises UserError."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise UserError(f"'params.serve' can't be split into words: {error}") from None
    if not any("{port}" in word for word in words):
        raise UserError(
            "'params.serve' has no {port}: write it where the command takes its port, as in vllm serve {model} --port "
            "{port}"
        )
    if "=" in words[0]:
        raise UserError(f"'params.serve' begins with {words[0]!r}; to set a variable, begin with env: env {template}")
    if strange := [word for word in words if word in _SHELL]:
        raise UserError(f"'params.serve' has {strange[0]!r}, and no shell reads it; write bash -c '…'")


def check_found(template: str) -> None:
    """Is the command's program here? On a cluster another node may have it, which is said. Raises UserError."""
    program = shlex.split(template)[0]
    if shutil.which(program):
        return
    if not shutil.which("sbatch"):
        raise UserError(f"'params.serve': no program {program} on the PATH here; install it, or write its whole path")
    log.warning("'params.serve': no program %s on the PATH here; only the node can tell whether it is there", program)


class OwnServer:
    """One server at a time. `starts` counts how often it has come up; `address` is its base_url then."""

    def __init__(self, template: str, model: str, timeout: float) -> None:
        self._template, self._model, self._timeout = template, model, timeout
        self._keeper: subprocess.Popen[bytes] | None = None
        self._looking_after = threading.Lock()
        self._closed = threading.Event()
        self._log, self._begin = Path(), 0
        self._gone = ""  # why there is none any more
        self._deaths = set[bool]()  # of each kind one is forgiven
        self.starts = 0
        self._port = 0
        self.address = ""

    def start(self) -> None:
        """Returns when it is healthy. Raises NeverUp, EndedEarly, UserError; then nothing of it is left."""
        program = shlex.split(self._template)[0]
        if not shutil.which(program):
            raise UserError(f"'params.serve': no program {program} on the PATH of {socket.gethostname()}")
        _leave_the_gpu()
        self._log = beside_the_log("-server") or Path(_temporary())
        deadline = time.monotonic() + self._timeout
        for _ in range(PORTS):
            port = free_port()
            try:
                if self._comes_up(self._spawn(port), port, deadline):
                    self.starts += 1
                    return
            except BaseException:
                self._end()
                raise
            self._end()
            log.warning("the port %d was taken meanwhile; trying another one", port)
        raise EndedEarly(f"the judge's server never came up: {PORTS} free ports were taken one after the other")

    def revive(self, blamed: bool = False) -> None:
        """After a request that failed: where the server has died, start it once more; of several threads one does, the
        others wait for it. `blamed` says that it died of the one request that it had: that much is forgiven once
        beside. Raises ServiceDown where it has died again, or doesn't come up."""
        with self._looking_after:
            code = self._exit_code()
            if self._closed.is_set() or code == keeper.TOLD:  # the whole job is being ended, and this process with it
                return
            if code is not None and blamed in self._deaths:
                self._gone = f"the judge's server died again{self._last_lines()}"
            elif code is not None:
                self._deaths.add(blamed)
                log.warning("the judge's server died, and is started once more%s", self._last_lines())
                try:
                    self.start()
                except (UserError, EndedEarly) as error:
                    self._gone = f"the judge's server died, and was started again: {error}"
            if self._gone:
                raise ServiceDown(self._gone)

    def _exit_code(self) -> int | None:
        """None while it is at work. One that has left its port is about to end."""
        if self._keeper is None:
            return None
        if self._keeper.poll() is None and not _answers(self._port):
            with suppress(subprocess.TimeoutExpired):
                self._keeper.wait(DYING)
        return self._keeper.poll()

    def stop(self) -> None:
        self._closed.set()
        self._end()

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        filled = {"{port}": str(port), "{model}": self._model}
        words = [_filled(word, filled) for word in shlex.split(self._template)]
        self._port = port
        self.address = f"http://127.0.0.1:{port}/v1/"
        with open(self._log, "ab") as file:
            file.write(f"slurm_bench: {shlex.join(words)}\n".encode())
            file.flush()
            self._begin = file.tell()
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        log.info("starting the judge's server: %s; its log is %s", shlex.join(words), self._log)
        return self._keeper

    def _comes_up(self, keeping: subprocess.Popen[bytes], port: int, deadline: float) -> bool:
        """False where the port turns out to be somebody else's: whatever answers there isn't asked. Raises NeverUp,
        EndedEarly."""
        import httpx

        begin = told = time.monotonic()
        pause = LOOK
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while not self._closed.wait(pause):
                pause = min(1.5 * pause, LOOK_AT_MOST)
                if keeping.poll() is not None:
                    if self._says_taken() or _answers(port):
                        return False
                    raise EndedEarly(f"the judge's server never came up: it ended by itself{self._last_lines()}")
                if _is_healthy(http, port):
                    log.info("the judge's server is up after %.0f s", time.monotonic() - begin)
                    return _is_of(keeping.pid, port)
                now = time.monotonic()
                if now > deadline:
                    raise NeverUp(
                        f"the judge's server never came up within {self._timeout:.0f} s "
                        f"(params.serve_timeout_s){self._last_lines()}"
                    )
                if now - told > TELL:
                    told = now
                    log.info("waiting for the judge's server, %.0f of %.0f s", now - begin, self._timeout)
        raise ServiceDown("closed while the judge's server was starting")

    def _end(self) -> None:
        """The server and all that it has started."""
        keeping, self._keeper = self._keeper, None
        if keeping is None:
            return
        assert keeping.stdin is not None
        with suppress(OSError):
            keeping.stdin.write(b".")
        with suppress(OSError):
            keeping.stdin.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                keeping.wait(keeper.GRACE + 3)
        finally:
            keeping.kill()  # the kernel kills the server then
            keeping.wait()

    def _says_taken(self) -> bool:
        said = self._said().lower()
        return any(words in said for words in _TAKEN)

    def _last_lines(self) -> str:
        """For an error: one line."""
        lines = [" ".join(line.split()) for line in self._said().splitlines() if line.strip()]
        quoted = " | ".join(lines[-LINES:])[-CHARACTERS:]
        return f"; its log {self._log} ends: {quoted or '(nothing)'}"

    def _said(self) -> str:
        """The end of its log since it was started."""
        try:
            with open(self._log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._begin, size - 20_000))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def _leave_the_gpu() -> None:
    """All of it is the server's. What another scorer loaded in this process before can't be given back whole."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        free_memory()
        log.warning("another scorer keeps some of the GPU's memory; name the one with 'serve' before it")


def free_port() -> int:
    """Free on every address of this node now; whoever is faster may have it meanwhile."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _filled(word: str, values: dict[str, str]) -> str:
    """Not by str.format: a command's own JSON has braces too."""
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _is_healthy(http: object, port: int) -> bool:
    """vLLM, SGLang, llama.cpp and transformers have /health; others at least list their models."""
    import httpx

    assert isinstance(http, httpx.Client)
    for path in ("health", "v1/models"):
        try:
            status = http.get(f"http://127.0.0.1:{port}/{path}").status_code
        except httpx.HTTPError:
            return False
        if status not in (404, 405):
            return status == 200
    return False


def _is_of(pid: int, port: int) -> bool:
    """Does this process, or one that it has started, listen on the port? What can't be looked into passes for it: a
    container's process may hide."""
    import psutil

    try:
        processes: Sequence[psutil.Process] = psutil.Process(pid).children(recursive=True)
        for process in processes:
            sockets = getattr(process, "net_connections", None) or process.connections
            if any(one.laddr and one.laddr.port == port and one.status == "LISTEN" for one in sockets("inet")):
                return True
    except psutil.Error:
        return True
    return False


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _temporary() -> str:
    file, name = tempfile.mkstemp(prefix="slurm_bench-server-", suffix=".log")
    os.close(file)
    return name
