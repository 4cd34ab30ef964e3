"""`diffusers.CogVideoXTransformer3DModel`: CogVideoX 2b and 5b, one stream of prompt and video, a norm for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, linear
from pipefusion.deferred import embeddings
from pipefusion.views.sites import STOCK, SelfOrCross, Site
from pipefusion.views.sizes import prompt_sizes
from pipefusion.views.stock import StockView, fitted, pair_turns, video_table, video_unpatchified

VIDEO = True


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    for key in ("patch_size_t", "ofs_embed_dim"):
        if config[key] is not None:
            raise ValueError(f"{key} (CogVideoX 1.5) is not supported: tokens of several frames")
    if config["use_learned_positional_embeddings"]:
        raise ValueError("use_learned_positional_embeddings (CogVideoX from an image) is not supported")
    most = config["max_text_seq_length"]
    if not config["use_rotary_positional_embeddings"] and facts["text_tokens"] != most:
        raise ValueError(f"{facts['text_tokens']} prompt tokens; allowed: {most}")
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, time, square = heads * head_dim, config["time_embed_dim"], config["patch_size"] ** 2
    bias, affine = config["attention_bias"], config["norm_elementwise_affine"]
    macs = 4 * hs * hs + 8 * hs * hs
    block = BlockShape(
        split_params=3 * linear(hs, hs, bias) + hs * hs + linear(hs, 4 * hs) + 4 * hs * hs,
        kept_params=2 * hs + 2 * (linear(time, 6 * hs) + 2 * hs * affine) + 4 * head_dim,
        image_macs=macs,
        text_macs=macs,
        image_reduces=2,
        text_reduces=2,
    )
    channels, out = config["in_channels"], config["out_channels"] or config["in_channels"]
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=4 * hs,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=channels,
        out_channels=out,
        blocks=(block,) * config["num_layers"],
        embed_params=linear(channels * square, hs, config["patch_bias"])
        + linear(config["text_embed_dim"], hs),
        unembed_params=linear(time, 2 * hs) + 4 * hs * affine + linear(hs, square * out),
        shared_params=((range(0), linear(hs, time) + linear(time, time)),),
        prompt=prompt_sizes(facts["text_tokens"], config["text_embed_dim"]),
        joint=True,
        cross=False,
    )


class Stream(SelfOrCross):
    """Self-attention of the prompt's tokens and the video's as one sequence."""

    def __call__(  # type: ignore[override]
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        image_rotary_emb: Site = STOCK,
    ) -> tuple[Tensor, Tensor]:
        prefix = encoder_hidden_states.shape[1]
        joined = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        out = super().__call__(attn, joined, image_rotary_emb=image_rotary_emb._replace(prefix=prefix))
        return out[:, prefix:], out[:, :prefix]


class View(StockView):
    """CogVideoX opened up. Positions are added to the tokens (2b), or turn queries and keys of the video (5b)."""

    stock = "CogVideoXTransformer3DModel"
    attentions = ("attn1",)
    site = Stream
    embed_parts = ("patch_embed",)
    unembed_parts = ("norm_final", "norm_out", "proj_out")
    labels: ClassVar[Mapping[str, str]] = {
        "time_embedding": "time embedding",
        "patch_embed": "patch and text embedding",
        "norm_final": "output projection",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    @property
    def rotary(self) -> bool:
        """Whether positions are rotary."""
        return bool(self.model.config["use_rotary_positional_embeddings"])

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        size, config = self.shape, self.model.config
        if self.rotary:
            tokens, base = (
                (size.token_rows, size.token_cols),
                (config["sample_height"], config["sample_width"]),
            )
            shape = (size.joint_tokens + size.tokens, size.head_dim // 2)
            turns = torch.ones(shape, dtype=torch.complex64, device=self.device)  # the prompt is not turned
            if self.device.type != "meta":
                middle = fitted(tokens, (base[0] // size.patch_size, base[1] // size.patch_size))
                video = embeddings.get_3d_rotary_pos_embed(size.head_dim, middle, tokens, size.frames)
                turns[size.joint_tokens :] = video_table(size, pair_turns(*video))
            self.set_turns(turns)
        elif self.holds("patch_embed"):
            table = torch.empty(size.tokens, size.hidden, device=self.device)
            if self.device.type != "meta":
                table = video_table(
                    size,
                    embeddings.get_3d_sincos_pos_embed(
                        size.hidden,
                        (size.token_cols, size.token_rows),
                        size.frames,
                        config["spatial_interpolation_scale"],
                        config["temporal_interpolation_scale"],
                    ).flatten(0, 1),
                ).to(self.device, torch.float32)
            self.model.patch_embed.register_buffer("pos_embedding", table, persistent=False)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        columns = dict.fromkeys([f"attn1.to_{part}" for part in "qkv"], hs) | {"ff.net.0.proj": mlp}
        return TensorPlan(columns, {"attn1.to_out.0": hs, "ff.net.2": mlp})

    def text(self, cond: Conditioning) -> Tensor | None:
        if not self.holds("patch_embed"):
            return None
        return self.model.patch_embed.text_proj(cond.stacked("prompt_embeds").to(self.device, self.dtype))

    def modulation(self, timestep: Tensor, text: Tensor | None, batch: int) -> Tensor:
        times = self.model.time_proj(timestep.expand(batch)).to(self.dtype)
        return self.model.time_embedding(times)  # [b, time_embed_dim]

    def embed(self, latent: Tensor, rows: Band, text: Tensor | None, modulation: Tensor) -> Tokens:
        embedder, frames = self.model.patch_embed, latent.to(self.dtype).transpose(1, 2)  # [b, F, C, h, w]
        hidden = embedder.proj(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).movedim(2, -1)
        image = self.shape.grid.in_line(hidden)  # [b, t, hs]
        if not self.rotary:
            image = image + self.shape.grid.take_tokens(embedder.pos_embedding, rows).to(image.dtype)
        return Tokens(image, text)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.block_module(0).norm1(tokens.image, tokens.text, given.modulation)[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        site = Site(attend, given.positions)
        return Tokens(*self.block_module(layer)(tokens.image, tokens.text, given.modulation, site))

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        model = self.model
        pixels = model.proj_out(model.norm_out(model.norm_final(image), temb=modulation))
        frames = self.shape.grid.in_frames(pixels)  # [b, F, h, w, C*patch*patch]
        return video_unpatchified(frames, self.shape.patch_size, channels_last=False)
