"""What there is to know of the pipelines that edit by an instruction, one line each: facts that no signature tells.

A pipeline that isn't listed gets one image as `image`, and edits at the source's size if it takes a width and a height.
"""

from __future__ import annotations

from dataclasses import dataclass

MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class Family:
    """`several`: one sample may have several source images. `as_list`: even one goes in as a list.
    `template`: what the prompt must look like; {instruction}, {json} (the same as a JSON string) and {images} (an
    `image_tag` for each) are filled in. `own_size`: its own call takes the source's aspect at the area that it was
    trained at. `min_pixels`: a smaller source is enlarged to it. `area`: the argument with the output's area.
    `needs`: a package that it calls without looking whether it is there. `by_groups`: offload=group runs (where it
    doesn't, a text or image encoder meets a position on the CPU: diffusers 0.42.1, transformers 5.17).
    `dtype`: the only one that it runs in. `batches`: several samples in a call come out as each alone, but for rounding
    (tests/test_diffusers_batches.py; others refuse lists, or differ beyond it)."""

    image: str = "image"
    several: bool = False
    as_list: bool = False
    template: str = "{instruction}"
    image_tag: str = ""
    own_size: bool = False
    min_pixels: int = 0
    multiple: int | None = None
    area: str | None = None
    needs: str | None = None
    by_groups: bool = True
    dtype: str | None = None
    batches: bool = False


FAMILIES = {
    "BriaFibo2Pipeline": Family(several=True, own_size=True, by_groups=False),
    "BriaFiboEditPipeline": Family(several=True, template='{"edit_instruction": {json}}', own_size=True),
    "ChronoEditPipeline": Family(multiple=16, needs="ftfy"),
    "Flux2KleinKVPipeline": Family(several=True, own_size=True),
    "Flux2KleinPipeline": Family(several=True, own_size=True),
    "Flux2Pipeline": Family(several=True, own_size=True),
    # Whatever width and height say, the output has `max_area`, and the source is seen at about a megapixel.
    "FluxKontextPipeline": Family(min_pixels=MEGAPIXEL, area="max_area", batches=True),
    "GlmImagePipeline": Family(several=True, as_list=True, multiple=32),
    "JoyImageEditPipeline": Family(own_size=True),
    "JoyImageEditPlusPipeline": Family(image="images", several=True, as_list=True, own_size=True),
    "Kandinsky5I2IPipeline": Family(own_size=True),
    "LongCatImageEditPipeline": Family(own_size=True),
    "OmniGenPipeline": Family(
        image="input_images",
        several=True,
        as_list=True,
        template="{images}{instruction}",
        image_tag="<img><|image_{n}|></img>",
    ),
    "QwenImage21Pipeline": Family(several=True, own_size=True),
    "QwenImageEditPipeline": Family(own_size=True),
    "QwenImageEditPlusPipeline": Family(several=True, own_size=True),
    "QwenImageLayeredPipeline": Family(own_size=True),
    "StableDiffusionInstructPix2PixPipeline": Family(batches=True),
    "StableDiffusionXLInstructPix2PixPipeline": Family(batches=True),
    # It casts sources to bfloat16, whatever the VAE is in.
    "ZImageOmniPipeline": Family(several=True, own_size=True, by_groups=False, dtype="bfloat16"),
}


def family(pipeline: str) -> Family:
    return FAMILIES.get(pipeline, Family())
