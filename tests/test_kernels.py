"""The GPU's kernels against the formulas: by Triton's interpreter where there is no GPU, on it where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from slurm_bench.kernels import attention as attention_module
from slurm_bench.kernels import ops
from slurm_bench.kernels.attention import _flash_attention_3, attention, attention_of_one
from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear, WidenedLinear, quantize, stack_linears
from slurm_bench.logs import log

GPU = torch.cuda.is_available()

COMPARE = """
import torch
from torch.nn import functional
from slurm_bench.kernels import fp8, ops, pixels, triton_fp8, triton_ops, triton_pixels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


def same(found, expected, bound=1e-5):
    # To the last bit of 16, where they are 16.
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    step = 0 if found.dtype == torch.float32 else torch.finfo(found.dtype).eps
    error = (found.cpu().float() - expected.float()).abs()
    assert (error <= bound + step * expected.float().abs()).all(), error.max()


def there(*values):
    return [value.to(DEVICE) if isinstance(value, torch.Tensor) else value for value in values]


def same_in_8_bits(values, scale, exact, bound=1e-7):
    assert values.dtype == fp8.FP8
    same(scale, exact.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 448, bound)
    values, exact = values.cpu().float(), exact / scale.cpu()
    # E4M3 has three bits behind the point, and steps of 2^-9 near zero. The interpreter loses a carry: it makes 64 of
    # what is nearest to 128.
    rounded = exact.to(fp8.FP8).float().abs()
    carried = (DEVICE == "cpu") & (rounded > exact.abs()) & (rounded.frexp().mantissa == 0.5)
    assert carried.sum() < exact.numel() / 8
    assert ((values - exact).abs() <= exact.abs() / 15 + 2**-9)[~carried].all()


def gelu_of(x, gelu):
    return functional.gelu(x.float(), approximate="tanh") if gelu else x.float()


def part_of(wider):
    # With gaps between its rows.
    return wider[:, 3:-3]


channels, is_outlier = torch.tensor([2, 3, 17]), torch.zeros(24, dtype=torch.int8)
is_outlier[channels] = 1
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter rounds to bfloat16 downwards
for dtype in (torch.float32, HALF):
    x, y, tables = (torch.randn(shape) for shape in ((7, 30), (7, 30), (2, 6, 24)))
    x[5:], y[5:] = 1e-4 * x[5:], 1e-4 * y[5:]  # beside these, eps counts
    x[2], y[2] = 0, 0
    x, y, tables = part_of(x).to(dtype), part_of(y).to(dtype), (0.3 * tables).to(dtype)
    before = x.clone()
    for table in (tables[:1], tables):
        for added in ((None, None), (y, table[:, 2].clone())):
            given = there(x, table[:, 3:5], 4, 1e-6), there(*added)
            expected = ops.norm_modulate(x, table[:, 3:5], 4, 1e-6, False, *added)
            for part, wanted in zip(triton_ops.norm_modulate(*given[0], False, *given[1]), expected, strict=True):
                same(part, wanted)
            summed, *narrow = triton_ops.norm_modulate(*given[0], True, *given[1])
            same(summed, expected[0])
            exact = ops.norm_modulate(expected[0].float(), table[:, 3:5].float(), 4, 1e-6, False)[1]
            same_in_8_bits(*narrow, exact, 1e-6)
        gates = table.to(DEVICE)[:, 5]
        same(triton_ops.add_gated(*there(x, y), gates, 4), ops.add_gated(x, y, table[:, 5], 4))

    for interleaved in (True, False):
        for kinds, groups in ((0, 0), (1, 1), (2, 1), (2, 3)):
            weights = part_of(torch.randn(groups, 18, kinds).to(dtype)).permute(2, 0, 1) if kinds else None
            packed, (cos, sin) = torch.randn(7, 3, 6, 12), (part_of(each) for each in torch.randn(2, 7, 12))
            packed[5:] *= 1e-3
            found, expected = packed.to(DEVICE, dtype, copy=True), packed.to(dtype, copy=True)
            ops.rotate_(expected[:, 1], cos, sin, interleaved, weights, 3)
            triton_ops.rotate_(found[:, 1], *there(cos, sin, interleaved, weights), 3, 1e-6)
            same(found, expected)

    weight, bias = torch.randn(2, 24, dtype=dtype)
    for other in (None, y):
        expected = ops.rms_norm(x, weight, 1e-6, other)
        for part, wanted in zip(triton_ops.norm(*there(x, weight, None, 1e-6, other)), expected, strict=True):
            same(part, wanted)
        expected = ops.layer_norm(x, weight, bias, 1e-6, other)
        for part, wanted in zip(triton_ops.norm(*there(x, weight, bias, 1e-6, other)), expected, strict=True):
            same(part, wanted)
    for pair in ((x, y), torch.randn(2, 3, 2000, dtype=dtype)):  # within and beyond what a program takes
        same(triton_ops.silu_mul(*there(*pair)), ops.silu_mul(*pair))

    for gelu in (False, True) if dtype == torch.float32 or DEVICE == "cpu" else (False,):  # else it is a GPU's own
        exact = gelu_of(x, gelu)
        same_in_8_bits(*triton_fp8.quantize(*there(x, gelu)), exact)
        *found, outliers = triton_fp8.quantize_without_outliers(*there(x, channels, is_outlier), gelu)
        same(outliers, exact[:, channels].to(dtype))
        same_in_8_bits(*found, exact.index_fill(1, channels, 0))
    assert torch.equal(x, before)

