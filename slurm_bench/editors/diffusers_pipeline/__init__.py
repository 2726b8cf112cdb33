"""Any diffusers pipeline that edits an image by an instruction."""

from slurm_bench.editors.diffusers_pipeline.editor import DiffusersEditor

__all__ = ["DiffusersEditor"]
