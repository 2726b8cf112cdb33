"""What the framework itself costs a sample, in CPU milliseconds: `python -m tests.framework_cost`. By hand.

A task with an editor that does nothing, beside a bare loop that decodes the same sources, encodes the same pictures and
writes the same files as durably, in turns, in one process: the least of the rounds of each. Where datatrove is
installed, its LocalPipelineExecutor does the bare loop's work too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.editors.base import EditRequest
from slurm_bench.run.attempts import claim
from slurm_bench.run.create import create_run
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.stages.picture import PNG_LEVEL
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task
from tests.helpers import make_benchmark, make_config

SAMPLES, ROUNDS = 400, 5


class Nothing:
    def edit(self, batch: Sequence[EditRequest]) -> list[Image.Image]:
        return [request.image for request in batch]


def of_framework(run: Run) -> None:
    attempt = claim(run.folder, "edit", [sample.id for sample in run.samples], 1, "debug", 0, 1, run.by)
    assert attempt is not None
    run_task(run, "edit", 1, 0, StopSignals())


def of_bare_loop(run: Run) -> None:
    with open(run.root / "bare.jsonl", "wb", buffering=0) as records:
        for sample in run.samples:
            bare(run, sample, records.write)
            os.fsync(records.fileno())


def bare(run: Run, sample: Sample, write: Callable[[bytes], object]) -> None:
    with open(sample.sources[0], "rb") as source:
        image = Image.open(io.BytesIO(source.read())).convert("RGB")
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=PNG_LEVEL)
    data = encoded.getvalue()
    path = run.root / "bare" / f"{sample.index % 256:02x}" / f"{sample.id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.tmp", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    facts = {"id": sample.id, "image": str(path), "sha256": hashlib.sha256(data).hexdigest(), "time": time.time()}
    write((json.dumps(facts) + "\n").encode())


def of_datatrove(run: Run) -> None:
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor

    def read(data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        yield from (Document(text=sample.instruction, id=str(sample.index)) for sample in run.samples[rank::world_size])

    def edit(data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with open(run.root / "bare.jsonl", "ab", buffering=0) as records:
            for document in data:
                bare(run, run.samples[int(document.id)], records.write)
                os.fsync(records.fileno())
                yield document

    LocalPipelineExecutor([read, edit], tasks=1, workers=1, logging_dir=str(run.root / "datatrove")).run()


def milliseconds(act: Callable[[Run], None], folder: Path, name: str) -> float:
    data = make_benchmark(folder / "bench", SAMPLES)
    config = load_config(make_config(folder / f"{name}.yaml", data), ["editor.class_path=tests.framework_cost.Nothing"])
    run = create_run(folder / name, config, lambda: read_items(config.data), {}, force=False)
    begin = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        act(run)
    return 1000 * (time.process_time() - begin) / SAMPLES


def main() -> None:
    acts = {"framework": of_framework, "bare loop": of_bare_loop}
    with contextlib.suppress(ImportError):
        import datatrove  # noqa: F401

        acts["datatrove"] = of_datatrove
    found: dict[str, list[float]] = {name: [] for name in acts}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for name, act in acts.items():
                found[name].append(milliseconds(act, Path(folder), f"{name.replace(' ', '-')}-{number}"))
    least = {name: min(values) for name, values in found.items()}
    print("| | CPU ms a sample | beside the bare loop |\n|---|---:|---:|")
    for name, value in least.items():
        print(f"| {name} | {value:.3f} | {value - least['bare loop']:.3f} |")


if __name__ == "__main__":
    main()
