"""Qwen-Image-Edit and the Edit-Plus family (2509, 2511), in a profile from the reference to the fastest."""

from __future__ import annotations

import inspect

from slurm_bench.editors.qwen.base_editor import BaseEditor
from slurm_bench.editors.qwen.session import Session
from slurm_bench.editors.qwen.settings import Settings


class QwenImageEditor(BaseEditor):
    """`model_name` is a folder or a hub id; which pipeline it is, its `model_index.json` tells.

    profile              stock, exact, fp8 or fast; unset, exact on CUDA and stock elsewhere
    max_pixels           the edited image's area. Its aspect is the source's (the last one's); sources are seen
                         at a megapixel whatever this is, as in the pipeline
    true_cfg_scale       guidance runs above 1, which doubles the forwards
    lora                 a safetensors file, {path, scale}, or a list of these
    scheduler            `lightning`, or fields of the scheduler's configuration. A few-step LoRA wants
                         num_inference_steps 4 or 8, true_cfg_scale 1 and scheduler=lightning, in any profile
    text_first           encode all samples' prompts before the transformer is loaded, then drop the text encoder:
                         16.6 GB less at the peak for 20 MB of host memory a sample
    offload_modulation   keep another 13.6 GB of weights on the host; takes seconds for each new picture size
    stream_blocks        so many of the transformer's blocks wait in the host's pinned memory, and are copied to the GPU
                         each time they run, under the computation of those before them
    keep_bf16            in fp8 and fast, linears of the blocks that stay in bfloat16, by the ends of their names
    cache                cache-dit's options for the profile fast
    """

    __signature__ = inspect.signature(Settings, eval_str=True)
    settings_class = Settings
    session_class = Session
