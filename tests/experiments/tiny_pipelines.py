"""Every family's pipeline with tiny random parts, in the hub's folder layout; nothing is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from tests.experiments.tiny_texts import (
    LANGUAGE,
    WORDS,
    byte_tokenizer,
    clip,
    clip_tokenizer,
    t5,
    t5_tokenizer,
    write_tokenizer_config,
)
from tests.experiments.tiny_transformers import (
    CHANNELS,
    WIDTH,
    dit_transformer,
    flux2_transformer,
    flux_transformer,
    hunyuan_transformer,
    klein_transformer,
    pixart_transformer,
    qwen_transformer,
    sana_transformer,
    sd3_transformer,
)

CLASS_NAMES = {str(label): f"class {label}" for label in range(1000)} | {"207": "golden retriever, dog"}


def save_tiny(family: str, folder: Path, with_transformer: bool = False) -> Path:
    """Write a pipeline of `FAMILIES`, without its transformer unless asked for. The same bytes every time."""
    name, make_parts, scheduler, transformer = FAMILIES[family]
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": diffusers.__version__}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = make_parts(folder) | {"scheduler": scheduler()}
        if with_transformer:
            parts["transformer"] = transformer()
    for part, content in parts.items():
        if isinstance(content, tuple):  # what the index says of a folder that is there, or of an absent part
            index[part] = list(content)
        else:
            content.save_pretrained(folder / part)
            library = "diffusers" if isinstance(content, diffusers.ConfigMixin) else "transformers"
            index[part] = [library, type(content).__name__]
    if family == "dit":
        index["id2label"] = CLASS_NAMES
    if family == "hunyuan":
        index["requires_safety_checker"] = True
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def stock(folder: Path) -> Any:
    """The plain diffusers pipeline of a folder. FLUX.2-dev's processor needs torchvision, so it gets the tokenizer."""
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    options: dict[str, Any] = {"low_cpu_mem_usage": False}
    if name == "Flux2Pipeline":
        from transformers import AutoTokenizer

        options["tokenizer"] = None
    if name == "HunyuanDiTPipeline":
        options["requires_safety_checker"] = False
    pipe = getattr(diffusers, name).from_pretrained(folder, **options)
    if name == "Flux2Pipeline":
        pipe.register_modules(tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixart(folder: Path) -> dict[str, Any]:
    return {"tokenizer": t5_tokenizer(folder / "tokenizer"), "text_encoder": t5(), "vae": vae()}


def sana(folder: Path) -> dict[str, Any]:
    byte_tokenizer(folder / "tokenizer", "PreTrainedTokenizerFast", "")
    config = transformers.Gemma2Config(**LANGUAGE, num_hidden_layers=1, query_pre_attn_scalar=8)
    return {
        "tokenizer": ("transformers", "PreTrainedTokenizerFast"),
        "text_encoder": transformers.Gemma2Model(config),
        "vae": deep_vae(),
    }


def sd3(folder: Path) -> dict[str, Any]:
    return {
        "tokenizer": clip_tokenizer(folder / "tokenizer"),
        "tokenizer_2": clip_tokenizer(folder / "tokenizer_2"),
        "tokenizer_3": t5_tokenizer(folder / "tokenizer_3"),
        "text_encoder": clip(transformers.CLIPTextModelWithProjection),
        "text_encoder_2": clip(transformers.CLIPTextModelWithProjection),
        "text_encoder_3": t5(),
        "vae": vae(shift_factor=0.06, scaling_factor=1.5),
    }


def flux(folder: Path) -> dict[str, Any]:
    return {
        "tokenizer": clip_tokenizer(folder / "tokenizer"),
        "tokenizer_2": t5_tokenizer(folder / "tokenizer_2"),
        "text_encoder": clip(transformers.CLIPTextModel),
        "text_encoder_2": t5(),
        "vae": vae(shift_factor=0.12, scaling_factor=0.36),
    }


def flux2_dev(folder: Path) -> dict[str, Any]:
    template = "{{ bos_token }}{% for message in messages %}{{ message.content[0].text }}{% endfor %}"
    byte_tokenizer(folder / "tokenizer", "PreTrainedTokenizerFast", template)
    text = {**LANGUAGE, "model_type": "mistral", "num_hidden_layers": 30}
    vision = {"model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 1, "image_size": 8, "patch_size": 4}
    config = transformers.Mistral3Config(text_config=text, vision_config=vision)
    return {
        "tokenizer": ("transformers", "PixtralProcessor"),
        "text_encoder": transformers.Mistral3ForConditionalGeneration(config),
        "vae": flux2_vae(),
    }


def flux2_klein(folder: Path) -> dict[str, Any]:
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}"
    byte_tokenizer(folder / "tokenizer", "Qwen2Tokenizer", template)
    config = transformers.Qwen3Config(**LANGUAGE, num_hidden_layers=27)
    return {
        "tokenizer": ("transformers", "Qwen2TokenizerFast"),
        "text_encoder": transformers.Qwen3ForCausalLM(config),
        "vae": flux2_vae(),
    }


def qwen(folder: Path) -> dict[str, Any]:
    byte_tokenizer(folder / "tokenizer", "Qwen2Tokenizer", "")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    text = {**LANGUAGE, "num_hidden_layers": 2, "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": WIDTH}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, bos_token_id=0, eos_token_id=0
    )
    return {
        "tokenizer": ("transformers", "Qwen2Tokenizer"),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "vae": qwen_vae(),
    }


