"""`status --watch`: again and again, until the run is over, however it ended."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from slurm_bench.run.opened import Run
from slurm_bench.watch.evidence import Hear
from slurm_bench.watch.progress import Lines
from slurm_bench.watch.status import render_status, stage_line, status_of

# Seconds between two looks.
EVERY = 2.0


def follow(run: Run, hear: Hear, as_json: bool) -> int:
    """Gives the run's exit code. On a terminal the screen is painted anew; elsewhere a line is written when there is
    something new to say, and the whole status at the end."""
    screen, lines = sys.stdout.isatty() and not as_json, Lines(sys.stdout)
    look = run.ledger().look
    while True:
        run.folder.check_there()
        found = status_of(run, hear, look=look)
        if as_json:
            print(json.dumps(found), flush=True)
        elif screen:
            print(f"\x1b[2J\x1b[H{_page(found)}", flush=True)
        elif not found["over"]:
            lines.say({stage: (row["done"], row["total"], stage_line(row)) for stage, row in found["stages"].items()})
        if found["over"]:
            if not screen and not as_json:
                print(render_status(found), flush=True)
            return int(found["exit_code"])
        time.sleep(EVERY)


def _page(found: dict[str, Any]) -> str:
    """What fits the terminal: lines that are too many would push the head out of sight."""
    columns, height = shutil.get_terminal_size()
    lines = render_status(found, columns).splitlines()
    if len(lines) >= height:
        tail = [line for line in lines if line.startswith(("why ", "next", "error", "report", "queue"))][
            -(height // 2) :
        ]
        lines = [*lines[: max(4, height - len(tail) - 2)], "…", *tail]
    return "\n".join(lines)
