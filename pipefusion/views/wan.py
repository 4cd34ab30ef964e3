"""`diffusers.WanTransformer3DModel`: Wan 2.1 and 2.2. Its own modules are called and none is copied.

From text, or as Wan 2.2 TI2V-5B from a picture: the first frame of the latents is clean in every step, and its tokens
are modulated as at timestep 0, all others as at the step's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import KV, Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, TooLarge, linear
from pipefusion.deferred import Deferred
from pipefusion.views.sites import AcrossHeads, Site, wide_prompt_kv
from pipefusion.views.sizes import prompt_sizes
from pipefusion.views.stock import StockView, pair_turns, video_table, video_unpatchified

transformer_wan = Deferred("diffusers.models.transformers.transformer_wan")

VIDEO = FIRST_FRAME = True
CONDITIONED = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len")
"""What only models have that go from an image to a video."""


class Text(NamedTuple):
    """Tokens of the prompt [b, T, hs]; where the model is entered also a first frame that is given.

    Of it in every frame [b, C, F, H, W], and where in these it holds [1, 1, F, H, W].
    """

    tokens: Tensor
    first: tuple[Tensor, Tensor] | None = None


class Modulation(NamedTuple):
    """Six shifts, scales and gates [b, 6, hs] for the blocks, and the time embedding [b, hs].

    With a first frame that is given [2b, 6, hs]: behind those of the timestep those of timestep 0.
    """

    blocks: Tensor
    embedded: Tensor


class Places(NamedTuple):
    """Rotary positions of a band's tokens, and which of them [t] are of a first frame that is given."""

    turns: Tensor
    clean: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    for key in CONDITIONED:
        if config[key] is not None:
            raise ValueError(f"{key} (Wan from an image) is not supported: a second cross-attention")
    if config["out_channels"] not in (None, config["in_channels"]):
        raise ValueError("in_channels beyond out_channels (Wan from an image) are not supported")
    frames, patch, other = config["patch_size"]
    if frames != 1 or patch != other:
        raise ValueError(f"patch_size={config['patch_size']} is not supported; allowed: [1, n, n]")
    most = config["rope_max_seq_len"]
    if max(facts["frames"], rows, cols) > most:
        raise TooLarge(f"{facts['frames']} x {rows} x {cols} tokens; allowed: at most {most} on an axis")
    hs, mlp = config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"]
    channels, out = config["in_channels"], config["out_channels"] or config["in_channels"]
    attention = 3 * linear(hs, hs) + hs * hs + 2 * hs  # and the norms of q and k
    block = BlockShape(
        split_params=2 * attention + linear(hs, mlp) + mlp * hs,
        kept_params=3 * hs
        + 6 * hs
        + 2 * hs * config["cross_attn_norm"],  # biases of outputs, scale_shift_table
        image_macs=6 * hs * hs + 2 * hs * mlp,
        text_macs=2 * hs * hs,
        image_reduces=3,
        cross_params=attention,
        wide_norms=2,
        wide_cross=True,
    )
    time = linear(config["freq_dim"], hs) + linear(hs, hs) + linear(hs, 6 * hs)
    text = linear(config["text_dim"], hs) + linear(hs, hs)
    return DiTShape(
        heads=config["num_attention_heads"],
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=patch,
        in_channels=channels,
        out_channels=out,
        blocks=(block,) * config["num_layers"],
        embed_params=linear(channels * patch**2, hs),
        unembed_params=linear(hs, patch**2 * out) + 2 * hs,
        shared_params=((range(0), time + text),),
        prompt=prompt_sizes(facts["text_tokens"], config["text_dim"]),
    )


