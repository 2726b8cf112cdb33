"""A GPU that another process uses too is told: figures and failures may be that one's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers import REPO

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

HOLD = "import sys, torch; held = torch.empty(4 << 30, dtype=torch.uint8, device='cuda'); print('held', flush=True)"
CHOOSE = "from slurm_bench.logs import log_to_stderr; log_to_stderr()"
CHOOSE += "; from slurm_bench.machine import choose_device; choose_device(None, 'editor.params.device')"


def test_a_task_says_what_others_hold_of_its_gpu() -> None:
    words = [sys.executable, "-c", f"{HOLD}; sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = subprocess.run(
            [sys.executable, "-c", CHOOSE], cwd=REPO, capture_output=True, text=True, check=True
        ).stderr
        other.communicate("")
    assert "other processes hold" in said
    assert "nvidia-smi says whose" in said