every = torch.arange(256).to(torch.uint8).view(fp8.FP8).float().nan_to_num(0)
every = every.to(fp8.FP8)
# Within and beyond what a program takes.
for weight in (every.view(16, 16), part_of(every.repeat(3, 1)), part_of(every.repeat(3, 17))):
    scale = torch.rand(1, len(weight))
    for dtype in (torch.float32, HALF):
        found = triton_fp8.widen(*there(weight, scale, dtype))
        assert torch.equal(found.cpu(), (weight.float() * scale.t()).to(dtype))


def picture(*shape):
    return torch.randn(shape).to(dtype, memory_format=torch.channels_last)


# Below, within and beyond what a program takes at a time.
for width, dtype in ((3, torch.float32), (24, torch.float32), (24, HALF), (70, torch.float32), (144, torch.float32)):
    x, y, weight, bias = picture(2, width, 5, 7), picture(2, width, 5, 7), *torch.randn(2, width).to(dtype)
    x[0, :, 1, 1] = 0
    x[0, :, 1, 2] *= 1e-7
    elsewhere = x.contiguous(), y.contiguous()  # in memory as nothing else is
    same(triton_pixels.rms_norm_silu(*there(elsewhere[0], weight, None)), pixels.rms_norm_silu(x, weight))
    same(triton_pixels.add_(*there(x.clone(), bias, elsewhere[1])), pixels.add_(x.clone(), bias, y))
    same(triton_pixels.enlarge(*there(elsewhere[0], 2, None, None)), pixels.enlarge(x, 2))
    for added in (None, bias):
        found = triton_pixels.rms_norm_silu(*there(x, weight, added))
        same(found, pixels.rms_norm_silu(x, weight, added))
        assert added is not None or not found[0, :, 1, 1].any()
    for other in (None, y):
        found = triton_pixels.add_(*there(x.clone(), bias, other))
        same(found, pixels.add_(x.clone(), bias, other))
    mixed = torch.randint(width, (5, 2, 2)).permute(1, 2, 0)
    for channels in (None, mixed):
        expected = pixels.enlarge(x, 2, channels)
        same(triton_pixels.enlarge(*there(x, 2, channels), None), expected)
        onto = picture(*expected.shape)
        found = triton_pixels.enlarge(*there(x, 2, channels, onto.clone()))
        same(found, pixels.enlarge(x, 2, channels, onto))
