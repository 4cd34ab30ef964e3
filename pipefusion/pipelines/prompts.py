"""Prompts as a family's own diffusers pipeline encodes them, by the names that `DiTShape.prompt` has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
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


def qwen(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """As many tokens as the text has, at most 512: a language model's last hidden state behind its instructions."""
    embeds, _ = pipe.encode_prompt([text], device=device, max_sequence_length=512)
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


def sana(pipe: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    """300 tokens of Gemma, which has to enhance the prompt: its first one, and those behind the instruction."""
    instruction = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    return sana_plain(pipe, text, device, instruction)


def sana_plain(
    pipe: Any, text: str, device: torch.device, instruction: list[str] | None = None
) -> dict[str, Tensor]:
    """The same without an instruction, as negative prompts are encoded."""
    embeds, mask, *_ = pipe.encode_prompt([text], False, device=device, complex_human_instruction=instruction)
    return {"prompt_embeds": embeds, "prompt_mask": mask}


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
"""Pipeline, a text, and where the encoders are, to the tensors of that text."""


class Family(NamedTuple):
    """A pipeline's transformer, how many text encoders it has, and what they give for one text (None: classes).

    `against`: what they give for a negative one, where that is something else.
    """

    transformer: str
    encoders: int
    encode: Encode | None
    against: Encode | None = None


PIPELINES = {
    "PixArtAlphaPipeline": Family("PixArtTransformer2DModel", 1, pixart),
    "PixArtSigmaPipeline": Family("PixArtTransformer2DModel", 1, pixart),
    "StableDiffusion3Pipeline": Family("SD3Transformer2DModel", 3, sd3),
    "FluxPipeline": Family("FluxTransformer2DModel", 2, flux),
    "FluxKontextPipeline": Family("FluxTransformer2DModel", 2, flux),
    "Flux2Pipeline": Family("Flux2Transformer2DModel", 1, flux2),
    "Flux2KleinPipeline": Family("Flux2Transformer2DModel", 1, flux2),
    "QwenImagePipeline": Family("QwenImageTransformer2DModel", 1, qwen),
    "SanaPipeline": Family("SanaTransformer2DModel", 1, sana, sana_plain),
    "HunyuanDiTPipeline": Family("HunyuanDiT2DModel", 2, hunyuan),
    "DiTPipeline": Family("DiTTransformer2DModel", 0, None),
}


@torch.no_grad()
def encode(
    pipe: Any, prompts: Sequence[str], negative: str | Sequence[str] | None, device: torch.device
) -> dict[str, Tensor]:
    """Prompts through the text encoders of a diffusers pipeline, of which nothing else is used.

    Each text is encoded on its own: its tensors depend on no other, and memory does not grow with their number.

    Args:
        pipe: one of `PIPELINES`.
        prompts: B prompts; for DiT names of classes, or numbers.
        negative: one negative prompt, or B; None where there is no guidance.
        device: where the encoders are.

    Returns:
        float32 on the CPU, each also as `negative_*` if asked for: `prompt_embeds` [B, T, D] and `prompt_mask` [B, T]
        (1 at tokens to attend to, 0 at padding); SD3 and Flux: `pooled_prompt_embeds` [B, D']; HunyuanDiT:
        `prompt_embeds_2`, `prompt_mask_2`; DiT: `class_labels` [B] int64 and nothing else. Where texts have different
        numbers of tokens, `padding` [B, T] bool says which are none.

    Raises ValueError for an unknown pipeline or class name.
    """
    family = PIPELINES[known(pipe)]
    if family.encode is None:
        return labelled(classes(pipe, prompts), negative is not None)
    against = [negative] * len(prompts) if isinstance(negative, str) else [*(negative or [])]
    asked = [(family.encode, text) for text in prompts]
    asked += [(family.against or family.encode, text) for text in against]
    rows = {
        (encode_one, text): {
            key: tensor.to("cpu", torch.float32) for key, tensor in encode_one(pipe, text, device).items()
        }
        for encode_one, text in dict.fromkeys(asked)
    }
    lengths = {row["prompt_embeds"].shape[1] for row in rows.values()}
    if len(lengths) > 1:
        rows = {text: padded(row, max(lengths)) for text, row in rows.items()}
    both = {key: torch.cat([rows[one][key] for one in asked]) for key in rows[asked[0]]}
    found = {key: tensor[: len(prompts)] for key, tensor in both.items()}
    return found | {f"negative_{key}": tensor[len(prompts) :] for key, tensor in both.items() if against}


def padded(row: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    """A text's `prompt_embeds` [1, T, D] and `prompt_mask` with zeros behind, and which of the tokens these are."""
    missing = length - row["prompt_embeds"].shape[1]
    mask = F.pad(row["prompt_mask"], (0, missing))
    embeds = F.pad(row["prompt_embeds"], (0, 0, 0, missing))
    return row | {"prompt_embeds": embeds, "prompt_mask": mask, "padding": mask == 0}


def known(pipe: Any) -> str:
    """The name of the pipeline's class. Raises ValueError for one that is not known here."""
    name = type(pipe).__name__
    if name not in PIPELINES:
        raise ValueError(f"{name} is not supported; allowed: {', '.join(PIPELINES)}")
    return name


def require_family(pipe: Any, transformer: str) -> None:
    """Raises ValueError for a pipeline that is not known, or is of another transformer."""
    name = known(pipe)
    if PIPELINES[name].transformer != transformer:
        raise ValueError(f"{name} has a {PIPELINES[name].transformer}, and the denoiser is a {transformer}")


def labelled(labels: Tensor, guided: bool) -> dict[str, Tensor]:
    """DiT's classes [B], beside them as often none."""
    against = {"negative_class_labels": torch.full_like(labels, CLASSES)} if guided else {}
    return {"class_labels": labels} | against
