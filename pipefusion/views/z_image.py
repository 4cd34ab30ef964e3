"""`diffusers.ZImageTransformer2DModel`: Z-Image, one stream of image and prompt behind blocks that refine each alone.

The model fills up the image's tokens and the prompt's to multiples of 32 with learned tokens, and attends to these as
to others. Those behind the image lie in no patch: they go in front, with the prompt's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, TooLarge, linear
from pipefusion.views.sites import STOCK, SelfOrCross, Site, processor
from pipefusion.views.sizes import prompt_sizes
from pipefusion.views.stock import StockView, grid_ids, patchified, unpatchified

PATCH = 2
"""Latent rows per token row; the configuration has a list, of which every published model has this one."""
ADALN_EMBED_DIM, SEQ_MULTI_OF = 256, 32
"""Constants of the stock model's module: the most that modulation has of a timestep, and what it fills up to."""
SIZE = f"{PATCH}-1"
"""What the model calls the embedding and the projection of such patches."""


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    if config["siglip_feat_dim"] is not None:
        raise ValueError("siglip_feat_dim (Z-Image-Omni) is not supported: tokens of other pictures")
    if [*config["all_patch_size"]] != [PATCH] or [*config["all_f_patch_size"]] != [1]:
        raise ValueError(f"all_patch_size={config['all_patch_size']} is not supported; allowed: [{PATCH}]")
    most = min(config["axes_lens"][1:])
    if max(rows, cols) > most:
        raise TooLarge(f"{rows} x {cols} tokens; allowed: at most {most} a side (axes_lens)")
    heads, hs, channels = config["n_heads"], config["dim"], config["in_channels"]
    mlp, modulated = int(hs / 3 * 8), min(hs, ADALN_EMBED_DIM)
    macs, norms = 4 * hs * hs + 3 * hs * mlp, 4 * hs + 2 * (hs // heads) * config["qk_norm"]
    block = BlockShape(
        split_params=macs,
        kept_params=norms + linear(modulated, 4 * hs),
        image_macs=macs,
        text_macs=macs,
        image_reduces=2,
        text_reduces=2,
    )
    refiner = BlockShape(**(vars(block) | {"image_only": True}))
    refiners, prompt, pixels = config["n_refiner_layers"], config["cap_feat_dim"], PATCH**2 * channels
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=PATCH,
        in_channels=channels,
        out_channels=channels,
        blocks=(refiner,) * refiners + (block,) * config["n_layers"],
        embed_params=linear(pixels, hs) + prompt + linear(prompt, hs) + refiners * (macs + norms) + 2 * hs,
        unembed_params=linear(modulated, hs) + linear(hs, pixels),
        shared_params=((range(0), linear(256, 1024) + linear(1024, modulated)),),
        prompt=prompt_sizes(facts["text_tokens"], prompt),
        image_filling=-rows * cols % SEQ_MULTI_OF,
        text_filling=-facts["text_tokens"] % SEQ_MULTI_OF,
        joint=True,
        cross=False,
        guidance="none",
    )


class Stream(SelfOrCross):
    """Self-attention whose `Site` travels as `freqs_cis`."""

    def __call__(  # type: ignore[override]
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: Site = STOCK,
    ) -> Tensor:
        return super().__call__(attn, hidden_states, image_rotary_emb=freqs_cis)


