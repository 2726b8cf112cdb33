"""The memory-bound operations between two matrix products, each in one pass over its data.

`ops` is what models call: in plain torch on a CPU, where it says what is computed, and by `triton_ops` on a GPU.
Nothing is compiled ahead: a kernel takes about a second at its first call, and serves every size.
"""
