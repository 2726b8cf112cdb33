"""CLIP and DINO with random weights of a few kilobytes, in folders as the hub's are."""

from __future__ import annotations

import json
from pathlib import Path

SIDE = 32  # pixels
WORDS = ("make", "it", "red", "blue", "please")


def save_clip(folder: Path) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 64, "max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 0}
    config = CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": SIDE, "patch_size": 8}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    _image_processor(CLIPImageProcessor, folder)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    letters = sorted({letter for word in WORDS for letter in word})
    for token in [*letters, *(f"{letter}</w>" for letter in letters)]:
        vocabulary[token] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    _image_processor(ViTImageProcessor, folder)
    return folder


def _image_processor(kind: type, folder: Path) -> None:
    size = {"shortest_edge": SIDE} if "CLIP" in kind.__name__ else {"height": SIDE, "width": SIDE}
    kind(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
