"""A judge behind an OpenAI-compatible server."""

from slurm_bench.scorers.server.scorer import OpenAIScorer

__all__ = ["OpenAIScorer"]
