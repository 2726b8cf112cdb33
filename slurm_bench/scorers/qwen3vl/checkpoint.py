"""Whether a folder has a judge that this code runs. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, check_transformers_folder, read_json
from slurm_bench.errors import UserError
from slurm_bench.scorers.qwen3vl.fit import EXACT

DENSE, MOE = "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"
PROCESSOR_FILES = (
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
MODEL_KEY, PROFILE_KEY = "params.model_name", "params.profile"
_SERVE_IT = "serve it (vLLM, SGLang) and take slurm_bench.scorers.openai_api.OpenAIScorer"


def check_judge_folder(folder: Path, name: str, profile: str) -> ModelFolder:
    """Complete, of a known class, and one for the `profile`. Raises UserError with what can run it otherwise."""
    config = read_json(folder / "config.json")
    named = config.get("architectures")
    kind = named[0] if isinstance(named, list) and named else "nothing known"
    if kind not in (DENSE, MOE):
        raise UserError(f"'{MODEL_KEY}': {name} is {kind}; this judge takes {DENSE} or {MOE}. For another, {_SERVE_IT}")
    if config.get("quantization_config"):
        raise UserError(
            f"'{MODEL_KEY}': {name} is a quantized checkpoint, which this judge doesn't run; take the one in bfloat16, "
            f"or {_SERVE_IT}"
        )
    if profile != EXACT and kind == MOE:
        raise UserError(
            f"'{PROFILE_KEY}': {profile} is for dense judges, and {name} has its weights in experts, which stay as "
            f"they are; take a dense one, or profile={EXACT}"
        )
    text = config.get("text_config") or {}
    if not isinstance(text, dict) or not all(_whole(text[size]) for size in SIZES if text.get(size) is not None):
        raise UserError(f"{folder / 'config.json'}: its text_config has sizes that are no whole numbers")
    model = check_transformers_folder(folder)
    for files in PROCESSOR_FILES:
        if not any((folder / file).is_file() for file in files):
            raise UserError(f"'{MODEL_KEY}': {folder} has no {' or '.join(files)}: the download is incomplete")
    return model


def _whole(size: Any) -> bool:
    return type(size) is int and size > 0
