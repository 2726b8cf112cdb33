"""Qwen3-VL as a judge. Importing this is light: torch and transformers come with `load`."""

from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer

__all__ = ["Qwen3VLScorer"]