print("all compared")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_gpu_computes_what_the_formulas_say() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    if not GPU:
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run([sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all compared"


def test_an_8_bit_linear_is_near_the_exact_one() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(256, 64)
    x = torch.randn(50, 256) * torch.logspace(-3, 3, 50)[:, None]
    with torch.no_grad():
        exact, found = layer(x), ops.linear(Fp8Linear.of(layer), x)
        out = torch.empty(60, 64)
        ops.linear(Fp8Linear.of(layer), x, out[10:])
    error = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.1, "a token's error doesn't depend on how large another token is"
    assert torch.equal(out[10:], found)


def test_a_feed_forward_is_the_same_in_8_bits_but_for_rounding() -> None:
    torch.manual_seed(0)
    first, last, x = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64), torch.randn(20, 64)
    with torch.no_grad():
        exact = last(functional.gelu(first(x), approximate="tanh"))
        assert torch.allclose(ops.feed_forward(first, last, x), exact, atol=1e-6)
        for narrow in (Fp8Linear.of(last), OutlierLinear(last, 8)):
            found = ops.feed_forward(Fp8Linear.of(first), narrow, quantize(x))
            assert (found - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("bias", [False, True])
def test_weights_alone_in_8_bits_are_near_the_exact_ones_also_side_by_side(bias: bool) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(256, 64, bias) for _ in range(2)]
    x, out = torch.randn(50, 256), torch.empty(60, 128)
    with torch.no_grad():
        exact = torch.cat([layer(x) for layer in layers], dim=1)
        narrow = [WidenedLinear.of(layer) for layer in layers]
        apart = torch.cat([ops.linear(layer, x) for layer in narrow], dim=1)
        ops.linear(stack_linears(*narrow), x, out[10:])
        after = torch.cat([ops.linear(layer, x) for layer in narrow], dim=1)
    assert 0 < (apart - exact).norm() / exact.norm() < 0.05
    assert torch.allclose(out[10:], apart, atol=1e-6)
    assert torch.equal(after, apart), "they are views of the stacked one's memory now"


def test_a_gated_feed_forward_is_the_same_in_8_bits_but_for_rounding() -> None:
    torch.manual_seed(0)
    gate, up = (torch.nn.Linear(64, 256, bias=False) for _ in range(2))
    last, x = torch.nn.Linear(256, 64, bias=False), torch.randn(20, 64)
    with torch.no_grad():
        exact = last(functional.silu(gate(x)) * up(x))
        assert torch.allclose(ops.swiglu(gate, up, last, x), exact, atol=1e-6)
        for narrow in (Fp8Linear.of(last), OutlierLinear(last, 8, gelu=False)):
            found = ops.swiglu(Fp8Linear.of(gate), Fp8Linear.of(up), narrow, quantize(x))
            assert (found - exact).norm() / exact.norm() < 0.1


def test_what_is_zero_stays_zero_in_8_bits() -> None:
    layer, x = torch.nn.Linear(64, 16, bias=False), torch.randn(20, 64)
    with torch.no_grad():
        layer.weight[3], x[2] = 0, 0
        for narrow in (Fp8Linear.of(layer), WidenedLinear.of(layer)):
            found = ops.linear(narrow, x)
            assert not found[2].any()
            assert not found[:, 3].any()
            assert found[0, 0] != 0


def test_weights_in_16_bits_are_brought_into_8_in_float32() -> None:
    layer = torch.nn.Linear(64, 16).bfloat16()
    found = WidenedLinear.of(layer)
    wide = WidenedLinear.of(layer.float())
    assert torch.equal(found.scale, wide.scale)
    assert torch.equal(found.weight.float(), wide.weight.float())


@pytest.mark.parametrize(("gelu", "large"), [(True, 5000), (False, 5000), (False, -5000)])
def test_an_outlier_does_not_drown_what_stands_beside_it(gelu: bool, large: int) -> None:
    """A channel thousands of times as large as the others, as Qwen-Image's MLPs have them. What it adds is known;
    how much of the rest is left?"""
    torch.manual_seed(0)
    last, x = torch.nn.Linear(256, 64, bias=False), torch.randn(20, 256)
    x[::2, 77] = large + 100 * torch.randn(10)
    if gelu:
        x[:, 100:120] = -2 * large  # nothing is left of these, so they are no outliers
    with torch.no_grad():
        hidden = functional.gelu(x, approximate="tanh") if gelu else x
        of_outlier = hidden[:, 77:78] * last.weight[:, 77]
        rest = last(hidden) - of_outlier
        narrow, apart = Fp8Linear.of(last)(quantize(x, gelu)), OutlierLinear(last, 8, gelu)(x)
    assert (narrow - of_outlier - rest).norm() > rest.norm()
    assert (apart - of_outlier - rest).norm() < 0.1 * rest.norm()


def test_outliers_are_looked_for_anew_once_forgotten() -> None:
    torch.manual_seed(0)
    last, x = torch.nn.Linear(256, 64), torch.randn(20, 256)
    other = x.roll(100, dims=1)
    other[:, 3], x[:, 200] = 5000, 5000
    with torch.no_grad():
        fresh, layer = OutlierLinear(last, 8)(other), OutlierLinear(last, 8)
        layer(x)
        kept = layer(other)
        layer.reset()
        assert torch.equal(layer(other), fresh)
    assert not torch.equal(kept, fresh)


@pytest.mark.parametrize("narrow", [False, True])
def test_layers_side_by_side_give_what_each_gives_and_go_on_to_work(narrow: bool) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width) for width in (32, 16)]
    layers = [Fp8Linear.of(layer) for layer in layers] if narrow else layers
    x = torch.randn(20, 64)
    with torch.no_grad():
        before = torch.cat([ops.linear(layer, x) for layer in layers], dim=1)
        joined = stack_linears(*layers)
        assert torch.allclose(ops.linear(joined, x), before, atol=1e-6)
        assert torch.allclose(torch.cat([ops.linear(layer, x) for layer in layers], dim=1), before, atol=1e-6)
    for layer in layers:
        assert layer.weight.untyped_storage().data_ptr() == joined.weight.untyped_storage().data_ptr(), "no copy"


