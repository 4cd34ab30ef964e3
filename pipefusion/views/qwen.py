"""`diffusers.QwenImageTransformer2DModel`: Qwen-Image, an MM-DiT of double blocks with centred rotary positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, linear
from pipefusion.views.sites import Joint, Site
from pipefusion.views.stock import (
    StockView,
    patchified,
    time_embedder,
    unpatchified,
)

EDITING = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
"""What only Qwen-Image-Edit and Qwen-Image-Layered have: they attend to other pictures as well."""


def shape(
    config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any], itemsize: int
) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    for key in EDITING:
        if config[key]:
            raise ValueError(f"{key} (Qwen-Image-Edit, -Layered) is not supported: tokens of other pictures")
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hs, mlp, square = heads * head_dim, 4 * heads * head_dim, config["patch_size"] ** 2
    channels, out = config["joint_attention_dim"], config["out_channels"] or config["in_channels"]
    macs = 4 * hs * hs + 2 * hs * mlp
    block = BlockShape(
        split_params=6 * linear(hs, hs) + 2 * hs * hs + 2 * (linear(hs, mlp) + mlp * hs),
        kept_params=4 * hs + 2 * linear(hs, 6 * hs) + 4 * head_dim,
        image_macs=macs,
        text_macs=macs,
        image_reduces=2,
        text_reduces=2,
    )
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
        prompt=(
            ("prompt_embeds", (facts["text_tokens"], channels)),
            ("prompt_mask", (facts["text_tokens"],)),
        ),
        joint=True,
        cross=False,
        itemsize=itemsize,
    )


@cache
def stock_rope(theta: int, axes: tuple[int, ...]) -> QwenEmbedRope:
    """The model's own positions, on the CPU. One a process: what diffusers caches by instance is never freed."""
    return QwenEmbedRope(theta, [*axes], scale_rope=True)


class View(StockView):
    """Qwen-Image opened up. Its pipeline masks padding and rescales what is guided: `Conditioning` says both."""

    stock = QwenImageTransformer2DModel
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
            image, text = stock_rope(rope.theta, tuple(rope.axes_dim))(
                (1, size.token_rows, size.token_cols), torch.device("cpu"), size.text_tokens
            )
            turns = torch.cat([text, image]).to(self.device)
        self.set_turns(turns)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        queries = [f"attn.{name}" for part in "qkv" for name in (f"to_{part}", f"add_{part}_proj")]
        columns = dict.fromkeys(queries, hs) | {"img_mlp.net.0.proj": mlp, "txt_mlp.net.0.proj": mlp}
        rows = {"attn.to_out.0": hs, "attn.to_add_out": hs, "img_mlp.net.2": mlp, "txt_mlp.net.2": mlp}
        return TensorPlan(columns, rows)

    def text(self, cond: Conditioning) -> Tensor | None:
        if not self.holds("txt_in"):
            return None
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        return self.model.txt_in(self.model.txt_norm(embeds))  # [b, T, hs]

    def modulation(self, timestep: Tensor, text: Tensor | None, batch: int) -> Tensor:
        # In thousandths in the model's own precision, as the pipeline does it.
        times = timestep.expand(batch).to(self.dtype) / 1000
        return self.model.time_text_embed(times, times)  # [b, hs]; of the second only the dtype is read

    def embed(self, latent: Tensor, rows: Band, text: Tensor | None, modulation: Tensor) -> Tokens:
        return Tokens(self.model.img_in(patchified(latent.to(self.dtype), self.shape.patch_size)), text)

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        text, image = self.block_module(layer)(
            hidden_states=tokens.image,
            encoder_hidden_states=tokens.text,
            encoder_hidden_states_mask=None,
            temb=given.modulation,
            image_rotary_emb=Site(attend, given.positions),
        )
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        pixels = self.model.proj_out(self.model.norm_out(image, modulation))  # [b, t, C*patch*patch]
        return unpatchified(pixels, len(rows), self.shape.patch_size, channels_last=False)
