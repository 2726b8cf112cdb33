"""The memory-bound operations between two matrix products, each in one pass over its data.

Models call `ops`, `fp8` and `attention`. On a CPU these are plain torch, which is also the definition of what is
computed; on a GPU, Triton (`triton_ops`, `triton_fp8`). Triton compiles a kernel at its first call, in about a second,
for every number of tokens.
"""