@pytest.mark.parametrize(("tokens", "pairs"), [(6, 12), (8, 12), (7, 6)])
def test_rope_tables_of_another_size_are_refused(tokens: int, pairs: int) -> None:
    x, table = torch.randn(7, 3, 24), torch.randn(tokens, pairs)
    with pytest.raises(ValueError, match="RoPE"):
        ops.rotate_(x, table, table, True)
    right = torch.randn(7, 12)
    for pair in ((right, table), (table, right)):
        with pytest.raises(ValueError, match="RoPE"):
            ops.rotate_(x, *pair, True)
    ops.rotate_(x, right, right, True)


@pytest.mark.parametrize(("queries", "causal"), [(9, False), (9, True), (5, True), (1, True)])
def test_attention_is_softmax_over_what_may_be_seen(queries: int, causal: bool) -> None:
    """By hand, in float64; a causal one's last query sees every key, and two heads share a key."""
    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
    query, key, value = (torch.randn(2, count, heads, 24) for count, heads in ((queries, 4), (9, 2), (9, 2)))
    found = attention(*(part.to(device, dtype) for part in (query, key, value)), 0.3, causal)
    query, key, value = (part.double() for part in (query, key, value))
    logits = 0.3 * torch.einsum("bqhd,bkhd->bhqk", query, key.repeat_interleave(2, dim=2))
    if causal:
        last_seen = torch.arange(queries)[:, None] + 9 - queries
        logits = logits.masked_fill(torch.arange(9) > last_seen, float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value.repeat_interleave(2, dim=2))
    assert (found.cpu().double() - expected).norm() / expected.norm() < (0.01 if GPU else 1e-6)


