"""On a real cluster: a judge that isn't ours, served by the scoring job on the GPUs that it asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import stand_in_judge
import tiny_judge
from cluster import SlurmCluster
from helpers import attempts, summary
from test_slurm import Bed
from transformers.utils.import_utils import is_serve_available

from slurm_bench.run.records import read_records


@pytest.mark.skipif(not is_serve_available(), reason="transformers[serving] isn't installed")
def test_transformers_serve_within_the_scoring_job(slurm: SlurmCluster, tmp_path: Path, bench: Path) -> None:
    """What a judge of random weights says can't be read, so each sample's record has its words and no score."""
    bed, model = Bed(slurm, tmp_path, bench), tiny_judge.checkpoint()
    program = Path(sys.executable).with_name("transformers")
    serve = f"exec {program} serve {model} --host 127.0.0.1 --port {{port}} --device cpu"
    params = {"model": str(model), "serve": f"bash -c 'echo GPUS=$CUDA_VISIBLE_DEVICES; {serve}'", "max_tokens": 4}
    judge = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
    bed.config(scorers={"judge": judge}, score_slurm={"gres": "gpu:2"})
    bed.submitted("data.limit=2", gpus=1)
    slurm.wait_idle(120)
    slurm.wait_for(lambda: not slurm.processes("SLURM_JOB_ID"), 120, "no server left")
    records = read_records(bed.run, "score")
    assert sorted(record["id"] for record in records) == ["s-0", "s-1"]
    assert all("max_tokens is 4" in record["parse"] and record["raw"] for record in records)
    assert all(str(model) in record["info"]["served_model"] for record in records)
    assert "GPUS=0,1" in (bed.root / "logs" / "score-001-0000-server.log").read_text()


def test_a_cancelled_job_takes_its_server_along_and_the_standby_starts_its_own(
    slurm: SlurmCluster, tmp_path: Path, bench: Path
) -> None:
    bed, program = Bed(slurm, tmp_path, bench), f"{sys.executable} {stand_in_judge.__file__}"
    serve = f"{program} --port {{port}} --folder {tmp_path} --answers-after 2"
    judge = {
        "class_path": "slurm_bench.scorers.openai_api.OpenAIScorer",
        "params": {"model": "m", "serve": serve, "concurrency": 1},
    }
    bed.config(scorers={"judge": judge}, score_batch_size=1)
    bed.submitted("data.limit=12", gpus=1)
    slurm.wait_for(lambda: read_records(bed.run, "score"), 60, "a score")
    slurm.run("scancel", attempts(bed.root)[0]["finish_job_id"])
    slurm.wait_idle(90)
    assert summary(bed.root)["counts"]["scored"] == 12
    assert {record["status"] for record in read_records(bed.run, "score")} == {"ok"}
    assert len(list(tmp_path.glob("start-*"))) == 2
    slurm.wait_for(lambda: not slurm.processes("SLURM_JOB_ID"), 120, "no server left")
