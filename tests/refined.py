"""An MM-DiT whose first blocks attend to the image alone, as Lumina2's refiners do, made of FLUX.1's tiny parts.

The single blocks come first and see no prompt, the double ones follow. No such model is published: it stands for what a
view may have, and its own serial run is what every method on it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from experiments.models import Model
from pipefusion.core.attention import Attend
from pipefusion.core.dit import DiT, Given, Tokens
from pipefusion.core.shape import DiTShape
from pipefusion.views import flux
from pipefusion.views.sites import Rotary, Site


@dataclass(frozen=True)
class Refined(Model):
    """The model of a FLUX.1 configuration, its single blocks first."""

    @property
    def shape(self) -> DiTShape:
        whole, doubles = super().shape, self.config["num_layers"]
        refiners = [
            replace(block, text_macs=0, text_reduces=0, image_only=True) for block in whole.blocks[doubles:]
        ]
        return replace(whole, blocks=(*refiners, *whole.blocks[:doubles]))

    def view(self) -> DiT:
        return RefinedView(self.config, self.shape, self.dtype, self.pixels_per_latent)


class RefinedView(flux.View):
    stacks = ("single_transformer_blocks", "transformer_blocks")

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        if self.shape.prefix(layer):
            return super().block(layer, tokens, given, attend, skip)
        cos, sin = given.positions
        of_image: Rotary = cos[self.shape.text_tokens :], sin[self.shape.text_tokens :]
        _, image = self.block_module(layer)(
            hidden_states=tokens.image,
            encoder_hidden_states=tokens.image[:, :0],
            temb=given.modulation,
            image_rotary_emb=Site(attend, of_image),
        )
        return Tokens(image, tokens.text)
