"""Benchmarks' own protocols as scorers: which calls, what they show, which marks, which formula. Each is a file."""

from slurm_bench.scorers.protocols.scorer import (
    BenchmarkProtocol,
    GEditProtocol,
    ImgEditProtocol,
    KRISProtocol,
    RISEProtocol,
)

__all__ = ["BenchmarkProtocol", "GEditProtocol", "ImgEditProtocol", "KRISProtocol", "RISEProtocol"]
