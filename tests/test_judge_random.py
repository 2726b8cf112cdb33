import subprocess
import sys

import pytest
import tiny_judge

from slurm_bench.scorers.qwen3vl.random_weights import random_judge
from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer


@pytest.mark.parametrize(("moe", "billions"), [(False, 8.77), (True, 31.07)], ids=["8B", "30B-A3B"])
def test_the_full_sizes_are_the_published_ones(moe, billions):
    model, processor = random_judge("full", moe=moe, device="meta")
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    assert model.config.image_token_id == 151655
    assert model.config.vision_start_token_id == 151652
    assert processor.tokenizer.encode("0<|image_pad|>9<|video_pad|>")[1::2] == [151655, 151656]


def test_a_full_size_prompt_is_about_as_long_as_with_the_published_vocabulary():
    from slurm_bench.scorers.judge import prompt
    from slurm_bench.scorers.judge.rubric import load_rubrics

    _, processor = random_judge("full", device="meta")
    rubrics = load_rubrics()
    built = prompt.build(tiny_judge.request(), rubrics, prompt.one_digit(rubrics, "overall"))
    words = " ".join([built.system, *(part for part in built.parts if isinstance(part, str))])
    assert 1 < len(processor.tokenizer.encode(words)) / len(words.split()) < 2


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_a_model_in_memory_judges_as_one_on_disk_does(moe):
    model, processor = random_judge("tiny", moe=moe, dtype="float32", seed=3)
    judge = Qwen3VLScorer("random", min_mass=0.0)
    judge.use(model, processor)
    (result,) = judge.score([tiny_judge.request()])
    assert 0 <= result.scores["overall"] <= 10
    again, _ = random_judge("tiny", moe=moe, dtype="float32", seed=3)
    judge.use(again, processor)
    assert judge.score([tiny_judge.request()])[0] == result


CLOSED = """
import sys, weakref
from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer

judge = Qwen3VLScorer(sys.argv[1], dtype="float32", device="cpu")
judge.load()
model = weakref.ref(judge.judge.model)
judge.close()
print("left", model() is not None)
"""


def test_a_closed_judge_leaves_its_memory_to_the_next_scorer():
    """In a process whose imports are part of the load: what went wrong in one of them holds on to where it did."""
    command = [sys.executable, "-c", CLOSED, str(tiny_judge.checkpoint())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "left False\n", done.stderr