class View(StockView):
    """Wan opened up. Its pipeline attends to all of a prompt's tokens, those behind its end too, which are zeros.

    All parameters have one precision; `from_pretrained` keeps norms, tables and the time embedding in float32.
    """

    stock = "WanTransformer3DModel"
    stacks = ("blocks",)
    attentions = ("attn1", "attn2")
    site = AcrossHeads
    embed_parts = ("patch_embedding",)
    unembed_parts = ("norm_out", "proj_out", "scale_shift_table")
    labels: ClassVar[Mapping[str, str]] = {
        "condition_embedder": "time and text embedding",
        "patch_embedding": "patch embedding",
        "proj_out": "output projection",
        "scale_shift_table": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        size, config = self.shape, self.model.config
        self.model.rope = nn.Identity()  # its tables are buffers without data
        cos, sin = (torch.empty(size.tokens, size.head_dim, device=self.device) for _ in range(2))
        if self.device.type != "meta":
            rope = transformer_wan.WanRotaryPosEmbed(
                size.head_dim, config["patch_size"], config["rope_max_seq_len"]
            )
            there = torch.empty(1, *size.latent_size, device="meta")
            cos, sin = (video_table(size, table).to(self.device) for table in rope(there))
        self.set_turns(pair_turns(cos, sin))

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        queries = [f"attn{n}.to_{part}" for n in (1, 2) for part in "qkv"]
        return TensorPlan(
            columns=dict.fromkeys(queries, hs) | {"ffn.net.0.proj": mlp},
            rows={"attn1.to_out.0": hs, "attn2.to_out.0": hs, "ffn.net.2": mlp},
            cross="attn2",
            norms=tuple(f"attn{n}.norm_{part}" for n in (1, 2) for part in "qk"),
        )

    def text(self, cond: Conditioning) -> Text:
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        tokens = self.model.condition_embedder.text_embedder(embeds)  # [b, T, hs]
        if not self.shape.first_frame or not self.holds("patch_embedding"):
            return Text(tokens)
        _, frames, height, width = self.shape.latent_size
        given = cond.stacked("first_frame").to(self.device, self.dtype).expand(-1, -1, frames, -1, -1)
        clean = torch.arange(frames, device=self.device)[:, None, None] == 0
        return Text(tokens, (given, clean.expand(1, 1, -1, height, width)))

    def cross(self, text: Text) -> Mapping[int, KV]:
        return {layer: wide_prompt_kv(self.block_module(layer).attn2, text.tokens) for layer in self.layers}

    def positions(self, rows: Band, prompt: range) -> Tensor | Places:
        turns: Tensor = super().positions(rows, prompt)
        if self.shape.first_frame:
            return Places(turns, self.shape.grid.in_first_frame(rows, self.device))
        return turns

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        times, embedder = timestep.expand(batch), self.model.condition_embedder
        if self.shape.first_frame:
            times = torch.cat([times, times * 0])
        embedded = embedder.time_embedder(embedder.timesteps_proj(times).to(self.dtype))
        blocks = embedder.time_proj(embedder.act_fn(embedded))
        return Modulation(blocks.unflatten(1, (6, -1)), embedded)

    def by_token(self, given: Given) -> Tensor:
        """What the blocks are modulated by [b, 6, hs], or each token of a band [b, t, 6, hs]."""
        blocks = given.modulation.blocks
        if not self.shape.first_frame:
            return blocks
        noisy, clean = blocks[:, None].chunk(2)
        return torch.where(given.positions.clean[:, None, None], clean, noisy)

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        latent = latent.to(self.dtype)
        if text.first is not None:
            given, clean = (self.shape.grid.take_latent(each, rows) for each in text.first)
            latent = torch.where(clean, given, latent)
        hidden = self.model.patch_embedding(latent).movedim(1, -1)  # [b, F, h, w, hs]
        return Tokens(self.shape.grid.in_line(hidden).contiguous())

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block, table = self.block_module(0), self.by_token(given).float()
        first = (block.scale_shift_table + table)[..., :2, :]  # [b, 2, hs] or [b, t, 2, hs]
        shift, scale = first.unbind(-2) if table.ndim == 4 else first.split(1, dim=1)
        return (block.norm1(tokens.image.float()) * (1 + scale) + shift).type_as(tokens.image)

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        places = given.positions
        site = Site(attend, places.turns if isinstance(places, Places) else places)
        return Tokens(self.block_module(layer)(tokens.image, given.cross[layer], self.by_token(given), site))

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        model = self.model
        # All at the timestep: what is predicted of a frame that is given is not used.
        embedded = modulation.embedded[: len(image)]
        shift, scale = (model.scale_shift_table + embedded[:, None]).chunk(2, dim=1)
        image = (model.norm_out(image.float()) * (1 + scale) + shift).type_as(image)
        return video_unpatchified(self.shape.grid.in_frames(model.proj_out(image)), self.shape.patch_size)
