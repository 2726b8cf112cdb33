"""Image metrics: numbers that need no judge."""

from slurm_bench.scorers.metrics.image import ImageMetrics
from slurm_bench.scorers.metrics.reference import ReferenceMetrics

__all__ = ["ImageMetrics", "ReferenceMetrics"]
