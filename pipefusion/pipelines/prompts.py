"""Prompts as a family's own diffusers pipeline encodes them, by the names that `DiTShape.prompt` has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

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


def classes(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """The classes [B] that DiT's prompts name, or number. Raises ValueError."""
    numbers = {str(label): label for label in range(CLASSES)}
    for prompt in prompts:
        if prompt not in numbers and prompt not in pipe.labels:
            names = f", or one of {len(pipe.labels)} names" if pipe.labels else ""
            raise ValueError(f"prompt {prompt!r} is no class; allowed: 0..{CLASSES - 1}{names}")
    return torch.tensor([numbers[each] if each in numbers else pipe.labels[each] for each in prompts])


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


@torch.no_grad()
def encode(
    pipe: Any, prompts: Sequence[str], negative: str | None, device: torch.device
) -> dict[str, Tensor]:
    """Prompts through the text encoders of a diffusers pipeline, of which nothing else is used.

    Each text is encoded on its own: its tensors depend on no other, and memory does not grow with their number.

    Args:
        pipe: one of `PIPELINES`, or a DiTPipeline.
        prompts: B prompts; for DiT names of classes, or numbers.
        negative: the negative prompt, also B times in the result; None where there is no guidance.
        device: where the encoders are.

    Returns:
        float32 on the CPU, each also as `negative_*` if asked for: `prompt_embeds` [B, T, D] and `prompt_mask` [B, T]
        (1 at tokens to attend to, 0 at padding); SD3 and Flux: `pooled_prompt_embeds` [B, D']; HunyuanDiT:
        `prompt_embeds_2`, `prompt_mask_2`; DiT: `class_labels` [B] int64 and nothing else.

    Raises ValueError for an unknown pipeline or class name.
    """
    name = known(pipe)
    if name == "DiTPipeline":
        return labelled(classes(pipe, prompts), negative is not None)
    _, encode_one = PIPELINES[name]
    texts = [*prompts] if negative is None else [*prompts, negative]
    rows = {
        text: {key: tensor.to("cpu", torch.float32) for key, tensor in encode_one(pipe, text, device).items()}
        for text in dict.fromkeys(texts)
    }
    found = {key: torch.cat([rows[prompt][key] for prompt in prompts]) for key in rows[texts[0]]}
    if negative is not None:
        found |= {f"negative_{key}": torch.cat([row] * len(prompts)) for key, row in rows[negative].items()}
    return found


def known(pipe: Any) -> str:
    """The name of the pipeline's class. Raises ValueError for one that is not known here."""
    name = type(pipe).__name__
    if name != "DiTPipeline" and name not in PIPELINES:
        raise ValueError(f"{name} is not supported; allowed: {', '.join([*PIPELINES, 'DiTPipeline'])}")
    return name


def labelled(labels: Tensor, guided: bool) -> dict[str, Tensor]:
    """DiT's classes [B], beside them as often none."""
    against = {"negative_class_labels": torch.full_like(labels, CLASSES)} if guided else {}
    return {"class_labels": labels} | against
