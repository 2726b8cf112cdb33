"""Qwen-Image-Edit. Importing this is light: torch and diffusers come with `load`."""

from slurm_bench.editors.qwen.editor import QwenImageEditor

__all__ = ["QwenImageEditor"]
