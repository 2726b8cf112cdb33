"""What a task doesn't need isn't imported before its model, and is there for who asks."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from slurm_bench.lean_imports import lean_imports

IMPORT = """
import sys
import pkgutil
from importlib import import_module, metadata
from importlib.util import find_spec

from slurm_bench.editors.qwen.family import QWEN_IMAGE_EDIT
from slurm_bench.lean_imports import lean_imports

plain = metadata.packages_distributions
with lean_imports():
    for library, name in QWEN_IMAGE_EDIT.classes.values():
        getattr(import_module(library), name)
    from diffusers import DiffusionPipeline

    assert metadata.packages_distributions() is metadata.packages_distributions()
    told = metadata.packages_distributions()
    missed = {name: of for name, of in plain().items() if told.get(name) != of}
    assert not missed, missed
    assert find_spec("sklearn") is None, "some releases of transformers import it"
    sys.modules.pop("sklearn")
assert metadata.packages_distributions is plain
import sklearn.metrics

seldom = ("scipy.stats._stats_py", "scipy.optimize._optimize", "scipy.integrate._ivp")
assert [name for name in seldom if name in sys.modules] == []
from transformers.loss.loss_for_object_detection import linear_sum_assignment

assert "scipy.optimize._optimize" not in sys.modules
assert [list(part) for part in linear_sum_assignment([[2, 1], [1, 2]])] == [[0, 1], [1, 0]]
assert "scipy.optimize._optimize" in sys.modules
from scipy.optimize import linear_sum_assignment as own

assert own is sys.modules["scipy.optimize._lsap"].linear_sum_assignment
import scipy.stats._distn_infrastructure as first_of_all  # asks for much of its package while it is imported
from diffusers.schedulers.scheduling_euler_discrete import scipy

assert first_of_all.rv_continuous is scipy.stats.rv_continuous and 0 < scipy.stats.beta.ppf(0.5, 0.6, 0.6) < 1

flux = "diffusers.models.transformers.transformer_flux"
assert flux not in sys.modules
import diffusers.models.transformers as every

assert flux not in sys.modules
assert not hasattr(every, "__wrapped__")
assert flux not in sys.modules, "such names are asked of every module"
assert not hasattr(every, "NoSuchModel")
from diffusers.models.unets import *

assert UNet2DConditionModel.__name__ in dir()
assert every.FluxTransformer2DModel is sys.modules[flux].FluxTransformer2DModel
from diffusers import FluxPipeline
import diffusers.models.autoencoders as encoders

assert "AutoencoderKL" in dir(encoders)
assert "AutoencoderKL" in pkgutil.get_data(encoders.__name__, "__init__.py").decode()
"""

BROKEN = """
import sys
from slurm_bench import lean_imports

lean_imports.WHOLE = ("broken",)
with lean_imports.lean_imports():
    import broken.sound
for _ in range(2):
    try:
        broken.Model
    except ImportError as error:
        print(error)
open(broken.__file__, "w").write("Model = 1")
print(broken.Model)
"""


def run(code: str, *folders: Path) -> str:
    path = os.pathsep.join([*map(str, folders), str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_no_model_needs_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    package = tmp_path / "sklearn"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '1.9.0'")
    (package / "metrics.py").write_text("def roc_curve(): ...")
    run(IMPORT, tmp_path)


@pytest.mark.parametrize("before", [None, "0"])
@pytest.mark.parametrize("at_work", [True, False])
def test_the_driver_is_not_asked_for_a_gpu_that_torch_works_on(
    monkeypatch: pytest.MonkeyPatch, before: str | None, at_work: bool
) -> None:
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: at_work)
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with suppress(KeyError), lean_imports():
        assert os.environ.get(name) == ("1" if at_work else before)
        raise KeyError
    assert os.environ.get(name) == before


def test_a_package_that_fails_says_why_to_each_who_asks(tmp_path: Path) -> None:
    package = tmp_path / "broken"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol')")
    (package / "sound.py").touch()
    assert run(BROKEN, tmp_path).splitlines() == ["undefined symbol", "undefined symbol", "1"]
