"""Sizes in bytes and operations that predictions are made of (Table 1 of the paper).

Symbols: p image tokens, hs hidden size, b = images * guidance branches, n ranks on the axis, S steps, W warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pipefusion.core.shape import DiTShape
from pipefusion.core.split import Split, split_layers

LATENT_ITEMSIZE = 4  # latents are float32 whatever the model computes in


def held_params(
    shape: DiTShape,
    layers: range,
    embed: bool = True,
    unembed: bool = True,
    shards: int = 1,
    whole_cross: bool = False,
) -> int:
    """Bytes of the parameters of a device with these layers.

    With `shards` > 1 heads and MLP columns are split, with `whole_cross` all but the cross-attention's.
    """
    blocks = [shape.blocks[layer] for layer in layers]
    whole = [whole_cross * block.cross_params for block in blocks]
    count = sum(
        (block.split_params - cross) // shards + cross + block.kept_params
        for block, cross in zip(blocks, whole, strict=True)
    )
    count += sum(size for served, size in shape.shared_params if not served or set(served) & set(layers))
    count += embed * shape.embed_params + unembed * shape.unembed_params
    count += (unembed and 0 not in layers) * shape.borrowed_params
    return count * shape.transformers * shape.itemsize


def latent_bytes(shape: DiTShape, images: int) -> int:
    """Latents of the whole image."""
    return images * prod(shape.latent_size) * LATENT_ITEMSIZE


def layer_flops(shape: DiTShape, layer: int = 0) -> float:
    """Multiply-adds times two of one block on one whole image and, in an MM-DiT, its prompt.

    K, V of a cross-attention's prompt are projected once an image, not in a step.
    """
    block, p = shape.blocks[layer], shape.tokens
    keys = shape.head_dim + 1 if shape.linear else p + shape.prefix(layer)  # for each query
    attended = (p + shape.prefix(layer)) * keys + shape.cross * p * shape.text_tokens
    return 2 * (block.image_macs * p + block.text_macs * shape.prefix(layer)) + 4 * shape.hidden * attended


def stages(shape: DiTShape, devices: int, how: Split) -> list[range]:
    """Layers of each pipeline stage. `cost` balances FLOPs, `bytes` parameters, embed and unembed included."""
    if how == "cost":
        token = 2 * shape.patch_size**2 * shape.hidden
        ends = token * shape.tokens * shape.in_channels, token * shape.denoised_tokens * shape.out_channels
        weights = [layer_flops(shape, layer) for layer in range(shape.layers)]
    else:
        ends = shape.embed_params, shape.unembed_params
        weights = [block.split_params + block.kept_params for block in shape.blocks]
    return split_layers(shape.layers, devices, how, weights, *ends)


def find_stage(layers: Sequence[range], layer: int) -> int:
    """The stage that has a layer."""
    return next(stage for stage, held in enumerate(layers) if layer in held)


def takes_text(stages: Sequence[range], stage: int) -> bool:
    """Whether an MM-DiT's prompt still goes to this stage: it, or one after it, has a block."""
    return any(stages[stage:])
