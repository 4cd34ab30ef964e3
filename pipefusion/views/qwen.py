"""`diffusers.QwenImageTransformer2DModel`: Qwen-Image, an MM-DiT of double blocks with centred rotary positions.

Qwen-Image-Edit is the same class with reference pictures, which lie at 1, 2, ... on the first axis of positions. With
`zero_cond_t` (its version of November 2025) their tokens are modulated as at timestep 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import DiTShape, linear
from pipefusion.deferred import Deferred
from pipefusion.views.sites import Joint, Site
from pipefusion.views.sizes import double_block, prompt_sizes, time_embedder
from pipefusion.views.stock import StockView, picture_tokens, unpatchified

transformer_qwenimage = Deferred("diffusers.models.transformers.transformer_qwenimage")

REFERENCES = 3
"""The most reference pictures: what Qwen-Image-Edit takes."""
LAYERED = ("use_additional_t_cond", "use_layer3d_rope")
"""What only Qwen-Image-Layered has, which draws several pictures at once."""


class Text(NamedTuple):
    """Where the model is entered the prompt's tokens [b, T, hs], and reference pictures [b, R, C, H, W], if any."""

    tokens: Tensor | None
    references: Tensor | None = None


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    for key in LAYERED:
        if config[key]:
            raise ValueError(f"{key} (Qwen-Image-Layered) is not supported: several pictures at once")
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, mlp, square = heads * head_dim, 4 * heads * head_dim, config["patch_size"] ** 2
    channels, out = config["joint_attention_dim"], config["out_channels"] or config["in_channels"]
    block = double_block(hs, mlp, 4 * head_dim)
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=config["in_channels"] // square,
        out_channels=out,
        blocks=(block,) * config["num_layers"],
        embed_params=linear(config["in_channels"], hs) + channels + linear(channels, hs),
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * out),
        shared_params=((range(0), time_embedder(hs)),),
        prompt=prompt_sizes(facts["text_tokens"], channels),
        joint=True,
        cross=False,
    )


@cache
def stock_rope(theta: int, axes: tuple[int, ...]) -> Any:
    """The model's own positions, on the CPU. One a process: what diffusers caches by instance is never freed."""
    return transformer_qwenimage.QwenEmbedRope(theta, [*axes], scale_rope=True)


class View(StockView):
    """Qwen-Image opened up. Its pipeline masks padding and rescales what is guided: `Conditioning` says both."""

    stock = "QwenImageTransformer2DModel"
    site = Joint
    embed_parts = ("img_in", "txt_norm", "txt_in")
    labels: ClassVar[Mapping[str, str]] = {
        "time_text_embed": "time embedding",
        "txt_norm": "text embedding",
        "txt_in": "text embedding",
        "img_in": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        """The image's middle is (0, 0, 0); the prompt's tokens follow its last row or column on the diagonal."""
        size, rope = self.shape, self.model.pos_embed
        turns = torch.empty(  # [T + p, d/2]
            size.text_tokens + size.tokens, size.head_dim // 2, dtype=torch.complex64, device=self.device
        )
        if self.device.type != "meta":  # the model's own have no data: they are no buffers
            pictures = [(1, size.token_rows, size.token_cols)] * size.grid.planes
            image, text = stock_rope(rope.theta, tuple(rope.axes_dim))(
                [pictures], torch.device("cpu"), size.text_tokens
            )
            image = image.view(1, size.grid.planes, size.token_rows, size.token_cols, -1)
            turns = torch.cat([text, size.grid.in_line(image)[0]]).to(self.device)
        self.set_turns(turns)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        queries = [f"attn.{name}" for part in "qkv" for name in (f"to_{part}", f"add_{part}_proj")]
        columns = dict.fromkeys(queries, hs) | {"img_mlp.net.0.proj": mlp, "txt_mlp.net.0.proj": mlp}
        rows = {"attn.to_out.0": hs, "attn.to_add_out": hs, "img_mlp.net.2": mlp, "txt_mlp.net.2": mlp}
        return TensorPlan(columns, rows)

    def text(self, cond: Conditioning) -> Text:
        if not self.holds("txt_in"):
            return Text(None)
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        return Text(self.model.txt_in(self.model.txt_norm(embeds)), self.references(cond))

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Tensor:
        # In thousandths in the model's own precision, as the pipeline does it.
        times = timestep.expand(batch).to(self.dtype) / 1000
        if self.model.zero_cond_t:
            times = torch.cat([times, times * 0])
        return self.model.time_text_embed(times, times)  # [b or 2b, hs]; of the second only the dtype is read

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Tensor) -> Tokens:
        pixels = picture_tokens(
            self.shape, latent.to(self.dtype), rows, text.references, self.shape.patch_size
        )
        return Tokens(self.model.img_in(pixels), text.tokens)

    def referring(self, tokens: Tensor) -> Tensor | None:
        """Which of a band's tokens [b, t, hs] are of reference pictures [b, t], where that makes a difference."""
        if not self.model.zero_cond_t:
            return None
        columns = torch.arange(tokens.shape[1], device=tokens.device) % self.shape.grid.width
        return (columns >= self.shape.token_cols).int().expand(tokens.shape[:2])

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block = self.block_module(0)
        first, _ = block.img_mod(given.modulation).chunk(2, dim=-1)
        return block._modulate(block.img_norm1(tokens.image), first, self.referring(tokens.image))[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        text, image = self.block_module(layer)(
            hidden_states=tokens.image,
            encoder_hidden_states=tokens.text,
            encoder_hidden_states_mask=None,
            temb=given.modulation,
            image_rotary_emb=Site(attend, given.positions),
            modulate_index=self.referring(tokens.image),
        )
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        image = self.shape.grid.without_references(image)
        modulation = modulation[: len(image)]  # of the timestep, not of 0
        pixels = self.model.proj_out(self.model.norm_out(image, modulation))  # [b, t, C*patch*patch]
        return unpatchified(pixels, len(rows), self.shape.patch_size, channels_last=False)
