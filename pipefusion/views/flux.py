"""`diffusers.FluxTransformer2DModel`: FLUX.1, double blocks and then single blocks over one joint sequence.

FLUX.1 Kontext is the same class with a reference picture, whose tokens lie at 1 on the first axis of positions.
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
from pipefusion.core.shape import DiTShape, linear
from pipefusion.views.sites import Joint, Site
from pipefusion.views.sizes import double_block, prompt_sizes, single_block, time_embedder
from pipefusion.views.stock import StockView, grid_ids, pair_turns, picture_tokens, unpatchified

PATCH = 2  # latents are packed two by two before they come to the transformer
REFERENCES = 1
"""The most reference pictures: what FLUX.1 Kontext takes."""


class Text(NamedTuple):
    """The prompt's tokens as they enter the blocks [b, T, hs] (where the model is entered), its summary, the scale.

    Where the model is entered also the reference pictures [b, R, C, H, W], if there are any.
    """

    tokens: Tensor | None
    pooled: Tensor
    guidance_scale: float
    references: Tensor | None = None


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration (its `config.json`) on `rows` x `cols` tokens."""
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, mlp = heads * head_dim, 4 * heads * head_dim
    channels, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
    double, single = double_block(hs, mlp, 4 * head_dim), single_block(hs, mlp, 2 * head_dim)
    out = config["out_channels"] or config["in_channels"]
    guided = config["guidance_embeds"]
    time = (2 if guided else 1) * time_embedder(hs) + linear(pooled, hs) + linear(hs, hs)
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=PATCH,
        in_channels=config["in_channels"] // PATCH**2,
        out_channels=out // PATCH**2,
        blocks=(double,) * config["num_layers"] + (single,) * config["num_single_layers"],
        embed_params=linear(config["in_channels"], hs) + linear(channels, hs),
        unembed_params=linear(hs, 2 * hs) + linear(hs, out),
        shared_params=((range(0), time),),
        prompt=(*prompt_sizes(facts["text_tokens"], channels), ("pooled_prompt_embeds", (pooled,))),
        joint=True,
        cross=False,
        guidance="embedded" if guided else "none",
    )


class View(StockView):
    """Flux opened up. Tokens of prompt and image stay apart between blocks, so that either can be sent alone."""

    stock = "FluxTransformer2DModel"
    stacks = ("transformer_blocks", "single_transformer_blocks")
    site = Joint
    embed_parts = ("x_embedder", "context_embedder")
    teacache = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)  # TeaCache's own, for FLUX.1
    labels: ClassVar[Mapping[str, str]] = {
        "time_text_embed": "time, guidance and text embedding",
        "context_embedder": "text embedding",
        "x_embedder": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        prompt = torch.zeros(self.shape.text_tokens, 3, device=self.device)  # all of it at the same place
        ids = torch.cat([prompt, grid_ids(self.shape, 3, self.device)])
        self.set_turns(pair_turns(*self.model.pos_embed(ids)))

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = self.shape.hidden, self.shape.mlp_hidden
        queries = ["attn.to_q", "attn.to_k", "attn.to_v"]
        if self.block_name(layer).startswith("single"):
            columns = dict.fromkeys(queries, (hs,)) | {"proj_mlp": (mlp,)}
            return TensorPlan(columns, {"proj_out": (hs, mlp)})
        queries += ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]
        columns = dict.fromkeys(queries, (hs,))
        columns |= dict.fromkeys(("ff.net.0.proj", "ff_context.net.0.proj"), (mlp,))
        rows = dict.fromkeys(("attn.to_out.0", "attn.to_add_out"), (hs,))
        return TensorPlan(columns, rows | dict.fromkeys(("ff.net.2", "ff_context.net.2"), (mlp,)))

    def text(self, cond: Conditioning) -> Text:
        pooled = cond.stacked("pooled_prompt_embeds").to(self.device, self.dtype)
        if not self.holds("context_embedder"):
            return Text(None, pooled, cond.guidance_scale)
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        tokens = self.model.context_embedder(embeds)
        return Text(tokens, pooled, cond.guidance_scale, self.references(cond))

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Tensor:
        # In thousandths and back, in the model's own precision, as the pipeline and the model do it.
        times = timestep.expand(batch).to(self.dtype) / 1000 * 1000
        if self.shape.guidance == "none":
            return self.model.time_text_embed(times, text.pooled)  # [b, hs]
        scale = torch.full((batch,), text.guidance_scale, device=self.device).to(self.dtype) * 1000
        return self.model.time_text_embed(times, scale, text.pooled)  # [b, hs]

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Tensor) -> Tokens:
        pixels = picture_tokens(self.shape, latent.to(self.dtype), rows, text.references, PATCH)
        return Tokens(self.model.x_embedder(pixels), text.tokens)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.block_module(0).norm1(tokens.image, emb=given.modulation)[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        text, image = self.block_module(layer)(
            hidden_states=tokens.image,
            encoder_hidden_states=tokens.text,
            temb=given.modulation,
            image_rotary_emb=Site(attend, given.positions, tokens.prefix),
        )
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        image = self.shape.grid.without_references(image)
        pixels = self.model.proj_out(self.model.norm_out(image, modulation))  # [b, t, C*patch*patch]
        return unpatchified(pixels, len(rows), PATCH, channels_last=False)
