"""A transformer's blocks that wait in the host's memory: no image shows it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import diffusers
import pytest
import torch
from test_qwen_editor import decoded
from test_qwen_editor_profiles import tiny_lora
from tiny_models import SMALL, noise_image, request, shrink_megapixel

from slurm_bench.bench import random_qwen_image_21
from slurm_bench.editors.qwen import QwenImageEditor, base_editor, base_settings, host_blocks, random_weights
from slurm_bench.editors.qwen.fit import ways_to_fit
from slurm_bench.editors.qwen.host_blocks import ALIGNMENT, HostBlocks
from slurm_bench.editors.qwen.profiles import PROFILES, WITHOUT_SKIPS
from slurm_bench.editors.qwen.session import Session
from slurm_bench.editors.qwen.waiting import spread
from slurm_bench.editors.qwen21 import QwenImage21Editor
from slurm_bench.editors.qwen21.session import Session as Session21
from slurm_bench.errors import UserError
from slurm_bench.kernels.fp8 import OutlierLinear, stack_linears

torch.set_num_threads(1)  # more only get in each other's way at this size
OWN_LOOPS = [name for name, profile in PROFILES.items() if profile.own_loop]
needs_21 = pytest.mark.skipif(not hasattr(diffusers, "QwenImage21Pipeline"), reason="diffusers is older than 0.41")
REQUESTS = [request(), request("something else", seed=9, images=(noise_image(seed=5),), id="b")]


@pytest.fixture(autouse=True)
def _five_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the buffers hold, and no multiple of them."""
    shrink_megapixel(monkeypatch)
    for module in (random_weights, random_qwen_image_21):
        monkeypatch.setitem(module.SIZES["tiny"]["transformer"], "num_layers", 5)


def qwen_edit(profile: str, **params: Any) -> Session:
    made = QwenImageEditor("x", num_inference_steps=2, max_pixels=SMALL, **params).settings
    return Session(random_weights.random_pipeline(), PROFILES[profile], made, "cpu", None)


def qwen_21(profile: str, **params: Any) -> Session21:
    settings = {"num_inference_steps": 2, "max_pixels": 96**2, "true_cfg_scale": 4, **params}
    pipeline = random_qwen_image_21.random_qwen_image_21()
    return Session21(pipeline, PROFILES[profile], QwenImage21Editor("x", **settings).settings, "cpu", None)


def latents(session: Any) -> list[torch.Tensor]:
    with decoded(session.pipeline) as found:
        for each in REQUESTS:
            session.edit(each)
    return found


def assert_same(one: Any, other: Any) -> None:
    for found, expected in zip(latents(one), latents(other), strict=True):
        assert torch.equal(found, expected)


COUNTS = [("exact", 3), ("exact", 4), *((name, 5) for name in OWN_LOOPS)]


@pytest.mark.parametrize(("profile", "count"), COUNTS)
def test_streamed_blocks_change_no_bit_of_an_edit(profile: str, count: int) -> None:
    if PROFILES[profile].cache:
        pytest.importorskip("cache_dit", reason="the extra 'fast' is not installed")
    assert_same(qwen_edit(profile, stream_blocks=count), qwen_edit(profile))


@needs_21
@pytest.mark.parametrize(("profile", "count"), [each for each in COUNTS if each[0] in WITHOUT_SKIPS])
def test_nor_of_one_by_qwen_image_21(profile: str, count: int) -> None:
    assert_same(qwen_21(profile, stream_blocks=count), qwen_21(profile))


@pytest.mark.parametrize("profile", ["exact", "w8a16", "fp8"])
def test_a_folder_is_edited_with_as_without_streaming(profile: str, tmp_path: Any, monkeypatch: Any) -> None:
    """With its LoRA in, all that can wait on the host, and prompts encoded first."""
    random_weights.random_pipeline().save_pretrained(tmp_path / "model")
    lora = str(tiny_lora(tmp_path / "lora.safetensors"))
    monkeypatch.setattr(base_editor, "check_fp8", lambda *_: None)  # a CPU has the formulas, in float32
    monkeypatch.setattr(base_settings, "require", lambda *_: None)
    on_gpu = torch.cuda.is_available()  # whose products in 8 bits have bfloat16 results
    sessions = []
    for leanest in (False, True):
        editor = QwenImageEditor(
            str(tmp_path / "model"),
            dtype="bfloat16" if profile == "fp8" and on_gpu else "float32",
            num_inference_steps=2,
            max_pixels=SMALL,
            lora=lora,
            profile=profile,
        )
        *_, way = ways_to_fit(editor._find(), editor.settings, PROFILES[profile])
        if leanest:
            monkeypatch.setattr(base_editor, "choose_fit", lambda *_, way=way: way)
        editor.load()
        editor.prepare(iter(REQUESTS))
        sessions.append(editor._session)
    assert sessions[1].settings.savings == ("text_first", "offload_modulation", "stream_blocks=5")
    assert_same(*sessions)


