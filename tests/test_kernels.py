"""The GPU's kernels against the formulas: by Triton's interpreter where there is no GPU, on it where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from slurm_bench.kernels import ops

GPU = torch.cuda.is_available()

COMPARE = """
import torch
from slurm_bench.kernels import ops, triton_ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


def same(found, expected, bound=1e-5):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    error = (found.cpu().float() - expected.float()).abs().max().item()
    assert error <= bound, error


def there(*values):
    return [value.to(DEVICE) if isinstance(value, torch.Tensor) else value for value in values]


x, y, tables = torch.randn(7, 24), torch.randn(7, 24), torch.randn(2, 6, 24)
for table in (tables[:1], tables):
    for other in (None, y):
        expected = ops.norm_modulate(x, table, 3, 4, 1e-6, False, other, 2)
        found = triton_ops.norm_modulate(*there(x, table, 3, 4, 1e-6, False, other, 2))
        same(found[0], expected[0])
        same(found[1], expected[1])
    same(triton_ops.add_gated(*there(x, y, table, 5, 4)), ops.add_gated(x, y, table, 5, 4))

for interleaved in (True, False):
    for weights in (None, (torch.randn(12), torch.randn(12))):
        packed, cos, sin = torch.randn(7, 3, 5, 12), torch.randn(7, 6), torch.randn(7, 6)
        found, expected = packed.clone().to(DEVICE), packed.clone()
        ops.rotate_(expected[:, 1], cos, sin, interleaved, weights, 3)
        ends = None if weights is None else tuple(there(*weights))
        triton_ops.rotate_(found[:, 1], *there(cos, sin), interleaved, ends, 3, 1e-6)
        same(found, expected)

weight = torch.randn(24)
for other in (None, y):
    expected = ops.rms_norm(x, weight, 1e-6, other)
    for part, wanted in zip(triton_ops.rms_norm(*there(x, weight, 1e-6, other)), expected):
        same(part, wanted)
same(triton_ops.silu_mul(*there(x, y)), ops.silu_mul(x, y))

for gelu in (False, True):
    expected = ops.quantize(x, gelu)
    values, scale = triton_ops.quantize(*there(x, gelu))
    same(scale, expected.scale, 1e-7)
    # The interpreter rounds to 8 bits downwards: a step of a sixteenth to an eighth.
    same((values.float() * scale).cpu(), expected.values.float() * expected.scale, 0.26 * x.abs().max().item())
print("all compared")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_gpu_computes_what_the_formulas_say() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    if not GPU:
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run([sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all compared"


def test_an_8_bit_linear_is_near_the_exact_one() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(256, 64)
    x = torch.randn(50, 256) * torch.logspace(-3, 3, 50)[:, None]
    with torch.no_grad():
        exact, found = layer(x), ops.linear(ops.Fp8Linear(layer), x)
        out = torch.empty(60, 64)
        ops.linear(ops.Fp8Linear(layer), x, out[10:])
    error = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.1, "a token's error doesn't depend on how large another token is"
    assert torch.equal(out[10:], found)


def test_a_feed_forward_is_the_same_in_8_bits_but_for_rounding() -> None:
    torch.manual_seed(0)
    first, last, x = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64), torch.randn(20, 64)
    with torch.no_grad():
        exact = last(functional.gelu(first(x), approximate="tanh"))
        assert torch.allclose(ops.feed_forward(first, last, x), exact, atol=1e-6)
        found = ops.feed_forward(ops.Fp8Linear(first), ops.Fp8Linear(last), ops.quantize(x))
    assert (found - exact).norm() / exact.norm() < 0.1


@pytest.mark.skipif(not GPU, reason="the matrix products' epilogues are a GPU's")
def test_the_gpus_feed_forward_has_the_tangents_gelu() -> None:
    torch.manual_seed(0)
    first, last = (torch.nn.Linear(256, 256, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(40, 256, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        found = ops.feed_forward(first, last, x)
        exact = last.float()(functional.gelu(first.float()(x.float()), approximate="tanh"))
    assert (found.float() - exact).norm() / exact.norm() < 0.01
