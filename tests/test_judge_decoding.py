"""What the judge writes, token for token, against transformers' own generate."""

import logging
import weakref
from itertools import combinations

import pytest
import tiny_judge
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slurm_bench.scorers.qwen3vl import decoding
from slurm_bench.scorers.qwen3vl.packing import LENGTH_STEP

NEW_TOKENS = 20


def reference(moe, judge, prompts, ends, **sampling):
    """transformers' tokens, with padding behind an end."""
    from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    folder = tiny_judge.checkpoint(moe)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.load_state_dict(judge.judge.model.state_dict())
    processor = AutoProcessor.from_pretrained(folder)
    model.generation_config = GenerationConfig(
        eos_token_id=ends or None, pad_token_id=processor.tokenizer.pad_token_id, max_new_tokens=NEW_TOKENS
    )
    texts = [judge.judge._text(prompt) for prompt in prompts]
    images = [list(prompt.images) for prompt in prompts]
    inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**inputs, **(sampling or {"do_sample": False}))
    return written[:, inputs["input_ids"].shape[1] :].tolist()


def asked(judge, count):
    return [judge.questions(n, tiny_judge.request(n))[0].prompt for n in range(count)]


def up_to_an_end(rows, ends):
    found = [next((step for step, token in enumerate(row) if token in ends), NEW_TOKENS) for row in rows]
    return [row[: step + 1] for row, step in zip(rows, found, strict=True)]


def attend_more(judge):
    """Sharply: a token then hangs on more than the one before it, and no reply repeats itself."""
    with torch.no_grad():
        for layer in judge.judge.model.model.language_model.layers:
            layer.self_attn.k_norm.weight *= 3


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_a_batch_is_written_as_transformers_writes_it(moe):
    """Prompts of several lengths, of which most end early and each at another step, so that the others go on as a
    smaller batch; one is cut."""
    judge = tiny_judge.scorer(moe, mode="generate")
    judge.judge.end_ids = {-1}
    attend_more(judge)
    prompts = asked(judge, 5)
    inputs = judge.judge.preprocess(prompts)
    assert len(set(inputs.lengths)) > 3
    endless = reference(moe, judge, prompts, ends=[])
    assert judge.judge.written(inputs, NEW_TOKENS) == endless

    def steps(ends):
        return {len(row) for row in up_to_an_end(endless, ends)}

    said = sorted({token for row in endless for token in row})
    few = [ends for count in (1, 2) for ends in combinations(said, count) if NEW_TOKENS in steps(ends)]
    ends = max(few, key=lambda ends: len(steps(ends)))
    assert len(steps(ends)) > 2
    expected = reference(moe, judge, prompts, list(ends))
    judge.judge.end_ids = set(ends)
    decoder, taken = judge.judge.decoder, []
    take = decoder._step
    decoder._step = lambda rows, places: taken.append(rows) or take(rows, places)
    written = judge.judge.written(inputs, NEW_TOKENS)
    assert taken[-1] < 8, "five prompts take eight rows"
    assert up_to_an_end(written, ends) == up_to_an_end(expected, ends)
    assert up_to_an_end(written, ends) == up_to_an_end(endless, ends)
    pad = judge.judge.processor.tokenizer.pad_token_id
    assert all({*row[len(cut) :]} <= {pad} for row, cut in zip(written, up_to_an_end(written, ends), strict=True))


@pytest.mark.parametrize("steps", [4, LENGTH_STEP + 4])
def test_a_step_scores_as_the_whole_forward_does(steps, monkeypatch):
    """Tokens alone would hide what rounding to the likeliest hides. The cache has padding behind a prompt, and beyond
    that nothing yet; it is read by blocks, of which more than one are written to."""
    from transformers import AutoModelForImageTextToText

    monkeypatch.setattr(decoding, "PLACES", LENGTH_STEP)
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    attend_more(judge)
    (prompt,) = asked(judge, 1)
    (row,) = judge.judge.written(judge.judge.preprocess([prompt]), steps)
    model = AutoModelForImageTextToText.from_pretrained(tiny_judge.checkpoint(), dtype=torch.float32)
    model.load_state_dict(judge.judge.model.state_dict())
    inputs = judge.judge.processor(text=[judge.judge._text(prompt)], images=[list(prompt.images)], return_tensors="pt")
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([row[:-1]])], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, steps - 1))
    with torch.no_grad():
        scores = model(**inputs).logits[:, -1]
    torch.testing.assert_close(judge.judge.decoder._next, scores, rtol=1e-4, atol=1e-4)


def test_all_stop_once_all_have_ended():
    judge = tiny_judge.scorer(mode="generate")
    inputs = judge.judge.preprocess(asked(judge, 3))
    first = {row[0] for row in judge.judge.written(inputs, 1)}
    judge.judge.end_ids = first
    judge.judge.decoder._step = None  # nothing may follow
    assert [row[0] in first for row in judge.judge.written(inputs, NEW_TOKENS)] == [True] * 3


