"""The demo: enough of each category, the same bytes each time, understood by its editor, and telling scores."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from helpers import CATEGORIES, REPO

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.images import open_image
from slurm_bench.data.item import Item
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.pillow.editor import PillowEditor
from slurm_bench.scorers.base import ScoreRequest
from slurm_bench.scorers.metrics import ReferenceMetrics


def scores(item: Item) -> dict[str, float]:
    source, reference = open_image(item.source), open_image(item.reference)
    (edited,) = PillowEditor().edit([EditRequest(item.id, item.instruction, (source,), 1)])
    assert not isinstance(edited, Exception), edited
    request = ScoreRequest(item.id, item.category, item.instruction, (source,), edited, reference, "", "", 1)
    return ReferenceMetrics().score([request])[0]


def test_five_samples_or_more_in_each_category_complete() -> None:
    items = list(read_items(DataConfig()))
    assert Counter(item.category for item in items) == dict.fromkeys(CATEGORIES, 5)
    assert all(item.instruction and item.description and item.rationale and not item.problem for item in items)
    assert all(256 <= max(open_image(item.source).size) <= 384 for item in items)
    assert all(item.source != item.reference for item in items)


def test_the_same_bytes_in_every_process() -> None:
    code = (
        "import hashlib; from slurm_bench.config import DataConfig; from slurm_bench.data import read_items; "
        "print(hashlib.sha256(b''.join(i.source + i.reference for i in read_items(DataConfig()))).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout


def test_the_editor_understands_all_and_its_results_differ_in_worth() -> None:
    results = [scores(item) for item in read_items(DataConfig())]
    similarity = [result["similarity"] for result in results]
    assert max(similarity) > 0.999
    assert min(similarity) < 0.8
    assert all(result["changed"] > 0.001 for result in results)
