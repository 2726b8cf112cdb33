"""GEdit-Bench v1: <model>/fullset/<task_type>/<en|cn>/<key>.png, and the source beside it as <key>_SRCIMG.png. The
scorer skips in silence a sample that lacks either."""

from __future__ import annotations

from slurm_bench.errors import SampleError
from slurm_bench.export.layout import File, Layout, fact, joined, split_id
from slurm_bench.run.plan import Sample

LANGUAGES = ("en", "cn")


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    key, language = fact(sample, "key"), fact(sample, "language", "instruction_language")
    if not (key and language):
        key, language = split_id(sample, "(.+)-(en|cn)", "<key>-<en|cn>").groups()
    if language not in LANGUAGES:
        raise SampleError(f"its language is {language!r}; the scorer knows {' and '.join(LANGUAGES)}")
    folder = (model, "fullset", sample.category, language)
    return File(joined(*folder, f"{key}.png")), File(joined(*folder, f"{key}_SRCIMG.png"), "source")


LAYOUT = Layout(_files)
