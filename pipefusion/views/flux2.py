"""`diffusers.Flux2Transformer2DModel`: FLUX.2, whose blocks share their modulation and fuse attention and MLP.

It draws, and edits reference pictures, whose tokens lie at 10, 20, ... on the first axis of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, linear
from pipefusion.views.sites import Fused, Joint, Site, processor
from pipefusion.views.sizes import prompt_sizes, time_embedder
from pipefusion.views.stock import StockView, grid_ids, pair_turns, picture_tokens

REFERENCES = 10
"""The most reference pictures. The model has no limit of its own; more are tokens that it was not made for."""
APART = 10
"""Between reference pictures on the first axis of positions, as `Flux2Pipeline` has them."""
MODULATIONS = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")


class Text(NamedTuple):
    """The prompt's tokens as they enter the blocks [b, T, hs] (where the model is entered), and the guidance scale.

    Where the model is entered also the reference pictures [b, R, C, H, W], if there are any.
    """

    tokens: Tensor | None
    guidance_scale: float
    references: Tensor | None = None


class Modulation(NamedTuple):
    """Of the image's and the prompt's half of double blocks, of single blocks (where there are any), of the end."""

    image: Tensor | None
    text: Tensor | None
    single: Tensor | None
    embedded: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration (its `config.json`) on `rows` x `cols` tokens."""
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, mlp = heads * head_dim, int(heads * head_dim * config["mlp_ratio"])
    channels, doubles, singles = (
        config[key] for key in ("joint_attention_dim", "num_layers", "num_single_layers")
    )
    macs = 4 * hs * hs + 3 * hs * mlp
    double = BlockShape(
        split_params=2 * macs,
        kept_params=4 * head_dim,
        image_macs=macs,
        text_macs=macs,
        image_reduces=2,
        text_reduces=2,
    )
    single = BlockShape(
        split_params=macs,
        kept_params=2 * head_dim,
        image_macs=macs,
        text_macs=macs,
        image_reduces=1,
        text_reduces=1,
    )
    out = config["out_channels"] or config["in_channels"]
    guided = config["guidance_embeds"]
    sinusoids = config["timestep_guidance_channels"]
    time = (2 if guided else 1) * (time_embedder(hs, bias=False) + (sinusoids - 256) * hs)
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=1,
        in_channels=config["in_channels"],
        out_channels=out,
        blocks=(double,) * doubles + (single,) * singles,
        embed_params=(config["in_channels"] + channels) * hs,
        unembed_params=linear(hs, 2 * hs, False) + linear(hs, out, False),
        shared_params=(
            (range(0), time),
            (range(doubles), 2 * linear(hs, 6 * hs, False)),
            (range(doubles, doubles + singles), linear(hs, 3 * hs, False)),
        ),
        prompt=prompt_sizes(facts["text_tokens"], channels),
        joint=True,
        cross=False,
        guidance="embedded" if guided else "none",
    )


class View(StockView):
    """FLUX.2 opened up. A device holds a shared modulation only if it has a block that uses it."""

    stock = "Flux2Transformer2DModel"
    stacks = ("transformer_blocks", "single_transformer_blocks")
    embed_parts = ("x_embedder", "context_embedder")
    labels: ClassVar[Mapping[str, str]] = {
        "time_guidance_embed": "time and guidance embedding",
        **dict.fromkeys(MODULATIONS, "shared modulation"),
        "context_embedder": "text embedding",
        "x_embedder": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def open_sites(self) -> None:
        for layer in self.layers:
            single = self.block_name(layer).startswith("single")
            self.block_module(layer).attn.set_processor(processor(Fused if single else Joint, layer))

    def served_layers(self, name: str) -> range | None:
        if name not in MODULATIONS:
            return None
        doubles = self.model.config["num_layers"]
        return range(doubles) if name.startswith("double") else range(doubles, self.shape.layers)

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        prompt = torch.zeros(self.shape.text_tokens, 4, device=self.device)
        prompt[:, 3] += torch.arange(self.shape.text_tokens, device=self.device)  # an axis of its own
        ids = torch.cat([prompt, grid_ids(self.shape, 4, self.device, APART)])
        self.set_turns(pair_turns(*self.model.pos_embed(ids)))

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = self.shape.hidden, self.shape.mlp_hidden
        if self.block_name(layer).startswith("single"):
            return TensorPlan(
                {"attn.to_qkv_mlp_proj": (hs, hs, hs, mlp, mlp)},
                {"attn.to_out": (hs, mlp)},
            )
        queries = [f"attn.{name}" for part in "qkv" for name in (f"to_{part}", f"add_{part}_proj")]
        columns: dict[str, tuple[int, ...]] = dict.fromkeys(queries, (hs,))
        columns |= dict.fromkeys(("ff.linear_in", "ff_context.linear_in"), (mlp, mlp))
        rows = dict.fromkeys(("attn.to_out.0", "attn.to_add_out"), (hs,))
        return TensorPlan(columns, rows | dict.fromkeys(("ff.linear_out", "ff_context.linear_out"), (mlp,)))

    def text(self, cond: Conditioning) -> Text:
        if not self.holds("context_embedder"):
            return Text(None, cond.guidance_scale)
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        return Text(self.model.context_embedder(embeds), cond.guidance_scale, self.references(cond))

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        # In thousandths and back, in the model's own precision, as the pipeline and the model do it.
        times, scale = timestep.expand(batch).to(self.dtype) / 1000 * 1000, None
        if self.shape.guidance == "embedded":
            scale = torch.full((batch,), text.guidance_scale, device=self.device).to(self.dtype) * 1000
        embedded = self.model.time_guidance_embed(times, scale)  # [b, hs]
        image, prompt, single = (
            getattr(self.model, name)(embedded) if self.holds(name) else None for name in MODULATIONS
        )
        return Modulation(image, prompt, single, embedded)

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        pixels = picture_tokens(self.shape, latent.to(self.dtype), rows, text.references, 1)
        return Tokens(self.model.x_embedder(pixels), text.tokens)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        assert given.modulation.image is not None
        shift, scale = given.modulation.image[:, None].chunk(6, dim=-1)[:2]
        return self.block_module(0).norm1(tokens.image) * (1 + scale) + shift

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        site = Site(attend, given.positions, tokens.prefix)
        if self.block_name(layer).startswith("single"):
            text, image = self.block_module(layer)(
                tokens.image,
                tokens.text,
                given.modulation.single,
                image_rotary_emb=site,
                split_hidden_states=True,
            )
        else:
            text, image = self.block_module(layer)(
                hidden_states=tokens.image,
                encoder_hidden_states=tokens.text,
                temb_mod_img=given.modulation.image,
                temb_mod_txt=given.modulation.text,
                image_rotary_emb=site,
            )
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        image = self.shape.grid.without_references(image)
        pixels = self.model.proj_out(self.model.norm_out(image, modulation.embedded))  # [b, t, C]
        return pixels.transpose(1, 2).unflatten(2, (len(rows), -1))
