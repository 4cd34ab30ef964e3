"""`diffusers.HunyuanVideoTransformer3DModel`: HunyuanVideo from text, double blocks and then single ones.

What refines the prompt's tokens is given the timestep, so that they enter the blocks as others in every step: they are
made with its modulation, by the stage that embeds, once for all patches.
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
from pipefusion.views.sites import STOCK, Joint, Site
from pipefusion.views.sizes import double_block, prompt_sizes, single_block, time_embedder, token_refiner
from pipefusion.views.stock import StockView, pair_turns, video_table, video_unpatchified

VIDEO = True


class Text(NamedTuple):
    """The prompt as its encoders leave it: tokens [b, T, D], which are real [b, T], summary [b, P]; the scale."""

    tokens: Tensor
    real: Tensor
    pooled: Tensor
    guidance_scale: float


class Modulation(NamedTuple):
    """The embedding of time, summary and guidance [b, hs], and the prompt's tokens [b, T, hs] where they enter."""

    embedded: Tensor
    prompt: Tensor | None


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    if config["image_condition_type"] is not None:
        raise ValueError("image_condition_type (HunyuanVideo from an image) is not supported")
    for key, only in (("patch_size_t", 1), ("qk_norm", "rms_norm")):
        if config[key] != only:
            raise ValueError(f"{key}={config[key]} is not supported; allowed: {only}")
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, text, pooled = heads * head_dim, config["text_embed_dim"], config["pooled_projection_dim"]
    mlp, square = int(config["mlp_ratio"] * hs), config["patch_size"] ** 2
    double, single = double_block(hs, mlp, 4 * head_dim), single_block(hs, mlp, 2 * head_dim)
    guided, channels = config["guidance_embeds"], config["in_channels"]
    time = (1 + guided) * time_embedder(hs) + linear(pooled, hs) + linear(hs, hs)
    out = config["out_channels"] or channels
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=channels,
        out_channels=out,
        blocks=(double,) * config["num_layers"] + (single,) * config["num_single_layers"],
        embed_params=linear(channels * square, hs) + token_refiner(text, hs, config["num_refiner_layers"]),
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * out),
        shared_params=((range(0), time),),
        prompt=(*prompt_sizes(facts["text_tokens"], text), ("pooled_prompt_embeds", (pooled,))),
        joint=True,
        cross=False,
        guidance="embedded" if guided else "cfg",
    )


class Streams(Joint):
    """Joint attention of two streams, each with projections of its own (double blocks) or both with one (single)."""

    def __call__(  # type: ignore[override]
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        image_rotary_emb: Site = STOCK,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if attn.add_q_proj is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, None, image_rotary_emb)
        first = hidden_states.shape[1]
        joined = torch.cat([hidden_states, encoder_hidden_states], dim=1)
        out = super().__call__(attn, joined, image_rotary_emb=image_rotary_emb)
        assert isinstance(out, Tensor)
        return out[:, :first], out[:, first:]


class View(StockView):
    """HunyuanVideo opened up. Its pipeline fills up prompts to one length and masks what is none: `padding` says it."""

    stock = "HunyuanVideoTransformer3DModel"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    site = Streams
    embed_parts: ClassVar[tuple[str, ...]] = ("x_embedder", "context_embedder")
    labels: ClassVar[Mapping[str, str]] = {
        "time_text_embed": "time, guidance and text embedding",
        "context_embedder": "text refiner",
        "x_embedder": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        size = self.shape
        tokens = size.joint_tokens + size.tokens
        turns = torch.ones(tokens, size.head_dim // 2, dtype=torch.complex64, device=self.device)
        if self.device.type != "meta":  # the prompt is not turned
            there = torch.empty(1, *size.latent_size, device=self.device)
            turns[size.joint_tokens :] = video_table(size, pair_turns(*self.model.rope(there)))
        self.set_turns(turns)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = self.shape.hidden, self.shape.mlp_hidden
        columns = dict.fromkeys([f"attn.to_{part}" for part in "qkv"], (hs,))
        if self.block_name(layer).startswith("single"):
            return TensorPlan(columns | {"proj_mlp": (mlp,)}, {"proj_out": (hs, mlp)})
        columns |= dict.fromkeys([f"attn.add_{part}_proj" for part in "qkv"], (hs,))
        columns |= dict.fromkeys(("ff.net.0.proj", "ff_context.net.0.proj"), (mlp,))
        rows = dict.fromkeys(("attn.to_out.0", "attn.to_add_out"), (hs,))
        return TensorPlan(columns, rows | dict.fromkeys(("ff.net.2", "ff_context.net.2"), (mlp,)))

    def text(self, cond: Conditioning) -> Text:
        tokens, pooled = (
            cond.stacked(name).to(self.device, self.dtype)
            for name in ("prompt_embeds", "pooled_prompt_embeds")
        )
        real = ~cond.stacked("padding") if "padding" in cond.prompt else tokens.new_ones(tokens.shape[:2])
        return Text(tokens, real.to(self.device, self.dtype), pooled, cond.guidance_scale)

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        model, times, scale = self.model, timestep.expand(batch).float(), None
        if model.config["guidance_embeds"]:
            scale = torch.full((batch,), text.guidance_scale, device=self.device).to(self.dtype) * 1000
        embedded, _ = model.time_text_embed(times, text.pooled, scale)  # [b, hs]
        entered = self.holds("context_embedder")
        prompt = model.context_embedder(text.tokens, times, text.real) if entered else None
        return Modulation(embedded, prompt)

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        hidden = self.model.x_embedder.proj(latent.to(self.dtype)).movedim(1, -1)  # [b, F, h, w, hs]
        return Tokens(self.shape.grid.in_line(hidden).contiguous(), modulation.prompt)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.block_module(0).norm1(tokens.image, emb=given.modulation.embedded)[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        block, image, text = self.block_module(layer), tokens.image, tokens.text
        assert text is not None
        temb, site = given.modulation.embedded, Site(attend, given.positions, tokens.prefix)
        if self.block_name(layer).startswith("single"):  # both streams are alike: the prompt in front
            text, image = block(text, image, temb, None, site)
        else:
            image, text = block(image, text, temb, None, site)
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        pixels = self.model.proj_out(self.model.norm_out(image, modulation.embedded))
        frames = self.shape.grid.in_frames(pixels)  # [b, F, h, w, C*patch*patch]
        return video_unpatchified(frames, self.shape.patch_size, channels_last=False)