def test_a_sampled_reply_is_the_one_that_transformers_draws():
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    prompts = asked(judge, 1)
    torch.manual_seed(11)
    drawn = reference(False, judge, prompts, [], do_sample=True, temperature=0.7, top_k=0)
    assert judge.judge.written(judge.judge.preprocess(prompts), NEW_TOKENS, 0.7, 11) == drawn


def test_a_longer_batch_and_then_a_shorter_are_written_as_alone():
    """The cache stays where it is, with what the batch before left in it."""
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    batches = [judge.judge.preprocess(asked(judge, count)) for count in (2, 5, 1)]
    again = [judge.judge.written(inputs, 6) for inputs in batches]
    fresh = tiny_judge.scorer(mode="generate")
    fresh.judge.end_ids = {-1}
    assert again[2] == fresh.judge.written(batches[2], 6)
    assert again[0] == again[1][:2]


def test_a_row_that_idles_takes_no_place_beyond_the_cache():
    """Three prompts take four rows, of which the last may be as far as a long batch before left it."""
    judge = tiny_judge.scorer(mode="generate")
    inputs, decoder = judge.judge.preprocess(asked(judge, 3)), judge.judge.decoder
    plain = judge.judge.written(inputs, 3)
    decoder._lengths = torch.full_like(decoder._lengths, 10**6)
    assert judge.judge.written(inputs, 3) == plain


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_numbers_that_are_not_finite_cost_their_own_prompt_alone(temperature):
    """Not its neighbours, and not those that come after it in the same place."""
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    inputs, decoder = judge.judge.preprocess(asked(judge, 3)), judge.judge.decoder
    plain, keep = judge.judge.written(inputs, 6, temperature, 1), decoder.keep

    def overflow(layer, prompts, keys, values):
        keep(layer, prompts, keys, values)
        decoder._cache[layer, 1, 2] = float("inf")

    decoder.keep = overflow
    *others, row = judge.judge.written(inputs, 6, temperature, 1)
    assert row == []
    assert others == plain[:2]
    assert "not finite" in judge.judge.generate(inputs, 6)[2].cut_short
    decoder.keep = keep
    assert judge.judge.written(inputs, 6, temperature, 1) == plain


def test_no_more_is_written_where_numbers_are_not_finite():
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    with torch.no_grad():
        judge.judge.model.lm_head.weight.fill_(float("nan"))
    decoder, taken = judge.judge.decoder, []
    take = decoder._step
    decoder._step = lambda *size: taken.append(size) or take(*size)
    assert judge.judge.written(judge.judge.preprocess(asked(judge, 2)), NEW_TOKENS) == [[], []]
    assert not taken


def test_numbers_that_are_not_finite_behind_an_end_cost_nothing():
    judge = tiny_judge.scorer(mode="generate")
    judge.judge.end_ids = {-1}
    attend_more(judge)
    inputs, decoder = judge.judge.preprocess(asked(judge, 4)), judge.judge.decoder
    plain, keep = judge.judge.written(inputs, 3), decoder.keep
    (first, *_), *others = plain[::-1]
    assert not any(first in row for row in others)

    def overflow(layer, prompts, keys, values):
        keep(layer, prompts, keys, values)
        decoder._cache[layer, 1, 3] = float("inf")

    decoder.keep, judge.judge.end_ids = overflow, {first}
    pad = judge.judge.processor.tokenizer.pad_token_id
    assert judge.judge.written(inputs, 3) == [*plain[:3], [first, pad, pad]]


def test_a_cache_is_gone_before_a_larger_one_is_made():
    decoder = tiny_judge.scorer(mode="generate").judge.decoder
    decoder.begin([10], 6)
    small, allocate, there = weakref.ref(decoder._cache), decoder._allocate, []

    def look(rows, places):
        decoder.release()
        there.append(small() is not None)
        allocate(rows, places)

    decoder._allocate = look
    decoder.begin([10, 300], 6)
    assert there == [False]
    assert decoder._cache.shape[2:4] == (2, 512)


def test_a_cache_grows_by_rows_or_by_places_and_never_shrinks():
    decoder, shapes = tiny_judge.scorer(mode="generate").judge.decoder, []
    for lengths in ([10] * 3, [250], [251], [10] * 5, [10]):
        decoder.begin(lengths, 6)
        shapes.append(tuple(decoder._cache.shape[2:4]))
    assert shapes == [(4, 256), (4, 256), (4, 512), (8, 512), (8, 512)]


def test_graphs_go_with_the_cache_that_they_read():
    decoder = tiny_judge.scorer(mode="generate").judge.decoder
    decoder.begin([10], 6)
    decoder._graphs[1, 256] = "of this cache"
    decoder.begin([11], 6)
    assert decoder._graphs
    decoder.begin([300], 6)
    assert not decoder._graphs