class View(StockView):
    """Z-Image opened up. What refines the prompt alone belongs to its embedding: once an image, whatever the step."""

    stock = "ZImageTransformer2DModel"
    stacks = ("noise_refiner", "layers")
    attentions = ("attention",)
    site = Stream
    embed_parts = ("all_x_embedder", "x_pad_token", "cap_embedder", "context_refiner", "cap_pad_token")
    unembed_parts = ("all_final_layer",)
    labels: ClassVar[Mapping[str, str]] = {
        "t_embedder": "time embedding",
        "all_x_embedder": "patch embedding",
        "x_pad_token": "patch embedding",
        "cap_embedder": "text embedding",
        "cap_pad_token": "text embedding",
        "context_refiner": "text refiner",
        "all_final_layer": "output projection",
    }

    def open_sites(self) -> None:
        super().open_sites()
        for block in self.model.context_refiner:
            block.attention.set_processor(processor(Stream, -1))

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        """The prompt counts on the first axis from 1; the image lies behind it, what fills it up is at 0."""
        size, cpu = self.shape, torch.device("cpu")
        turns = torch.empty(
            size.joint_tokens + size.tokens, size.head_dim // 2, dtype=torch.complex64, device=self.device
        )
        if self.device.type != "meta":
            text = size.text_tokens + size.text_filling
            ids = torch.zeros(size.joint_tokens + size.tokens, 3, dtype=torch.long)
            ids[size.image_filling : size.joint_tokens, 0] = torch.arange(text) + 1
            ids[size.joint_tokens :] = grid_ids(size, 3, cpu).long()
            ids[size.joint_tokens :, 0] = text + 1
            turns = self.model.rope_embedder(ids).to(self.device)
        self.set_turns(turns)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        columns = dict.fromkeys([f"attention.to_{part}" for part in "qkv"], hs)
        columns |= {"feed_forward.w1": mlp, "feed_forward.w3": mlp}
        return TensorPlan(columns, {"attention.to_out.0": hs, "feed_forward.w2": mlp})

    def text(self, cond: Conditioning) -> Tensor | None:
        if not self.holds("cap_embedder"):
            return None
        if "padding" in cond.prompt:
            raise ValueError(
                "prompts of different lengths in a batch: Z-Image places each image behind its own"
            )
        model, size = self.model, self.shape
        tokens = model.cap_embedder(cond.stacked("prompt_embeds").to(self.device, self.dtype))
        batch, first = tokens.shape[0], size.image_filling
        tokens = torch.cat([tokens, model.cap_pad_token.expand(batch, size.text_filling, -1)], dim=1)
        site = Site(turns=model.turns[first : size.joint_tokens])
        for block in model.context_refiner:
            tokens = block(tokens, None, site)
        return torch.cat([model.x_pad_token.expand(batch, first, -1), tokens], dim=1)  # [b, T, hs]

    def modulation(self, timestep: Tensor, text: Tensor | None, batch: int) -> Tensor:
        times = (1000 - timestep.expand(batch)) / 1000  # 0 is noise, as the pipeline has it
        return self.model.t_embedder(times * self.model.t_scale).to(self.dtype)  # [b, 256]

    def embed(self, latent: Tensor, rows: Band, text: Tensor | None, modulation: Tensor) -> Tokens:
        pixels = patchified(latent.to(self.dtype), PATCH, channels_last=True)
        return Tokens(self.model.all_x_embedder[SIZE](pixels), text)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block = self.block_module(0)
        scale = block.adaLN_modulation(given.modulation)[:, None].chunk(4, dim=-1)[0]
        return block.attention_norm1(tokens.image) * (1 + scale)

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        assert tokens.text is not None
        prefix, whole = self.shape.own_prefix(layer, given.prompt), tokens.prefix
        turns = given.positions
        if prefix < whole:  # a refiner, which the prompt passes by
            turns = torch.cat([turns[:prefix], turns[whole:]])
        joined = torch.cat([tokens.text[:, :prefix], tokens.image], dim=1)
        site = Site(attend, turns, prefix)
        joined = self.block_module(layer)(joined, None, site, given.modulation)  # [b, prefix + t, hs]
        text = torch.cat([joined[:, :prefix], tokens.text[:, prefix:]], dim=1)
        return Tokens(joined[:, prefix:], text)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        pixels = self.model.all_final_layer[SIZE](image, c=modulation)  # [b, t, patch*patch*C]
        return -unpatchified(pixels, len(rows), PATCH)