def test_only_two_blocks_are_on_the_device_at_once(monkeypatch: Any) -> None:
    """Of any size, in several pieces; and a block that was skipped, or fails, leaves none in a wrong place."""
    monkeypatch.setattr(host_blocks, "PIECE", 16)
    blocks = [torch.nn.Linear(3, outputs) for outputs in (3, 5, 40, 4, 6)]
    for block in blocks:
        block.register_buffer("scale", torch.rand(2))  # as weights in 8 bits are
    expected = [block.weight.detach().clone() for block in blocks]
    host = HostBlocks(blocks, (), torch.device("cpu"))
    weights = [weight for block in blocks for weight in block.state_dict().values()]
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 2
    assert all(weight.storage_offset() * weight.itemsize % ALIGNMENT == 0 for weight in weights)
    for place in (0, 1, 2, 3, 4, 0, 3, 1, 1, 4, 0):
        with blocks[place].weights_here():
            assert torch.equal(blocks[place].weight, expected[place])
    with pytest.raises(ValueError, match="here"), blocks[1].weights_here():
        raise ValueError("here")
    for place in (2, 3, 4):
        with blocks[place].weights_here():
            assert torch.equal(blocks[place].weight, expected[place])
    assert [buffer._holds for buffer in host._buffers] == [0, 1], "behind the last the first come again"


def test_weights_that_share_memory_share_it_there() -> None:
    layers = torch.nn.ModuleList(torch.nn.Linear(4, 6) for _ in range(3))
    layers.append(stack_linears(*layers))
    turned = torch.nn.Linear(4, 6)
    turned.weight = torch.nn.Parameter(torch.randn(4, 6).t())
    layers.append(turned)
    inside = torch.nn.Linear(4, 6)
    inside.weight = torch.nn.Parameter(torch.randn(100, 4)[90:96])
    layers.append(inside)
    expected = [layer.weight.detach().clone() for layer in layers]
    HostBlocks([layers], (), torch.device("cpu"))
    with layers.weights_here():  # type: ignore[operator]
        assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, expected, strict=True))
    assert layers[3].weight.data_ptr() == layers[0].weight.data_ptr()
    assert layers[4].weight.stride() == (1, 6)
    room = layers[3].weight.untyped_storage().nbytes()
    assert room <= 10 * ALIGNMENT


def test_where_memory_cannot_be_pinned_one_line_says_so(monkeypatch: Any, caplog: Any) -> None:
    plain = torch.empty

    def refuse(*shape: Any, pin_memory: bool = False, **words: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nmore")
        return plain(*shape, **words)

    monkeypatch.setattr(host_blocks.torch, "empty", refuse)
    monkeypatch.setattr(host_blocks, "PIECE", 16)
    pins = host_blocks._Pins(True)
    content = torch.arange(40, dtype=torch.uint8)
    kept = [pins.keep(content), pins.keep(content)]
    assert all(torch.equal(torch.cat(pieces), content) for pieces in kept)
    (line,) = [each.getMessage() for each in caplog.records]
    assert "out of memory" in line


def test_a_gpu_copies_once_all_is_read_and_reads_once_all_is_copied(monkeypatch: Any) -> None:
    """Two streams of fakes, each of which writes down what it records and waits for."""
    done: list[tuple[str, str, Any]] = []
    now = ["computes"]

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def record_event(self) -> int:
            done.append((self.name, "reached", len(done)))
            return len(done) - 1

        def wait_event(self, event: Any) -> None:
            done.append((self.name, "waits for", event))

        def __enter__(self) -> None:
            now.append(self.name)

        def __exit__(self, *_: Any) -> None:
            now.pop()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computes"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(host_blocks._Buffer, "_copy", lambda _, pieces: done.append((now[-1], "brings", id(pieces))))
    blocks = [torch.nn.Linear(2, 2) for _ in range(3)]
    host = HostBlocks(blocks, (), torch.device("cpu"))
    done.clear()
    buffer = host._buffers[0]
    buffer._stream, buffer._holds = Stream("copies"), None
    buffer.release()
    with blocks[0].weights_here():  # the third block comes next in its buffer
        done.append(("computes", "reads", 0))
    assert done == [
        ("computes", "reached", 0),
        ("copies", "waits for", 0),
        ("copies", "brings", id(host._waiting[0])),
        ("copies", "reached", 3),
        ("computes", "waits for", 3),
        ("computes", "reads", 0),
        ("computes", "reached", 6),
        ("copies", "waits for", 6),
        ("copies", "brings", id(host._waiting[2])),
        ("copies", "reached", 9),
    ]


def test_what_is_streamed_is_spread_over_the_blocks() -> None:
    assert sorted(spread(3, 60)) == [0, 20, 40]
    assert spread(60, 60) == set(range(60))
    assert spread(0, 60) == set()
    blocks = qwen_edit("exact", stream_blocks=3).runner.transformer.transformer_blocks
    assert {number for number, block in enumerate(blocks) if block.weights_here is not nullcontext} == spread(3, 5)
    with pytest.raises(UserError, match=r"stream_blocks.*60"):
        spread(61, 60)
    with pytest.raises(UserError, match="stream_blocks"):
        qwen_edit("exact", stream_blocks=6)
    with pytest.raises(UserError, match="stream_blocks"):
        QwenImageEditor("x", stream_blocks=-1)
    with pytest.raises(UserError, match="stream_blocks"):
        QwenImageEditor("x", stream_blocks=2, profile="stock")


@pytest.mark.parametrize("gelu", [False, True])
def test_outliers_that_wait_on_the_host_are_the_same(gelu: bool) -> None:
    linear, x = torch.nn.Linear(40, 24), torch.randn(7, 40)
    here, there = OutlierLinear(linear, gelu=gelu), OutlierLinear(linear, gelu=gelu)
    there.keep_exact_on_host()
    with torch.no_grad():
        assert torch.equal(here(x), there(x))
