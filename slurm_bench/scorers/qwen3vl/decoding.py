"""Token after token for a batch of prompts whose prefill is done, at the rate at which the GPU reads its weights.

- Keys and values stand in one cache of a fixed place, each prompt's from its beginning on; a step reads only as far as
  its longest prompt has come, in blocks of PLACES.
- On a GPU a step is a CUDA graph (https://developer.nvidia.com/blog/cuda-graphs), one for each number of rows and of
  blocks: launching its kernels one by one takes several times as long as they run.
- Once half the rows have ended, the others go on as a smaller batch.

Shapes: R rows, a power of two, of which the first are prompts and the others idle; V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slurm_bench.kernels.attention import attention_of_one
from slurm_bench.kernels.ops import linear
from slurm_bench.logs import log
from slurm_bench.scorers.qwen3vl.language_model import LanguageModel

PLACES = 256
# Every so many steps the host asks which rows have ended: to ask waits for the GPU.
LOOK_EVERY = 8


@dataclass(frozen=True)
class Starts:
    """What a prefill leaves, of B prompts: their last tokens' `hidden` states [B, D], their `lengths` [B], and the
    `following` tokens' positions [B]."""

    hidden: Tensor
    lengths: Tensor
    following: Tensor
    longest: int


class Decoder:
    """`head` makes scores of hidden states. For a batch, `begin` comes first, its prefill calls `keep`, then `write`
    does the rest."""

    def __init__(self, model: LanguageModel, head: Any, pad: int) -> None:
        self._model = model
        self._head = head
        self._pad = pad
        self._cache: Tensor | None = None  # [layers, 2, R, places, H, C]
        self._graphs: dict[tuple[int, int], Any] = {}
        self._pool: Any = None
        self.use_graphs = head.weight.device.type == "cuda"

    def begin(self, lengths: Sequence[int], new_tokens: int) -> None:
        """Make room for prompts of these lengths, and for what is written to them."""
        rows, places = _power_of_two(len(lengths)), _whole_blocks(max(lengths) + new_tokens)
        # Numbers alone: a name for the cache would keep it while a larger one is made.
        had_rows, had_places = (0, 0) if self._cache is None else self._cache.shape[2:4]
        if had_rows < rows or had_places < places:
            self._allocate(max(rows, had_rows), max(places, had_places))
        else:
            # Masked places are multiplied by zero: what the batch before left there must be finite, and may not be.
            self._cache[:, :, :rows, :places].zero_()  # type: ignore[index]

    def release(self) -> None:
        """Give the memory back."""
        self._cache, self._graphs, self._pool = None, {}, None

    def keep(self, layer: int, prompts: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """For a prefill: these prompts' keys and values, [prompts, T, H, C], with padding at the end."""
        assert self._cache is not None
        for row, prompt in enumerate(prompts):
            for which, tokens in enumerate((keys, values)):
                self._cache[layer, which, prompt, : keys.shape[1]] = tokens[row]

    def write(
        self, starts: Starts, new_tokens: int, ends: Collection[int], choose: Callable[[Tensor], Tensor]
    ) -> list[list[int]]:
        """What follows each prompt, up to one of the `ends` or to `new_tokens`; behind an end stands padding. Nothing
        where a prompt's scores aren't finite. `choose` makes tokens of scores [R, V]."""
        device, count = starts.hidden.device, len(starts.hidden)
        rows, end_ids = _power_of_two(count), torch.tensor(sorted(ends), device=device)
        # What idle rows write goes to a row of its own.
        written = torch.full((count + 1, new_tokens), self._pad, device=device)
        origin = torch.arange(rows, device=device).clamp(max=count)
        ended = origin == count
        broken = torch.zeros(count + 1, dtype=torch.bool, device=device)
        self._lengths[:rows], self._positions[:rows] = 0, 0
        self._lengths[:count], self._positions[:count] = starts.lengths, starts.following
        scores = torch.zeros_like(self._next[:rows])
        scores[:count] = self._head(starts.hidden)
        for step in range(new_tokens):
            finite = scores.isfinite().all(-1)
            broken[origin] |= ~(finite | ended)
            ended |= ~finite
            tokens = torch.where(ended, self._pad, choose(scores.where(finite[:, None], 0.0)))
            written[origin, step] = tokens
            ended |= torch.isin(tokens, end_ids)
            if step + 1 == new_tokens:
                break
            if step % LOOK_EVERY == 0:
                going = (~ended).nonzero()[:, 0].tolist()
                if not going:
                    break
                if 2 * len(going) <= rows:
                    rows = _power_of_two(len(going))
                    staying = torch.tensor((going * rows)[:rows], device=device)
                    tokens, origin, ended = tokens[staying], origin[staying], ended[staying]
                    origin[len(going) :], ended[len(going) :] = count, True
                    self._move(staying)
            self._tokens[:rows] = tokens
            self._step(rows, _whole_blocks(starts.longest + step + 1))
            scores = self._next[:rows]
            self._lengths[:rows] += 1
            self._positions[:rows] += 1
        return [[] if is_broken else row for row, is_broken in zip(written.tolist(), broken.tolist(), strict=True)][
            :count
        ]

    def _allocate(self, rows: int, places: int) -> None:
        model, layers = self._model, self._model.layers
        self.release()
        weight, attn = model.embed.weight, layers[0].self_attn
        heads = len(attn.k_proj.weight) // attn.head_dim
        device = weight.device
        shape = (len(layers), 2, rows, places, heads, attn.head_dim)
        self._cache = torch.zeros(shape, dtype=weight.dtype, device=device)
        self._tokens, self._lengths, self._positions = torch.zeros((3, rows), dtype=torch.long, device=device)
        self._next = torch.zeros((rows, len(self._head.weight)), dtype=torch.float32, device=device)

    def _move(self, staying: Tensor) -> None:
        assert self._cache is not None
        for layer in self._cache:
            layer[:, : len(staying)] = layer[:, staying]
        for each in (self._lengths, self._positions):
            each[: len(staying)] = each[staying]

    def _step(self, rows: int, places: int) -> None:
        if not self.use_graphs:
            self._compute(rows, places)
            return
        if (rows, places) not in self._graphs:
            try:
                self._graphs[rows, places] = self._captured(rows, places)
            except torch.OutOfMemoryError:
                raise  # fewer prompts come next
            except Exception as error:
                self.use_graphs, self._graphs, self._pool = False, {}, None
                reason = str(error).strip().partition("\n")[0]
                log.warning("the judge writes without CUDA graphs, more slowly: %s: %s", type(error).__name__, reason)
                self._compute(rows, places)
                return
        self._graphs[rows, places].replay()

    def _captured(self, rows: int, places: int) -> Any:
        """Raises whatever the capture does, and RuntimeError where the graph computes something else."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._compute(rows, places)  # compiles and plans
        torch.cuda.current_stream().wait_stream(stream)
        expected = self._next[:rows].clone()
        graph = torch.cuda.CUDAGraph()
        # All work in the same memory: one at a time, and nothing in it outlasts a step.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # Another thread preprocesses the next prompts on this GPU meanwhile.
        capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with _mended_if_it_fails(self._pool), capture:
            self._compute(rows, places)
        self._next[:rows] = 0.0
        graph.replay()
        # What isn't finite is a prompt's fault, and says nothing of the graph.
        found, expected = (scores.nan_to_num(0.0, 0.0, 0.0) for scores in (self._next[:rows], expected))
        if not torch.allclose(found, expected, rtol=0.0, atol=0.02 * expected.abs().max().item()):
            raise RuntimeError("the captured step computes something else")
        return graph

    def _compute(self, rows: int, places: int) -> None:
        """Scores of the tokens that follow `tokens`, whose keys and values take their places in the cache: what it
        reads and writes lies where it did. Twice is the same as once."""
        model, lengths = self._model, self._lengths[:rows]
        x, y = model.embed(self._tokens[:rows]), None
        tables = model.tables(x, self._positions[:rows].expand(3, -1))
        visible = torch.arange(places, device=x.device) <= lengths[:, None]
        mask = torch.zeros_like(visible, dtype=x.dtype).masked_fill_(~visible, float("-inf"))
        where = torch.arange(rows, device=x.device), lengths
        assert self._cache is not None
        for layer, cache in zip(model.layers, self._cache[:, :, :rows, :places], strict=True):
            x, y = model.run(layer, x, y, tables, partial(_attend, cache, where, mask))
        self._next[:rows] = self._head(model.final(x, y))


@contextmanager
def _mended_if_it_fails(pool: Any) -> Iterator[None]:
    """Around a capture: torch leaves one that was invalidated (by an operation that waits for the GPU, say) with its
    stream as the current one, and with its memory still recorded, in which nothing is ever given back."""
    with torch.cuda.stream(torch.cuda.current_stream()):
        try:
            yield
        except Exception:
            with suppress(AttributeError, RuntimeError):  # another torch's name for it; not begun, or ended in order
                device = torch.cuda.current_device()
                torch._C._cuda_endAllocateToPool(device, pool)
                torch._C._cuda_releasePool(device, pool)
            raise


def _attend(cache: Tensor, where: Any, mask: Tensor, attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[R, H, C] → [R, D], over `cache` [2, R, places, H, C], in which the keys and values take their places first."""
    keys, values = cache
    keys[where], values[where] = key, value
    return linear(attn.o_proj, attention_of_one(query, keys, values, mask, attn.scaling).flatten(1))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _whole_blocks(places: int) -> int:
    return -(-places // PLACES) * PLACES
