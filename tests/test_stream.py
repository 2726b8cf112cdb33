"""What is streamed is what `from_pretrained` loads, tensor for tensor; and a stream needs no turn."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from slurm_bench.checkpoints import stream
from slurm_bench.checkpoints.folder import weight_files
from slurm_bench.checkpoints.place import diffusers_model, transformers_model
from slurm_bench.checkpoints.stream import WeightStream
from slurm_bench.editors.qwen import warm_up
from slurm_bench.editors.qwen.loading import PLACE
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.errors import UserError
from slurm_bench.kernels import first_use
from slurm_bench.kernels.first_use import Kernels
from slurm_bench.scorers.qwen3vl.random_weights import random_judge
from slurm_bench.scorers.qwen3vl.warm_up import kernels_of
from slurm_bench.stages import loading
from slurm_bench.stages.loading import keep_bytecode, load_slot
from slurm_bench.stages.stop import StopSignals

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline and two judges, of several shards each."""
    root = tmp_path_factory.mktemp("models")
    random_pipeline("tiny").save_pretrained(root, max_shard_size="100KB")
    for name, moe in (("judge", False), ("experts", True)):
        model, _ = random_judge("tiny", moe=moe)
        model.save_pretrained(root / name, max_shard_size="30KB")
    tied, _ = random_judge("tiny")
    tied.config.tie_word_embeddings = tied.config.text_config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(root / "tied")
    assert min(len(weight_files(root / name)) for name in ("transformer", "experts")) > 1
    return root


def both(folder: Path, cls: Any, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """The model as it is streamed, and as the library loads it."""
    place: Callable[..., Any] = diffusers_model if "diffusers" in cls.__module__ else transformers_model
    with WeightStream(device, threads=3, chunk=4096) as weights:
        weights.begin(folder)
        streamed = place(cls, folder, dtype, device)(weights.take(folder))
    name = "torch_dtype" if place is diffusers_model else "dtype"
    return streamed, cls.from_pretrained(folder, **{name: dtype}, device_map={"": device})


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """Tied ones by all their names; buffers that are not stored, and tables that are plain attributes, too."""
    found = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for path, module in model.named_modules():
        found |= {f"{path}.{n}": value for n, value in vars(module).items() if isinstance(value, torch.Tensor)}
    return found


def assert_equal(streamed: Any, loaded: Any) -> None:
    found, expected = tensors_of(streamed), tensors_of(loaded)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].device) == (tensor.dtype, tensor.device), name
        assert found[name].requires_grad == tensor.requires_grad, name
        assert torch.equal(found[name], tensor), name
    assert not any(module.training for module in streamed.modules())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("text_encoder", "transformers.Qwen2_5_VLForConditionalGeneration"),
        ("transformer", "diffusers.QwenImageTransformer2DModel"),
        ("vae", "diffusers.AutoencoderKLQwenImage"),
        ("judge", "transformers.Qwen3VLForConditionalGeneration"),
        ("experts", "transformers.Qwen3VLMoeForConditionalGeneration"),
        ("tied", "transformers.Qwen3VLForConditionalGeneration"),
    ],
)
def test_a_streamed_model_is_the_loaded_one(
    folders: Path, name: str, cls: str, dtype: torch.dtype, device: str
) -> None:
    library, _, class_name = cls.partition(".")
    streamed, loaded = both(folders / name, getattr(__import__(library), class_name), dtype, device)
    assert_equal(streamed, loaded)
    if name == "tied":
        assert streamed.lm_head.weight is streamed.model.language_model.embed_tokens.weight
    if library == "transformers":
        assert streamed.generation_config == loaded.generation_config
        assert streamed.config.to_dict() == loaded.config.to_dict()


@pytest.mark.parametrize("device", DEVICES)
def test_weights_stored_in_8_bits_are_widened_as_the_library_does(folders: Path, tmp_path: Path, device: str) -> None:
    from diffusers import QwenImageTransformer2DModel

    for file in (folders / "transformer").iterdir():
        if file.suffix == ".safetensors":
            narrow = {name: t.to(torch.float8_e4m3fn) for name, t in load_file(file).items()}
            save_file(narrow, tmp_path / file.name)
        else:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert_equal(*both(tmp_path, QwenImageTransformer2DModel, torch.bfloat16, device))


