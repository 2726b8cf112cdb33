"""Which device a model is loaded on: never the CPU in a process that was given a GPU. And what is loaded to stay isn't
looked through for garbage."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from slurm_bench.cluster.local import gpu_slots
from slurm_bench.errors import LostGpu, UserError
from slurm_bench.machine import (
    GIB,
    Gpu,
    check_device,
    check_gpu_memory,
    choose_device,
    free_memory,
    lasting,
    visible_gpu,
    visible_gpus,
)

KEY = "editor.params.device"
# A process that has used its GPU doesn't look again which ones it was given.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize("asked", ["cdua", "gpu", "cuda:", "cuda:x", "cuda:1", 0, True, "CPU", "mps"])
@pytest.mark.parametrize("decide", [check_device, choose_device])
def test_what_is_no_device_is_refused(asked, decide):
    with pytest.raises(UserError, match=r"editor\.params\.device.*is no device"):
        decide(asked, KEY)


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"editor\.params\.device"):
        check_device("cuda", KEY)
    with pytest.raises(UserError, match=r"editor\.params\.device"):
        choose_device("cuda", KEY)
    check_device("cpu", KEY)
    check_device(None, KEY)
    assert choose_device(None, KEY) == choose_device("cpu", KEY) == "cpu"


def test_a_login_node_without_gpus_may_ask_the_cluster_for_one(monkeypatch, tmp_path):
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_device("cuda:0", KEY)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"])
@pytest.mark.parametrize("asked", [None, "cuda"])
def test_no_fall_from_a_gpu_to_the_cpu(monkeypatch, name, asked):
    monkeypatch.setenv(name, "99")  # no machine has so many
    with pytest.raises(LostGpu, match=f"{name}=99"):
        choose_device(asked, KEY)
    assert choose_device("cpu", KEY) == "cpu", "who asks for the CPU gets it"


@pytest.mark.parametrize("none", ["-1", "NoDevFiles", " "])
def test_values_that_say_no_gpu(monkeypatch, none):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
    assert choose_device(None, KEY) == "cpu"


def test_the_gpus_are_asked_for_once_a_process(tmp_path, monkeypatch):
    """But again where an answer was none, and of another program."""
    asked, smi = tmp_path / "asked", tmp_path / "nvidia-smi"

    def answering(words):
        smi.write_text(f"#!/bin/sh\necho x >> {asked}\n{words}\n")
        smi.chmod(0o755)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    answering("exit 9")
    assert visible_gpus() == []
    answering(f"[ $(grep -c x {asked}) -lt 3 ] || echo 'GPU-0, NVIDIA Tiny, 1024, 570.1, 9.0'")
    assert [len(visible_gpus()) for _ in range(3)] == [0, 1, 1]
    answering("echo 'GPU-0, NVIDIA Tiny, 1024, 570.1, 9.0'")
    assert [gpu.name for gpu in (*visible_gpus(), *visible_gpus())] == ["NVIDIA Tiny"] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0")
    assert len(visible_gpus()) == 1
    assert asked.read_text().count("x") == 5


MIG = """#!/bin/sh
case "$*" in
*--id=*) echo "No devices were found"; exit 6 ;;
-L) cat <<'X'
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)
  MIG 1g.10gb     Device  0: (UUID: MIG-a)
  MIG 2g.20gb+me  Device  1: (UUID: MIG-b)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)
X
;;
*) cat <<'X'
GPU-0, NVIDIA H100 80GB HBM3, [Insufficient Permissions], 570.1, 9.0, Enabled
GPU-1, NVIDIA H100 80GB HBM3, 81559, 570.1, 9.0, Disabled
X
esac
"""


def test_a_gpu_that_is_cut_up_is_its_parts(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(MIG)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_slots() == ["MIG-a", "MIG-b", "GPU-1"]
    assert [gpu.memory // 10**9 for gpu in visible_gpus()] == [10, 20, 85]
    assert visible_gpu().name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-b,MIG-a")
    assert gpu_slots() == [gpu.uuid for gpu in visible_gpus()] == ["MIG-b", "MIG-a"]


def test_a_gpu_that_others_fill_is_refused_with_whose_it_is():
    gpu = Gpu("NVIDIA H200", 140 * GIB, (9, 0))
    check_gpu_memory(60 * GIB, gpu, "bench", "end them", others=80 * GIB)
    with pytest.raises(UserError, match=r"has 140 GiB, of which other processes hold 81 .nvidia-smi says whose.; end"):
        check_gpu_memory(60 * GIB, gpu, "bench", "end them", others=81 * GIB)
    with pytest.raises(UserError, match=r"has 140 GiB; end"):
        check_gpu_memory(141 * GIB, gpu, "bench", "end them")


def test_no_garbage_is_looked_for_in_what_lasts_until_memory_is_wanted():
    class Model:
        pass

    looks, frozen = [], gc.get_freeze_count()

    def look(phase, info):
        looks.append(phase)

    with lasting():
        gc.callbacks.append(look)
        made = [[] for _ in range(10_000)]  # enough for a look, at their end at the latest
        model = Model()
        model.itself = model
    gc.callbacks.remove(look)
    assert not looks
    assert gc.get_freeze_count() - frozen > len(made)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is not None, "where no garbage is looked for, none is found"
    free_memory()
    assert gone() is None
