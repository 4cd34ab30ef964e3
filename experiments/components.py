"""What comes with a transformer in a pipeline's folder: text encoders, class names, and how timesteps are set.

A folder in the hub's layout has a `model_index.json`, which names the diffusers pipeline and the class of each part.
The pipeline's own `encode_prompt` is used, on one with tokenizers and text encoders only.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.errors import ConfigError, nearest
from experiments.text import quiet

INDEX = "model_index.json"
CLASSES = 1000
"""Of ImageNet. The label after the last is DiT's unconditional one, in its pipeline as here."""


def pixart(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """T5, 120 tokens (alpha) or 300 (sigma)."""
    embeds, mask, *_ = pipe.encode_prompt([text], do_classifier_free_guidance=False, device=device)
    return {"prompt_embeds": embeds, "prompt_mask": mask}


def sd3(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """77 tokens of two CLIPs side by side, then 256 of T5; the CLIPs' pooled vectors."""
    embeds, _, pooled, _ = pipe.encode_prompt([text], None, None, device, do_classifier_free_guidance=False)
    return unmasked(embeds) | {"pooled_prompt_embeds": pooled}


def flux(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """512 tokens of T5, and CLIP's pooled vector."""
    embeds, pooled, _ = pipe.encode_prompt([text], device=device)
    return unmasked(embeds) | {"pooled_prompt_embeds": pooled}


def flux2(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """512 tokens: the hidden states of three layers of a language model, side by side."""
    embeds, _ = pipe.encode_prompt([text], device=device)
    return unmasked(embeds)


def hunyuan(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """77 tokens of BERT, and 256 of mT5."""
    found: dict[str, Tensor] = {}
    for index, suffix in enumerate(("", "_2")):
        embeds, _, mask, _ = pipe.encode_prompt(
            [text], device=device, do_classifier_free_guidance=False, text_encoder_index=index
        )
        found |= {f"prompt_embeds{suffix}": embeds, f"prompt_mask{suffix}": mask}
    return found


def unmasked(embeds: Tensor) -> dict[str, Tensor]:
    """Embeddings [B, T, D] of a model that attends to padding too, with a mask of ones [B, T]."""
    return {"prompt_embeds": embeds, "prompt_mask": embeds.new_ones(embeds.shape[:2])}


Encode = Callable[[Any, str, torch.device], dict[str, Tensor]]
PIPELINES: dict[str, tuple[int, Encode]] = {
    "PixArtAlphaPipeline": (1, pixart),
    "PixArtSigmaPipeline": (1, pixart),
    "StableDiffusion3Pipeline": (3, sd3),
    "FluxPipeline": (2, flux),
    "Flux2Pipeline": (1, flux2),
    "Flux2KleinPipeline": (1, flux2),
    "HunyuanDiTPipeline": (2, hunyuan),
}
"""Pipeline -> how many text encoders it has, and what they give for one text. DiTPipeline has none."""


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json. Raises ConfigError if it is missing or of a pipeline that is unknown here."""
    path = folder / INDEX
    allowed = f"allowed: {', '.join([*PIPELINES, 'DiTPipeline'])}"
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError("model.weights", f"{path} cannot be read ({error}); {allowed}") from None
    name = index.get("_class_name")
    if name != "DiTPipeline" and name not in PIPELINES:
        raise ConfigError("model.weights", f"{path} is for {name}; {allowed}")
    return index


def has_encoders(folder: Path) -> bool:
    """Whether `encode` has what it needs: for DiT its index, for others all tokenizers and text encoders."""
    if not (folder / INDEX).exists():
        return False
    count, _ = PIPELINES.get(read_index(folder)["_class_name"], (0, None))
    ends = ("", "_2", "_3")[:count]
    return all((folder / f"{part}{end}").is_dir() for part in ("tokenizer", "text_encoder") for end in ends)


def encode(
    folder: Path, prompts: Sequence[str], negative: str | None, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Prompts as the folder's own text encoders have them. These are gone when this returns.

    Args:
        folder: a pipeline in the hub's layout; pickled encoders are refused.
        prompts: B prompts; for DiT names of classes, or numbers.
        negative: the negative prompt, also B times in the result; None where there is no guidance.
        device, dtype: where and in what the encoders compute.

    Returns:
        float32 on the CPU, each also as `negative_*` if asked for: `prompt_embeds` [B, T, D] and `prompt_mask` [B, T]
        (1 at tokens to attend to, 0 at padding); SD3 and Flux: `pooled_prompt_embeds` [B, D']; HunyuanDiT:
        `prompt_embeds_2`, `prompt_mask_2`; DiT: `class_labels` [B] int64 and nothing else.

    Raises ConfigError for an unknown pipeline or class name, OSError for missing files.
    """
    index = read_index(folder)
    if index["_class_name"] == "DiTPipeline":
        labels = torch.tensor([class_label(index, prompt) for prompt in prompts])
        against = {} if negative is None else {"negative_class_labels": torch.full_like(labels, CLASSES)}
        return {"class_labels": labels} | against
    texts = [*prompts] if negative is None else [*prompts, negative]
    rows = encode_texts(folder, index, list(dict.fromkeys(texts)), device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    names = rows[texts[0]]
    found = {name: torch.cat([rows[prompt][name] for prompt in prompts]) for name in names}
    if negative is not None:
        found |= {f"negative_{name}": torch.cat([rows[negative][name]] * len(prompts)) for name in names}
    return found


@torch.no_grad()
def encode_texts(
    folder: Path, index: dict[str, Any], texts: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, dict[str, Tensor]]:
    """Each text on its own: its tensors [1, ...] depend on no other, and memory does not grow with their number."""
    _, encode_one = PIPELINES[index["_class_name"]]
    pipe = load_encoders(folder, index, dtype).to(device)
    return {
        text: {
            name: tensor.to("cpu", torch.float32) for name, tensor in encode_one(pipe, text, device).items()
        }
        for text in texts
    }


def load_encoders(folder: Path, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """The folder's diffusers pipeline with tokenizers and text encoders; all other parts are None, and not read."""
    # Here and not at the top: importing transformers takes seconds, and most commands encode nothing.
    import diffusers
    from diffusers.utils import logging

    name = index["_class_name"]
    with quiet():
        pipeline = getattr(diffusers, name)
    # Mistral's processor takes pictures too and needs torchvision; for text it is its tokenizer.
    processor = name == "Flux2Pipeline"
    read = ("text_encoder",) if processor else ("text_encoder", "tokenizer")
    parts = {"transformer", "vae", "scheduler"} | {
        part for part, kind in index.items() if isinstance(kind, list)
    }
    options: dict[str, Any] = {part: None for part in parts if not part.startswith(read)}
    if name == "HunyuanDiTPipeline":
        options["requires_safety_checker"] = False  # or it warns of having none
    logging.disable_progress_bar()
    pipe = pipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, **options
    )
    if processor:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        pipe.register_modules(tokenizer=tokenizer)
    return pipe


def class_label(index: Mapping[str, Any], prompt: str) -> int:
    """The class that a prompt means: a number, or one of the names in `id2label`. Raises ConfigError."""
    if prompt.strip().isdecimal() and int(prompt) < CLASSES:
        return int(prompt)
    id2label: dict[str, str] = index.get("id2label", {})
    labels = {name.strip(): int(key) for key, names in id2label.items() for name in names.split(",")}
    if prompt.strip() in labels:
        return labels[prompt.strip()]
    allowed = f"allowed: 0..{CLASSES - 1}" + (f", or one of {len(labels)} names" if labels else "")
    raise ConfigError("prompt", f"{prompt!r} is no class{nearest(prompt, labels)}; {allowed}")


def timestep_arguments(
    transformer_class: str, scheduler_config: Mapping[str, Any], image_tokens: int, steps: int
) -> dict[str, Any]:
    """What the pipeline of a transformer gives to `set_timesteps` of its scheduler, in numbers that JSON can hold.

    Flux and Qwen-Image say the sigmas themselves; they and SD3 shift them by `mu`, which grows with the picture, if the
    scheduler asks for it. `scheduler_config` is a scheduler_config.json, `_class_name` included.
    """
    import diffusers

    scheduler = getattr(diffusers, scheduler_config["_class_name"]).from_config(scheduler_config)
    config = scheduler.config  # with the defaults of its class
    arguments: dict[str, Any] = {"num_inference_steps": steps}
    takes = inspect.signature(scheduler.set_timesteps).parameters
    says = ("FluxTransformer2DModel", "Flux2Transformer2DModel", "QwenImageTransformer2DModel")
    if transformer_class in says and "sigmas" in takes and not config.get("use_flow_sigmas", False):
        arguments = {"sigmas": np.linspace(1.0, 1 / steps, steps).tolist()}
    if "mu" in takes and config.get("use_dynamic_shifting", False):
        arguments |= shift(transformer_class, config, image_tokens, steps)
    return arguments


def shift(
    transformer_class: str, config: Mapping[str, Any], image_tokens: int, steps: int
) -> dict[str, float]:
    """`mu` as the pipeline computes it; nothing where its pipeline knows none."""
    if transformer_class == "Flux2Transformer2DModel":
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return {"mu": compute_empirical_mu(image_tokens, steps)}
    if transformer_class in ("FluxTransformer2DModel", "QwenImageTransformer2DModel"):
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        most = 1.15
    elif transformer_class == "SD3Transformer2DModel":
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

        most = 1.16
    else:
        return {}
    length = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    bounds = config.get("base_shift", 0.5), config.get("max_shift", most)
    return {"mu": calculate_shift(image_tokens, *length, *bounds)}