def hunyuan(folder: Path) -> dict[str, Any]:
    (folder / "tokenizer").mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(vocabulary))
    write_tokenizer_config(folder / "tokenizer", "BertTokenizer", model_max_length=77)
    bert = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=WIDTH,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=77,
    )  # fmt: skip
    return {
        "tokenizer": ("transformers", "BertTokenizer"),
        "tokenizer_2": t5_tokenizer(folder / "tokenizer_2"),
        "text_encoder": transformers.BertModel(bert),
        "text_encoder_2": t5(),
        "vae": vae(),
        "safety_checker": (None, None),
        "feature_extractor": (None, None),
    }


def dit(folder: Path) -> dict[str, Any]:
    return {"vae": vae()}


BLOCKS: dict[str, Any] = {
    "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2,
    "latent_channels": CHANNELS, "sample_size": 32,  # pixels of a tile
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def vae(**config: Any) -> diffusers.AutoencoderKL:
    """8 pixels per latent row, as all that these families come with."""
    return diffusers.AutoencoderKL(**BLOCKS, **config)


def flux2_vae() -> diffusers.AutoencoderKLFlux2:
    """FLUX.2's, with statistics of its latents that are not 0 and 1."""
    made = diffusers.AutoencoderKLFlux2(**BLOCKS)
    assert made.bn.running_mean is not None and made.bn.running_var is not None
    made.bn.running_mean.normal_()
    made.bn.running_var.uniform_(0.5, 2.0)
    return made


def qwen_vae() -> diffusers.AutoencoderKLQwenImage:
    """Qwen-Image's, 8 pixels per latent row as well."""
    mean, deviation = torch.randn(CHANNELS).tolist(), (0.5 + torch.rand(CHANNELS)).tolist()
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=mean, latents_std=deviation,
    )  # fmt: skip


def deep_vae() -> diffusers.AutoencoderDC:
    """SANA's, here too 8 pixels per latent row."""
    sides = {f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in (
        ("block_types", "ResBlock"), ("block_out_channels", (4, 4, 4, 4)), ("layers_per_block", (1, 1, 1, 1)),
        ("qkv_multiscales", ((), (), (), ())),
    )}  # fmt: skip
    return diffusers.AutoencoderDC(
        latent_channels=CHANNELS, scaling_factor=0.4, attention_head_dim=4, **sides
    )


def flow() -> diffusers.DPMSolverMultistepScheduler:
    """SANA's."""
    return diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def shifted() -> diffusers.FlowMatchEulerDiscreteScheduler:
    """The timesteps of Flux, FLUX.2 and SD3.5 as it is offered too: shifted by the size of the picture."""
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def fixed() -> diffusers.FlowMatchEulerDiscreteScheduler:
    """SD3's: one shift for all sizes."""
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


def unshifted() -> diffusers.FlowMatchEulerDiscreteScheduler:
    """FLUX.1-schnell's."""
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)


Parts = Callable[[Path], dict[str, Any]]
Make = Callable[[], Any]
FAMILIES: dict[str, tuple[str, Parts, Make, Make]] = {
    "pixart_alpha": (
        "PixArtAlphaPipeline",
        pixart,
        diffusers.DPMSolverMultistepScheduler,
        pixart_transformer,
    ),
    "pixart_sigma": (
        "PixArtSigmaPipeline",
        pixart,
        diffusers.DPMSolverMultistepScheduler,
        pixart_transformer,
    ),
    "sana": ("SanaPipeline", sana, flow, sana_transformer),
    "sd3": ("StableDiffusion3Pipeline", sd3, fixed, sd3_transformer),
    "sd3_shifted": ("StableDiffusion3Pipeline", sd3, shifted, sd3_transformer),
    "flux": ("FluxPipeline", flux, shifted, flux_transformer),
    "flux_schnell": ("FluxPipeline", flux, unshifted, flux_transformer),
    "flux2_dev": ("Flux2Pipeline", flux2_dev, shifted, flux2_transformer),
    "flux2_klein": ("Flux2KleinPipeline", flux2_klein, shifted, klein_transformer),
    "qwen": ("QwenImagePipeline", qwen, shifted, qwen_transformer),
    "hunyuan": ("HunyuanDiTPipeline", hunyuan, diffusers.DDPMScheduler, hunyuan_transformer),
    "dit": ("DiTPipeline", dit, diffusers.DDIMScheduler, dit_transformer),
}
"""Name -> pipeline, and what makes its parts, its scheduler and its transformer."""
