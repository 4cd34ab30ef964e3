"""`diffusers.PixArtTransformer2DModel` as a DiT view. It calls the model's own modules and copies none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed
from torch import Tensor, nn

from pipefusion.core.attention import Attend, SiteProcessor
from pipefusion.core.dit import Conditioning, DiTShape, Shard, clone_modules


@dataclass(frozen=True)
class Text:
    """Projected prompt [b, T, hs] and its additive mask [b, 1, T]."""

    hidden: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Modulation:
    """AdaLN-single: the six shifts, scales and gates [b, 6*hs] and the time embedding [b, hs]."""

    blocks: Tensor
    embedded: Tensor


def pixart_shape(
    config: dict[str, Any], latent_height: int, latent_width: int, text_tokens: int, itemsize: int = 4
) -> DiTShape:
    """The sizes of a PixArt configuration (its `config.json`) on a latent of the given height and width."""
    hidden = config["num_attention_heads"] * config["attention_head_dim"]
    patch = config["patch_size"]
    size_conditions = config.get("use_additional_conditions")
    return DiTShape(
        layers=config["num_layers"],
        heads=config["num_attention_heads"],
        hidden=hidden,
        token_rows=latent_height // patch,
        token_cols=latent_width // patch,
        patch_size=patch,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"] or config["in_channels"],
        text_channels=config["caption_channels"],
        text_tokens=text_tokens,
        mlp_hidden=4 * hidden,
        itemsize=itemsize,
        size_conditions=config["sample_size"] == 128 if size_conditions is None else size_conditions,
    )


class PixArtView:
    """A PixArt model opened up. Built on `meta`; a rank's methods `keep` their part before `load` fills it."""

    def __init__(
        self, config: dict[str, Any], shape: DiTShape, dtype: torch.dtype, pixels_per_latent: int = 1
    ):
        with torch.device("meta"):
            self.model = PixArtTransformer2DModel.from_config(config).eval()
        nn.Module.to(self.model, dtype)  # diffusers' own `to` warns about modules that PixArt does not have
        self.model.requires_grad_(False)
        self.shape = shape
        self.dtype = dtype
        self.layers = range(shape.layers)
        self.shards: dict[str, Shard] = {}
        self.pixels_per_latent = pixels_per_latent
        self.device = torch.device("meta")
        # The model's own table is for the size it was made for; this one is filled by `load`.
        self.model.pos_embed.pos_embed = torch.empty(1, shape.tokens, shape.hidden, device="meta")
        for layer, block in enumerate(self.model.transformer_blocks):
            block.attn1.set_processor(SiteProcessor(layer))
            block.attn2.set_processor(SiteProcessor(layer))

    def clone(self) -> PixArtView:
        twin = copy.copy(self)
        twin.model = clone_modules(self.model)
        twin.shards = dict(self.shards)
        return twin

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        self.layers = layers
        for layer in range(self.shape.layers):
            if layer not in layers:
                self.model.transformer_blocks[layer] = nn.Identity()
        if not embed:
            self.model.pos_embed = nn.Identity()
        if not unembed:
            self.model.proj_out = nn.Identity()
            self.model.scale_shift_table = None

    def load(self, tensors: Callable[[str, Shard | None], Tensor], device: torch.device) -> None:
        state = {
            name: tensors(name, self.shards.get(name)).to(device, self.dtype)
            for name, _ in self.model.named_parameters()
        }
        self.model.load_state_dict(state, assign=True, strict=False)
        if isinstance(self.model.pos_embed, PatchEmbed):
            self.model.pos_embed.pos_embed = self._positions().to(device)
        self.device = device

    def text(self, cond: Conditioning) -> Text:
        embeds, mask = cond.stacked()
        bias = (1 - mask.to(self.device, self.dtype)) * -10000.0  # the stock model's bias for masked text
        return Text(self.model.caption_projection(embeds.to(self.device, self.dtype)), bias.unsqueeze(1))

    def modulation(self, timestep: Tensor, batch: int) -> Modulation:
        extra = None
        if self.shape.size_conditions:
            height = self.shape.token_rows * self.shape.patch_size * self.pixels_per_latent
            width = self.shape.token_cols * self.shape.patch_size * self.pixels_per_latent
            resolution = torch.tensor([[height, width]], device=self.device, dtype=self.dtype)
            ratio = torch.tensor([[height / width]], device=self.device, dtype=self.dtype)
            extra = {"resolution": resolution.expand(batch, 2), "aspect_ratio": ratio.expand(batch, 1)}
        times = timestep.to(self.device).expand(batch)
        blocks, embedded = self.model.adaln_single(times, extra, batch_size=batch, hidden_dtype=self.dtype)
        return Modulation(blocks, embedded)

    def embed(self, latent: Tensor, rows: range) -> Tensor:
        hidden = self.model.pos_embed.proj(latent.to(self.dtype)).flatten(2).transpose(1, 2)  # [b, t, hs]
        return (hidden + self.model.pos_embed.pos_embed[:, self.shape.band_tokens(rows)]).to(self.dtype)

    def _positions(self) -> Tensor:
        """Sin-cos positions of the full image [1, p, hs], as the model's own embedding makes them for this size."""
        module = self.model.pos_embed
        table = get_2d_sincos_pos_embed(
            self.shape.hidden,
            (self.shape.token_rows, self.shape.token_cols),
            base_size=module.base_size,
            interpolation_scale=module.interpolation_scale,
            output_type="pt",
            device=torch.device("cpu"),
        )
        return table.float().unsqueeze(0)

    def block(self, layer: int, hidden: Tensor, modulation: Modulation, text: Text, attend: Attend) -> Tensor:
        return self.model.transformer_blocks[layer](
            hidden,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.bias,
            timestep=modulation.blocks,
            cross_attention_kwargs={"attend": attend},
        )

    def unembed(self, hidden: Tensor, modulation: Modulation, rows: range) -> Tensor:
        model, patch = self.model, self.shape.patch_size
        shift, scale = (model.scale_shift_table[None] + modulation.embedded[:, None]).chunk(2, dim=1)
        pixels = model.proj_out(model.norm_out(hidden) * (1 + scale) + shift)  # [b, t, patch*patch*C]
        grid = pixels.unflatten(1, (len(rows), self.shape.token_cols)).unflatten(-1, (patch, patch, -1))
        latent = grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # [b, C, rows*patch, W]
        if self.shape.out_channels == 2 * self.shape.in_channels:
            latent = latent.chunk(2, dim=1)[0]  # the second half is the learned variance
        return latent
