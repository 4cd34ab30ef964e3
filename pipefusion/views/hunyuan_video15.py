"""`diffusers.HunyuanVideo15Transformer3DModel`: HunyuanVideo 1.5 from text, double blocks alone.

It opens as HunyuanVideo does; what enters differs. The prompt is the tokens of two encoders, the first ones refined in
every step. A model from an image gets no image here: channels of zeros beside the latent's, and tokens
that the stock model masks in every block and this view leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import DiTShape, linear
from pipefusion.views import hunyuan_video
from pipefusion.views.hunyuan_video import Modulation
from pipefusion.views.sizes import double_block, prompt_sizes, time_embedder, token_refiner

VIDEO = True
GLYPH_TOKENS = 256
"""Prompt tokens of the second encoder, which reads what is in quotation marks, by default."""
GLYPH_HIDDEN = 2048
"""Width of the MLP behind it, a constant of the stock model."""
SUPPORTED = {"task_type": "t2v", "use_meanflow": False, "patch_size_t": 1, "qk_norm": "rms_norm"}


class Text(NamedTuple):
    """Tokens of the first encoder [b, T, D], of the second, embedded [b, T2, hs]; which of both are real [b, T+T2]."""

    tokens: Tensor
    glyphs: Tensor
    real: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    for key, only in SUPPORTED.items():
        if config[key] != only:
            raise ValueError(f"{key}={config[key]} is not supported; allowed: {only}")
    channels, latent = config["in_channels"], config["out_channels"] or config["in_channels"]
    if channels != 2 * latent + 1:
        raise ValueError(f"in_channels={channels}; allowed: {2 * latent + 1}, two latents and a mask")
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, mlp, square = heads * head_dim, int(config["mlp_ratio"] * heads * head_dim), config["patch_size"] ** 2
    text, glyphs, picture = (config[f"{name}_dim"] for name in ("text_embed", "text_embed_2", "image_embed"))
    glyph_mlp = linear(glyphs, GLYPH_HIDDEN) + linear(GLYPH_HIDDEN, GLYPH_HIDDEN) + linear(GLYPH_HIDDEN, hs)
    picture_mlp = linear(picture, picture) + linear(picture, hs)
    norms = 2 * (glyphs + picture + hs)
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=latent,
        out_channels=latent,
        blocks=(double_block(hs, mlp, 4 * head_dim),) * config["num_layers"],
        embed_params=linear(channels * square, hs)
        + token_refiner(text, hs, config["num_refiner_layers"])
        + glyph_mlp
        + picture_mlp
        + norms
        + 3 * hs,
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * latent),
        shared_params=((range(0), time_embedder(hs)),),
        prompt=(
            *prompt_sizes(facts["text_tokens"], text),
            *prompt_sizes(facts.get("text_tokens_2", GLYPH_TOKENS), glyphs, "_2"),
        ),
        joint=True,
        cross=False,
    )


class View(hunyuan_video.View):
    """HunyuanVideo 1.5 opened up. Its pipeline fills up both prompts and masks what is none: `padding` says it."""

    stock = "HunyuanVideo15Transformer3DModel"
    stacks = ("transformer_blocks",)
    embed_parts = (
        "x_embedder",
        "image_embedder",
        "context_embedder",
        "context_embedder_2",
        "cond_type_embed",
    )
    labels: ClassVar[Mapping[str, str]] = {
        "time_embed": "time embedding",
        "context_embedder": "text refiner",
        "context_embedder_2": "text embedding",
        "cond_type_embed": "text embedding",
        "image_embedder": "image embedding",
        "x_embedder": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def text(self, cond: Conditioning) -> Any:
        if not self.holds("context_embedder"):
            return None
        tokens, glyphs = (
            cond.stacked(name).to(self.device, self.dtype) for name in ("prompt_embeds", "prompt_embeds_2")
        )
        count = tokens.shape[1] + glyphs.shape[1]
        real = tokens.new_ones(tokens.shape[0], count, dtype=torch.bool)
        if "padding" in cond.prompt:
            real = ~cond.stacked("padding").to(self.device)
        return Text(tokens, self.model.context_embedder_2(glyphs), real)

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> Modulation:
        model, times = self.model, timestep.expand(batch).to(self.dtype)
        embedded = model.time_embed(times)  # [b, hs]
        if text is None:
            return Modulation(embedded, None)
        refined = model.context_embedder(text.tokens, times, text.real[:, : text.tokens.shape[1]])
        first, second, _ = model.cond_type_embed.weight
        prompt = torch.cat([refined + first, text.glyphs + second], dim=1)
        return Modulation(embedded, prompt.masked_fill(~text.real[..., None], 0))

    def embed(self, latent: Tensor, rows: Band, text: Any, modulation: Modulation) -> Tokens:
        padded = F.pad(latent, (0, 0, 0, 0, 0, 0, 0, latent.shape[1] + 1))  # no picture, and its mask
        return super().embed(padded, rows, text, modulation)