def test_parts_that_must_stay_wide_stay_wide(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import QwenImageTransformer2DModel

    monkeypatch.setattr(QwenImageTransformer2DModel, "_keep_in_fp32_modules", ["img_in", "norm_out"])
    streamed, loaded = both(folders / "transformer", QwenImageTransformer2DModel, torch.bfloat16, "cpu")
    assert streamed.img_in.weight.dtype == torch.float32
    assert_equal(streamed, loaded)


def test_a_missing_tensor_is_an_error(folders: Path) -> None:
    from diffusers import QwenImageTransformer2DModel

    folder = folders / "transformer"
    tensors = stream.read_plainly(folder)
    del tensors["img_in.weight"]
    with pytest.raises(RuntimeError, match=r"img_in\.weight"):
        diffusers_model(QwenImageTransformer2DModel, folder, torch.bfloat16, "cpu")(tensors)


@pytest.mark.parametrize(("name", "kind"), [("judge", ""), ("experts", "Moe"), ("tied", "")])
def test_a_tensor_that_a_judge_lacks_is_not_made_at_random(folders: Path, name: str, kind: str) -> None:
    cls = getattr(transformers, f"Qwen3VL{kind}ForConditionalGeneration")
    tensors = stream.read_plainly(folders / name)
    transformers_model(cls, folders / name, torch.bfloat16, "cpu")(tensors)
    del tensors["model.visual.blocks.0.attn.qkv.weight"]
    with pytest.raises(UserError, match=r"lack .*visual\.blocks\.0\.attn\.qkv\.weight; download"):
        transformers_model(cls, folders / name, torch.bfloat16, "cpu")(tensors)


def test_a_text_encoder_may_lack_its_logits(folders: Path) -> None:
    tensors = stream.read_plainly(folders / "text_encoder")
    del tensors["lm_head.weight"]
    place, cls = PLACE["transformers"], transformers.Qwen2_5_VLForConditionalGeneration
    place(cls, folders / "text_encoder", torch.bfloat16, "cpu")(tensors)
    with pytest.raises(UserError, match="lm_head"):
        transformers_model(cls, folders / "text_encoder", torch.bfloat16, "cpu")(tensors)


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
def test_chunks_cover_each_byte_once(size: int) -> None:
    """Copied by their plan, chunk by chunk, a file's bytes are the tensors' bytes."""
    lengths = [5, 0, 16, 1, 33]
    data = torch.arange(sum(lengths), dtype=torch.uint8)
    targets, begin = [], 0
    for length in lengths:
        targets.append((torch.full((length,), 255, dtype=torch.uint8), begin, begin + length))
        begin += length
    end = 0
    for first, last, copies in stream._cut(targets, size):
        assert first == end < last <= first + size
        end = last
        for copy in copies:
            source = data[first + copy.start : first + copy.start + copy.length]
            copy.target[copy.offset : copy.offset + copy.length] = source
    assert torch.equal(torch.cat([target for target, _, _ in targets]), data)


def test_what_is_under_way_is_awaited_whatever_happens(tmp_path: Path) -> None:
    """The GPU still reads and writes: the memory must be nobody else's yet."""
    begun: list[slice] = []

    class Target:
        def __getitem__(self, part: slice) -> Target:
            begun.append(part)
            return self

        def copy_(self, *_: Any, **__: Any) -> None:
            if len(begun) == 2:
                raise RuntimeError("a lost GPU")

    class Stream:
        def synchronize(self) -> None:
            begun.clear()

    (tmp_path / "weights").write_bytes(b"12345678")
    copies = tuple(stream._Copy(cast(Any, Target()), 0, start, 4) for start in (0, 4))
    buffer = torch.empty(8, dtype=torch.uint8)
    with open(tmp_path / "weights", "rb") as file, pytest.raises(RuntimeError, match="lost"):
        stream._bring(stream._Chunk(file.fileno(), 0, 8, copies, stream._Part(None)), buffer, Stream())
    assert not begun


def test_room_that_is_missing_is_told_to_who_waits(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in a thread."""

    def make_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(WeightStream, "_make_room", make_room)
    monkeypatch.setattr(WeightStream, "_work", lambda self: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    with WeightStream("cuda") as weights:
        weights.begin(folders / "vae")
        with pytest.raises(torch.OutOfMemoryError, match="none left"):
            weights.take(folders / "vae")


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"12345")
    with open(tmp_path / "weights", "rb") as file, pytest.raises(OSError, match="changed"):
        stream.read_exactly(file.fileno(), memoryview(bytearray(8)), 0)


def test_what_is_slow_to_read_is_told_from_what_is_not(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = weight_files(folders / "transformer")
    monkeypatch.setattr(stream, "SLOW_PROBE_SECONDS", 60.0)
    assert stream.quick_to_read(files)
    monkeypatch.setattr(stream, "SLOW_PROBE_SECONDS", 0.0)
    assert not stream.quick_to_read(files)


def test_a_turn_is_not_waited_for_once_none_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(loading, "POLL", 0.01)
    answers = iter([False, False, True])
    with load_slot(1, StopSignals()), load_slot(1, StopSignals(), unneeded=lambda: next(answers)):
        assert next(answers, None) is None, "asked until there was no need"


def test_bytecode_is_kept_where_the_packages_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(loading, "HEAVY_PACKAGES", ())
    spec = ModuleSpec("torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    spec.cached = str(tmp_path)
    keep_bytecode()
    assert sys.pycache_prefix is None, "there is bytecode"
    spec.cached = str(tmp_path / "none.pyc")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    keep_bytecode()
    assert sys.pycache_prefix is None, "the folder is another user's, whose bytecode must not be run"
    monkeypatch.undo()
    monkeypatch.setattr(loading, "HEAVY_PACKAGES", ())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    keep_bytecode()
    assert Path(sys.pycache_prefix).parent == tmp_path / f"slurm_bench-{os.getuid()}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fp8", [False, True])
def test_the_warm_up_runs_what_the_blocks_run(monkeypatch: pytest.MonkeyPatch, device: str, fp8: bool) -> None:
    """It calls each operation as the kernels have it; a mistake there would only be a line in a log."""
    for name, size in (("CHANNELS", 64), ("HEADS", 4), ("MIDDLE", 128)):
        monkeypatch.setattr(warm_up, name, size)
    warm_up.run_once(device, fp8, tokens=32, dtype="bfloat16" if device == "cuda" else "float32")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fp8", [False, True])
def test_a_judges_warm_up_runs_what_its_layers_run(device: str, fp8: bool) -> None:
    config = {
        "text_config": {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_size": 32,
            "head_dim": 16,
            "intermediate_size": 64,
        },
        "vision_config": {"hidden_size": 32, "num_heads": 2},
    }
    kernels = kernels_of(config, "bfloat16" if device == "cuda" else "float32", device, fp8)
    assert kernels is not None
    kernels.build()
    assert kernels_of({"text_config": {}}, "bfloat16", device, fp8) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("profile", ["exact", "fp8"])
def test_the_first_prefill_finds_its_kernels_built(tmp_path: Path, profile: str) -> None:
    """In a process of its own, with a cache of its own."""
    lines = f"""
        import sys
        from pathlib import Path
        import tiny_judge
        judge = tiny_judge.scorer(profile={profile!r}, dtype="bfloat16", device="cuda")
        cache = Path(sys.argv[1])
        built = {{entry.name for entry in cache.iterdir()}}
        assert any(name.startswith("slurm_bench-judge-") for name in built), built
        judge.score([tiny_judge.request(number) for number in range(3)])
        found = {{file.name for new in cache.iterdir() if new.name not in built for file in new.glob("*.json")}}
        assert not found, found
    """
    tests = str(Path(__file__).parent)
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([tests, str(Path(tests).parent), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", textwrap.dedent(lines), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", DEVICES)
def test_libraries_are_used_as_they_can_be(device: str) -> None:
    first_use.use_libraries(device, "bfloat16")


def test_the_first_use_is_over_and_a_failure_in_it_is_none_of_the_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device: str, dtype: str) -> None:
        raise RuntimeError("no cuDNN")

    monkeypatch.setattr(first_use, "use_libraries", fail)
    with caplog.at_level(logging.WARNING), first_use.first_use("cpu"):
        pass
    assert not caplog.text, "there is nothing to use on a CPU"
    with caplog.at_level(logging.WARNING), first_use.first_use("cuda"):
        pass
    assert "no cuDNN" in caplog.text


def test_kernels_are_built_once_a_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        built.append("broken")
        raise RuntimeError("no compiler")

    built: list[str] = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(first_use, "use_libraries", lambda device, dtype: None)
    models = [Kernels(name, partial(built.append, name)) for name in ("one", "other", "one")]
    with caplog.at_level(logging.WARNING):
        for kernels in [*models, Kernels("broken", fail), Kernels("broken", fail)]:
            with first_use.first_use("cuda", kernels):
                pass
    assert built == ["one", "other", "broken", "broken"]
    assert "no compiler" in caplog.text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with first_use.first_use("cuda", models[0]):
        pass
    assert built[-1] == "one", "another GPU has kernels of its own"


def test_a_broken_triton_is_told_where_it_is_needed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("built for another driver")

    used: list[str] = []
    monkeypatch.setattr(first_use, "use_libraries", lambda device, dtype: used.append(device))
    monkeypatch.setitem(sys.modules, "triton", Broken("triton"))
    monkeypatch.setitem(sys.modules, "triton.runtime", Broken("triton.runtime"))
    with first_use.first_use("cuda"):
        pass
    assert used == ["cuda"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_torch_finds_the_context_made_and_the_libraries_used() -> None:
    """In a process of its own, which has neither yet."""
    lines = """
        import ctypes, sys
        from slurm_bench import machine
        machine._make_context()
        assert "torch" not in sys.modules
        flags, active = ctypes.c_uint(), ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
        assert active.value == 1, "no context"
        assert machine.choose_device(None, "device") == "cuda"
        from slurm_bench.kernels.first_use import first_use
        with first_use("cuda"):
            pass
        from triton.runtime import cache
        assert cache.triton_key.cache_info().currsize == 1, "not hashed"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ahead" not in done.stderr
