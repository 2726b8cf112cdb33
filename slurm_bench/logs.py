"""Where the log goes."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus


def visible(line: str) -> str:
    """What a terminal would act on is written out, as `\\x1b`; what was written out already stays as it is."""
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


# Secrets that this process was given, each with what is read in its place.
_secrets: dict[str, str] = {}


def keep_secret(value: str, variable: str) -> None:
    """What a service or a plug-in says may quote what it was given, also as JSON, Python or an address writes it: from
    now on `hide_secrets` takes it out. A value of a few letters is no secret, and would be found in ordinary words."""
    if len(value) >= 8:
        written = (json.dumps(value)[1:-1], repr(value)[1:-1], quote(value), quote(value, safe=""), quote_plus(value))
        _secrets.update(dict.fromkeys((value, *written), f"<{variable}>"))


def hide_secrets(text: str) -> str:
    for value in sorted(_secrets, key=len, reverse=True):  # one may have another within
        text = text.replace(value, _secrets[value])
    return text


class Printable(logging.Formatter):
    """What went wrong may quote a dataset, a model or a secret: nothing that a terminal would act on gets into a line,
    and no secret."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, "printable", None)
        if line is None:  # a file and a terminal ask for the same
            line = record.printable = "\n".join(map(visible, hide_secrets(super().format(record)).split("\n")))
        return line


FORMAT = Printable("%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("slurm_bench")


class StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is at the time: progress bars put themselves in between."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def log_to_stderr() -> None:
    _add(StderrHandler())


def log_to_file(path: Path) -> logging.Handler:
    """Best effort: where the disk is full, stderr alone is told."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _add(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))
    except OSError as error:
        log.warning("no log file: %s", error)
        return _add(logging.NullHandler())


def beside_the_log(ending: str) -> Path | None:
    """The file for the log of what this process starts: its own log's name with that ending. None where it has none."""
    files = [Path(handler.baseFilename) for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    return files[-1].with_name(f"{files[-1].stem}{ending}.log") if files else None


def _add(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(FORMAT)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return handler
