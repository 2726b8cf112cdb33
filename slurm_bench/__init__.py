"""Benchmark image-editing models on a Slurm cluster."""

__version__ = "0.1.0"
