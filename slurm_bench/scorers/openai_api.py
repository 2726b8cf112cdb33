"""The class path that configurations name; the code is in `server`."""

from slurm_bench.scorers.server.scorer import OpenAIScorer

__all__ = ["OpenAIScorer"]
