"""Pipelines that edit by an instruction, tiny and with random weights, made in code: class name → a function that
gives one. They edit a picture on a CPU in seconds; their pictures mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from tiny_models import save_tiny_instruct_pix2pix

from slurm_bench.bench.random_pix2pix import clip_tokenizer
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.scorers.qwen3vl.random_weights import random_judge

CHAT = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"


def flow(shifting: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shifting, base_shift=0.5, max_shift=1.15)


def kl_vae(depth: int = 4, **options: Any) -> Any:
    """`depth` 4 is the published one: a latent for 8 × 8 pixels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[4] * depth,
        down_block_types=["DownEncoderBlock2D"] * depth,
        up_block_types=["UpDecoderBlock2D"] * depth,
        layers_per_block=1,
        norm_num_groups=2,
        **{"latent_channels": 4, "shift_factor": 0.0, "scaling_factor": 1.0, **options},
    )


def flux2_vae() -> Any:
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
    )


def wan_vae(spatial: int = 8) -> Any:
    """`spatial` 16 is Wan 2.2's: a latent for 16 × 16 pixels."""
    from diffusers import AutoencoderKLWan

    deeper: dict[str, Any] = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    return AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1, **(deeper if spatial == 16 else {})
    )


def clip(projection: bool = False, **options: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(**sizes, vocab_size=600, eos_token_id=1, projection_dim=16, **options)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5() -> tuple[Any, Any]:
    """Encoder and tokenizer."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((chr(c), -3.0) for c in range(33, 127))]
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=256, **sizes)), T5Tokenizer(vocab=pieces, extra_ids=0)


def byte_tokenizer(chat_template: str | None = CHAT) -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocab = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = chat_template
    return tokenizer


def qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, num_key_value_heads=1, head_dim=8, vocab_size=512))


def sdxl_instruct_pix2pix() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLInstructPix2PixPipeline, UNet2DConditionModel

    return StableDiffusionXLInstructPix2PixPipeline(
        vae=kl_vae(depth=2),
        text_encoder=clip(),
        text_encoder_2=clip(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=UNet2DConditionModel(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=32,
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=2,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def flux_kontext(guidance_embeds: bool = True) -> Any:
    from diffusers import FluxKontextPipeline, FluxTransformer2DModel

    encoder, tokenizer = t5()
    return FluxKontextPipeline(
        scheduler=flow(),
        vae=kl_vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
    )


def _flux2_transformer(width: int, **options: Any) -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=width,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        **options,
    )


def flux2() -> Any:
    from diffusers import Flux2Pipeline
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
    )

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]})
    tokenizer.pad_token = "<|im_end|>"
    template = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = Mistral3Config(
        text_config={"model_type": "mistral", **sizes, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 512},
        vision_config={"model_type": "pixtral", **sizes, "num_hidden_layers": 1, "patch_size": 16, "image_size": 64},
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return Flux2Pipeline(
        scheduler=flow(),
        vae=flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=template),
        transformer=_flux2_transformer(3 * 16),
    )


def flux2_klein(kv: bool = False, is_distilled: bool = False) -> Any:
    import diffusers

    return getattr(diffusers, "Flux2KleinKVPipeline" if kv else "Flux2KleinPipeline")(
        scheduler=flow(),
        vae=flux2_vae(),
        text_encoder=qwen3(),
        tokenizer=byte_tokenizer(),
        transformer=_flux2_transformer(3 * 16, guidance_embeds=False),
        is_distilled=is_distilled,
    )


def longcat() -> Any:
    from diffusers import LongCatImageEditPipeline, LongCatImageTransformer2DModel

    parts = random_pipeline("tiny")
    return LongCatImageEditPipeline(
        scheduler=flow(),
        vae=kl_vae(latent_channels=16),
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        text_processor=parts.processor,
        transformer=LongCatImageTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
        ),
    )


def qwen21() -> Any:
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline, QwenImage21Transformer2DModel

    encoder, processor = random_judge("tiny", dtype="float32")
    return QwenImage21Pipeline(
        scheduler=flow(),
        vae=AutoencoderKLQwenImage21(base_dim=4, decoder_base_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1),
        text_encoder=encoder,
        processor=processor,
        transformer=QwenImage21Transformer2DModel(
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=encoder.config.text_config.hidden_size,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def omnigen() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, OmniGenPipeline, OmniGenTransformer2DModel

    return OmniGenPipeline(
        transformer=OmniGenTransformer2DModel(
            hidden_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            num_layers=1,
            pad_token_id=0,
            vocab_size=512,
            time_step_dim=16,
            rope_scaling={"short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "type": "su"},
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=kl_vae(),
        tokenizer=byte_tokenizer(),
    )


def bria_fibo_edit() -> Any:
    from diffusers import BriaFiboEditPipeline, BriaFiboTransformer2DModel
    from transformers import SmolLM3Config, SmolLM3ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = "<|im_end|>"
    return BriaFiboEditPipeline(
        transformer=BriaFiboTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=[4, 4, 8],
            text_encoder_dim=16,
        ),
        scheduler=flow(),
        vae=wan_vae(spatial=16),
        text_encoder=SmolLM3ForCausalLM(
            SmolLM3Config(**sizes, num_key_value_heads=1, vocab_size=128256, pad_token_id=0, no_rope_layers=[1, 1])
        ),
        tokenizer=tokenizer,
    )


def joyimage(plus: bool = False) -> Any:
    import diffusers

    encoder, processor = random_judge("tiny", dtype="float32")
    name = "JoyImageEditPlus" if plus else "JoyImageEdit"
    return getattr(diffusers, f"{name}Pipeline")(
        scheduler=flow(shifting=False),
        vae=wan_vae(),
        text_encoder=encoder,
        tokenizer=processor.tokenizer,
        transformer=getattr(diffusers, f"{name}Transformer3DModel")(
            hidden_size=32,
            num_attention_heads=2,
            text_dim=encoder.config.text_config.hidden_size,
            num_layers=1,
            rope_dim_list=[4, 4, 8],
        ),
        processor=processor,
    )


def chronoedit() -> Any:
    from diffusers import ChronoEditPipeline, ChronoEditTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    _, tokenizer = t5()
    return ChronoEditPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(
            UMT5Config(vocab_size=256, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        ),
        image_encoder=CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=16)),
        image_processor=CLIPImageProcessor(size=32, crop_size=32),
        transformer=ChronoEditTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=36,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            image_dim=16,
            added_kv_proj_dim=32,
        ),
        vae=wan_vae(),
        scheduler=flow(shifting=False),
    )


def bria_fibo2() -> Any:
    """The text encoder has its published 36 layers, since the pipeline names the layers it reads."""
    from diffusers import BriaFibo2Pipeline, BriaFibo2Transformer2DModel

    encoder, processor = random_judge("tiny", dtype="float32")
    encoder.config.text_config.num_hidden_layers = 36
    encoder.config.text_config.layer_types = ["full_attention"] * 36
    return BriaFibo2Pipeline(
        transformer=BriaFibo2Transformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=5,
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=3 * encoder.config.text_config.hidden_size,
            injection_layer_ids=(0, 1, 2, 3, 4),
            perceiver_num_layers=1,
            axes_dims=(4, 4, 8),
        ),
        scheduler=flow(),
        vae=flux2_vae(),
        text_encoder=type(encoder)(encoder.config),
        processor=processor,
    )


def dreamlite(mobile: bool = False) -> Any:
    import diffusers

    encoder, processor = random_judge("tiny", dtype="float32")
    width = encoder.config.text_config.hidden_size
    return getattr(diffusers, "DreamLiteMobilePipeline" if mobile else "DreamLitePipeline")(
        text_encoder=encoder,
        tokenizer=processor.tokenizer,
        processor=processor,
        vae=diffusers.AutoencoderTiny(
            encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4, num_encoder_blocks=(1,) * 4
        ),
        unet=diffusers.DreamLiteUNetModel(
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=8,
            encoder_hid_dim=width,
            encoder_hid_dim_type="text_proj",
            addition_embed_type="time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16,
        ),
        scheduler=flow(),
    )


def kandinsky5() -> Any:
    from diffusers import Kandinsky5I2IPipeline, Kandinsky5Transformer3DModel

    parts = random_pipeline("tiny")
    return Kandinsky5I2IPipeline(
        transformer=Kandinsky5Transformer3DModel(
            in_visual_dim=16,
            out_visual_dim=16,
            in_text_dim=16,
            in_text_dim2=16,
            time_dim=16,
            model_dim=32,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 4, 8),
            visual_cond=True,
        ),
        vae=kl_vae(latent_channels=16),
        text_encoder=parts.text_encoder,
        tokenizer=parts.processor,
        text_encoder_2=clip(),
        tokenizer_2=clip_tokenizer(),
        scheduler=flow(shifting=False),
    )


def z_image_omni() -> Any:
    from diffusers import ZImageOmniPipeline, ZImageTransformer2DModel
    from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ZImageOmniPipeline(
        scheduler=flow(),
        vae=kl_vae(latent_channels=16),
        text_encoder=qwen3(),
        tokenizer=byte_tokenizer(),
        transformer=ZImageTransformer2DModel(
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            siglip_feat_dim=16,
            axes_dims=[4, 4, 8],
        ),
        siglip=Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=16, num_patches=64)),
        siglip_processor=Siglip2ImageProcessor(patch_size=16, max_num_patches=64),
    )


TINY: dict[str, Callable[[], Any]] = {
    "StableDiffusionXLInstructPix2PixPipeline": sdxl_instruct_pix2pix,
    "FluxKontextPipeline": flux_kontext,
    "Flux2Pipeline": flux2,
    "Flux2KleinPipeline": flux2_klein,
    "Flux2KleinKVPipeline": lambda: flux2_klein(kv=True),
    "LongCatImageEditPipeline": longcat,
    "QwenImageEditPipeline": lambda: random_pipeline("tiny"),
    "QwenImageEditPlusPipeline": lambda: random_pipeline("tiny", plus=True),
    "QwenImage21Pipeline": qwen21,
    "OmniGenPipeline": omnigen,
    "BriaFiboEditPipeline": bria_fibo_edit,
    "JoyImageEditPipeline": joyimage,
    "JoyImageEditPlusPipeline": lambda: joyimage(plus=True),
    "ChronoEditPipeline": chronoedit,
    "BriaFibo2Pipeline": bria_fibo2,
    "DreamLitePipeline": dreamlite,
    "DreamLiteMobilePipeline": lambda: dreamlite(mobile=True),
    "Kandinsky5I2IPipeline": kandinsky5,
    "ZImageOmniPipeline": z_image_omni,
}


def save_tiny(name: str, folder: Path, **options: Any) -> Path:
    """A checkpoint of that pipeline; the same weights each time."""
    if name == "StableDiffusionInstructPix2PixPipeline":
        return save_tiny_instruct_pix2pix(folder)
    with torch.random.fork_rng(), redirect_stderr(StringIO()):  # progress bars
        torch.manual_seed(0)
        TINY[name](**options).save_pretrained(folder)
    return folder
