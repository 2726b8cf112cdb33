"""Qwen-Image-2.1. Importing this is light: torch and diffusers come with `load`."""

from slurm_bench.editors.qwen21.editor import QwenImage21Editor

__all__ = ["QwenImage21Editor"]
