"""Checkouts of the benchmarks' repositories in small: prompts of our own, under the names and with the places that the
real ones have. `write_gedit(folder)` and so on give what `params.prompts` is set to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

TYPES = ("action", "add", "adjust", "background", "compose", "extract", "remove", "replace", "style")


def python_file(file: Path, texts: Mapping[str, str], beside: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'{name} = """{text}"""\n' for name, text in texts.items()]
    file.write_text(beside + "\n".join(lines), encoding="utf-8")


def write_gedit(folder: Path) -> Path:
    texts = {
        "_context_no_delimit": 'Judge it. Answer as {"score": [...], "reasoning": "..."}',
        "_context": "not this one",
        "_prompts_0shot_two_image_edit_rule": "Two images.",
        "_prompts_0shot_tie_rule_SC": "Does it follow the text, and no more? Instruction: <instruction>\n",
        "_prompts_0shot_rule_PQ": "One image. Is it natural, is it clean?",
    }
    python_file(folder / "Step1X-Edit" / "GEdit-Bench" / "viescore" / "vie_prompts.py", texts)
    return folder / "Step1X-Edit"


def write_imgedit(folder: Path) -> Path:
    """Each type calls its marks otherwise."""
    file = folder / "ImgEdit" / "Benchmark" / "Basic" / "prompts.json"
    file.parent.mkdir(parents=True)
    labels = [(f"{name.title()} Compliance", "Seamlessness & Blend", "Detail") for name in TYPES]
    asked = ["".join(f"{label}: A number from 1 to 5.\n" for label in three) for three in labels]
    texts = [f"Rate this edit.\nBrief reasoning: short.\n{lines}It was: <edit_prompt>.\n" for lines in asked]
    file.write_text(json.dumps(dict(zip(TYPES, texts, strict=True))))
    return folder / "ImgEdit"


def write_rise(folder: Path) -> Path:
    """The file has code too, which must not run."""
    told = {
        "prompt_consist": "{instruct}",
        "prompt_reasoning": "{instruct} {reference}",
        "prompt_reasoning_w_input": "{instruct} {reference}",
        "prompt_generation": "",
        "prompt_spatial_cons": "{instruct}",
        "prompt_spatial_ref": "{instruct} {reference}",
        "prompt_spatial_ref_img": "{instruct}",
        "prompt_spatial_ref_w_input": "{instruct} {reference}",
        "prompt_spatial_qual": "",
        "prompt_logical_cons": "{instruct}",
        "prompt_logical_cons_ans": "{instruct} {reference}",
        "prompt_logical_txt": "{reference}",
        "prompt_logical_img": "{instruct}",
        "prompt_logical_img_wo_q": "",
    }
    texts = {name: f"{name} | {places} | end with **Final Score:** **X**" for name, places in told.items()}
    python_file(folder / "RISEBench" / "utils.py", texts, "raise SystemExit('this file was run')\n")
    return folder / "RISEBench"


def write_kris(folder: Path) -> Path:
    plain = [
        *("prompt_consist", "prompt_consist_temporal", "prompt_consist_multi"),
        *("prompt_instruction_following", "prompt_instruction_temporal", "prompt_instruction_multi"),
        "prompt_view_instruction_following",
    ]
    explained = ["prompt_dual_evaluation", "prompt_abnormal_instruction_following"]
    texts = {name: f"{name} | {{instruct}} | as {{{{ JSON }}}}" for name in plain}
    texts |= {name: f"{name} | {{instruct}} | {{explanation}} | as {{{{ JSON }}}}" for name in explained}
    texts["prompt_quality"] = "prompt_quality | as {{ JSON }}"
    python_file(folder / "Kris_Bench" / "utils" / "prompts.py", texts)
    return folder / "Kris_Bench"


def write_gedit2(folder: Path) -> Path:
    """Two dimensions are told the instruction and shown the source, the third neither."""
    edited = [{"text": "Image A:\n"}, {"image": {"source": "edited_images", "index": 0}}]
    edited += [{"text": "Image B:\n"}, {"image": {"source": "edited_images", "index": 1}}]
    for name in ("instruction_following", "visual_consistency", "visual_quality"):
        told = "" if name == "visual_quality" else " It was: {{ instruction }}\n"
        shown = [] if name == "visual_quality" else [{"image": {"source": "input_image"}}]
        asked = {
            "system_prompt": f"You look at {name}.",
            "user_prompt": [{"text": f"Which one?{told}"}, *shown, *edited],
        }
        file = (
            folder / "GEditBench_v2" / "src" / "prompts" / "assets" / "vlm" / "assessment" / name / "pairwise/v1.yaml"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asked))
    return folder / "GEditBench_v2"