def test_a_graph_that_cannot_be_captured_costs_speed_alone(caplog):
    judge = tiny_judge.scorer(mode="generate")
    inputs = judge.judge.preprocess(asked(judge, 2))
    plain = judge.judge.written(inputs, 6)
    decoder = judge.judge.decoder
    decoder.use_graphs = True  # this judge is on the CPU, where a capture fails, or beside a GPU holds nothing
    with caplog.at_level(logging.WARNING):
        assert judge.judge.written(inputs, 6) == plain
        assert judge.judge.written(inputs, 6) == plain
    assert len([record for record in caplog.records if "CUDA graphs" in record.message]) == 1


def test_a_capture_that_torch_leaves_half_done_is_put_right(monkeypatch):
    """As torch does it where a capture was invalidated: its end raises before anything is put back."""

    class Stream:
        def wait_stream(self, stream): ...

    class Entered:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            self.before, current[0] = current[0], self.stream

        def __exit__(self, *error):
            current[0] = self.before

    class Capture:
        def __init__(self, graph, pool, capture_error_mode):
            self.pool = pool

        def __enter__(self):
            current[0] = "the capture's"
            recorded.append(self.pool)

        def __exit__(self, *error):
            raise RuntimeError("operation failed due to a previous error during capture")

    default = Stream()
    current, recorded, held = [default], [], [(0, 1)]
    fakes = {"Stream": Stream, "stream": Entered, "graph": Capture, "CUDAGraph": object}
    fakes |= {"current_stream": lambda: current[0], "graph_pool_handle": lambda: (0, 1), "current_device": lambda: 0}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: recorded.remove(pool), raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: held.remove(pool))
    judge = tiny_judge.scorer(mode="generate")
    inputs, decoder = judge.judge.preprocess(asked(judge, 2)), judge.judge.decoder
    plain = judge.judge.written(inputs, 6)
    decoder.use_graphs = True
    assert judge.judge.written(inputs, 6) == plain
    assert not decoder.use_graphs
    assert current == [default]
    assert (recorded, held) == ([], [])


def test_a_capture_that_holds_nothing_is_not_used(monkeypatch, caplog):
    class Graph:
        def replay(self): ...

    class Entered:
        def __init__(self, *_, **__): ...

        def __enter__(self): ...

        def __exit__(self, *error): ...

        def wait_stream(self, stream): ...

    fakes = {"Stream": Entered, "stream": Entered, "graph": Entered, "CUDAGraph": Graph, "current_stream": Entered}
    for name, fake in (fakes | {"graph_pool_handle": lambda: (0, 1)}).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    judge = tiny_judge.scorer(mode="generate")
    inputs, decoder = judge.judge.preprocess(asked(judge, 2)), judge.judge.decoder
    plain = judge.judge.written(inputs, 6)
    decoder.use_graphs = True
    with caplog.at_level(logging.WARNING):
        assert judge.judge.written(inputs, 6) == plain
    assert "computes something else" in caplog.text


def test_memory_that_runs_out_in_a_capture_does_not_end_the_use_of_graphs():
    judge = tiny_judge.scorer(mode="generate")
    decoder, inputs = judge.judge.decoder, judge.judge.preprocess(asked(judge, 2))

    def full(rows, places):
        raise torch.OutOfMemoryError

    decoder.use_graphs, decoder._captured = True, full
    with pytest.raises(torch.OutOfMemoryError):
        judge.judge.written(inputs, 4)
    assert decoder.use_graphs


def test_steps_are_replayed_by_rows_and_blocks():
    judge = tiny_judge.scorer(mode="generate")
    decoder, inputs = judge.judge.decoder, judge.judge.preprocess(asked(judge, 3))
    judge.judge.end_ids = {-1}
    plain = judge.judge.written(inputs, 6)
    captured = []

    class Graph:
        def __init__(self, rows, places):
            captured.append((rows, places))
            self.replay = lambda: decoder._compute(rows, places)

    decoder.use_graphs, decoder._captured = True, Graph
    assert judge.judge.written(inputs, 6) == judge.judge.written(inputs, 6) == plain
    assert len(captured) == len(set(captured)) == 1


def test_a_step_asks_the_gpu_for_no_value():
    """What a CUDA graph can't hold: an operation whose result the host must see."""

    class Refusing(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            name = operation.overloadpacket.__name__
            assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"), name
            return operation(*args, **(kwargs or {}))

    judge = tiny_judge.scorer(mode="generate")
    judge.judge.written(judge.judge.preprocess(asked(judge, 2)), 3)
    decoder = judge.judge.decoder
    with torch.inference_mode(), Refusing():
        decoder._compute(2, decoder._cache.shape[3])


def test_memory_that_ran_out_is_given_back():
    """The engine then asks again with fewer."""
    judge = tiny_judge.scorer(mode="generate")
    inputs, decoder = judge.judge.preprocess(asked(judge, 2)), judge.judge.decoder
    plain = judge.judge.written(inputs, 4)
    step = decoder._step

    def full(rows, places):
        raise torch.OutOfMemoryError

    decoder._step = full
    with pytest.raises(torch.OutOfMemoryError):
        judge.judge.written(inputs, 4)
    assert decoder._cache is None
    decoder._step = step
    assert judge.judge.written(inputs, 4) == plain