def test_one_query_a_row_sees_its_own_keys_alone() -> None:
    """Three heads share a key; the rows see one, five and all nine."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 6, 24), torch.randn(3, 9, 2, 24), torch.randn(3, 9, 2, 24)
    seen = torch.arange(9) < torch.tensor([1, 5, 9])[:, None]
    added = torch.zeros(3, 9).masked_fill(~seen, float("-inf"))
    for scale in (None, 0.7):
        alone = [
            attention(query[row, None, None], key[row, None, :count], value[row, None, :count], scale)[0, 0]
            for row, count in enumerate((1, 5, 9))
        ]
        for mask in (seen, added):
            found = attention_of_one(query, key, value, mask, scale)
            assert torch.allclose(found, torch.stack(alone), atol=1e-6)


def test_a_flash_attention_built_for_another_torch_is_a_warning(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "fa3_fwd_interface.py").write_text("raise ImportError('undefined symbol: aoti')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fa3_fwd_interface", raising=False)
    monkeypatch.setattr(log, "propagate", True)
    _flash_attention_3.cache_clear()
    try:
        assert _flash_attention_3() is None
    finally:
        _flash_attention_3.cache_clear()
    assert "undefined symbol: aoti" in caplog.text


def test_no_flash_attention_is_no_warning(monkeypatch, caplog) -> None:
    monkeypatch.setattr(attention_module, "FLASH_ATTENTION_3", {"no_such_module": "no_such_operators"})
    monkeypatch.setattr(log, "propagate", True)
    assert _flash_attention_3.__wrapped__() is None
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_flash_attention_without_that_operator_is_called_by_its_function(tmp_path, monkeypatch) -> None:
    (tmp_path / "flash_without_operator.py").write_text(
        "def flash_attn_func(query, key, value, softmax_scale, causal):\n"
        "    return [query, key, value, softmax_scale, causal]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(attention_module, "FLASH_ATTENTION_3", {"flash_without_operator": "no_such_operators"})
    _flash_attention_3.cache_clear()
    try:
        assert _flash_attention_3()("q", "k", "v", 0.3, True) == ["q", "k", "v", 0.3, True]
    finally:
        _flash_attention_3.cache_clear()


def test_a_flash_attentions_operator_is_asked_for_what_its_function_would_ask() -> None:
    library, asked = torch.library.Library("stand_in_for_flash", "DEF"), []
    library.define("fwd(Tensor q, Tensor k, Tensor v, float softmax_scale, bool is_causal, int num_splits) -> Tensor[]")

    def stand_in(query, key, value, *further):
        asked.append(further)
        return [query.clone(), key.clone()]

    library.impl("fwd", stand_in, "CompositeExplicitAutograd")
    query, key, value = torch.randn(3, 1, 2, 2, 16)
    compute = attention_module._by_operator("stand_in_for_flash")
    for scale, causal in ((None, True), (0.3, False)):
        assert torch.equal(compute(query, key, value, scale, causal), query)
    assert asked == [(0.25, True, 1), (0.3, False, 1)]
    assert attention_module._by_operator("no_such_operators") is None


@pytest.mark.parametrize(
    ("capability", "cuda", "dtype", "flash", "name"),
    [
        ((9, 0), "12.8", torch.bfloat16, True, "FlashAttention 3"),
        ((9, 0), "12.8", torch.bfloat16, False, "cuDNN"),
        ((9, 0), "12.8", torch.float32, True, "cuDNN"),
        ((9, 0), None, torch.bfloat16, True, "torch"),
        ((8, 0), "12.8", torch.bfloat16, True, "torch"),
        ((10, 0), "12.8", torch.bfloat16, True, "torch"),
    ],
)
def test_a_record_names_the_kernel_that_a_gpu_has(monkeypatch, capability, cuda, dtype, flash, name) -> None:
    """Without `cuda` it is AMD's, whose capabilities are of the same form."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention_module, "_flash_attention_3", lambda: print if flash else None)
    select = attention_module.select_kernel.__wrapped__
    assert select(torch.device("cuda", 0), dtype).name == name
    assert select(torch.device("cpu"), dtype).name == "torch"


@pytest.mark.skipif(not GPU or not find_spec("fa3_fwd_interface"), reason="no GPU with FlashAttention 3")
@pytest.mark.parametrize(("queries", "causal", "scale"), [(200, False, None), (200, True, 0.3), (64, True, None)])
def test_its_operator_computes_what_its_function_does(queries: int, causal: bool, scale: float | None) -> None:
    torch.manual_seed(0)
    of = {count: torch.randn(2, count, 4, 72, device="cuda", dtype=torch.bfloat16) for count in (queries, 201)}
    query, key, value = of[queries], of[201][:, :, :2], of[201][:, :, 2:]
    function = import_module("fa3_fwd_interface").flash_attn_func
    by_function = function(query, key, value, softmax_scale=scale, causal=causal)
    assert torch.equal(attention_module._by_operator("fa3_fwd")(query, key, value, scale, causal), by_function)


@pytest.mark.skipif(not GPU, reason="the matrix products' epilogues are a GPU's")
def test_the_gpus_feed_forward_has_the_tangents_gelu() -> None:
    torch.manual_seed(0)
    first, last = (torch.nn.Linear(256, 256, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(40, 256, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        narrow = [kind.of(first) for kind in (WidenedLinear, Fp8Linear)]
        found = [ops.feed_forward(each, last, x) for each in (first, *narrow)]
        found += [ops.feed_forward(narrow[1], each, x) for each in (Fp8Linear.of(last), OutlierLinear(last))]
        exact = last.float()(functional.gelu(first.float()(x.float()), approximate="tanh"))
    for each, bound in zip(found, (0.01, 0.05, 0.07, 0.1, 0.1), strict=True):
        assert (each.float() - exact).norm() / exact.norm() < bound
