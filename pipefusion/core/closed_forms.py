"""What a rank should hold and send, from sizes alone: printed beside what was measured (Table 1 of the paper).

Symbols: p image tokens, hs hidden size, b = images * guidance branches, n devices on the axis, S steps, W warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipefusion.core.shape import DiTShape
from pipefusion.core.split import Split, split_layers

LATENT_ITEMSIZE = 4  # latents are float32 whatever the model computes in


@dataclass(frozen=True)
class Prediction:
    """Bytes of one rank for one run of a batch of images."""

    layers: range
    param_bytes: int
    kv_bytes: int
    buffer_bytes: int
    comm_bytes: int
    sent_bytes: int
    recv_bytes: int


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
    return count * shape.itemsize


def kv_bytes(shape: DiTShape, layers: int, batch: int) -> int:
    """Full-length K and V of `layers` layers: 2 * p * hs * layers * b * itemsize."""
    return 2 * shape.tokens * shape.hidden * layers * batch * shape.itemsize


def hidden_bytes(shape: DiTShape, batch: int) -> int:
    """Hidden states of the whole image: p * hs * b * itemsize."""
    return shape.tokens * shape.hidden * batch * shape.itemsize


def text_bytes(shape: DiTShape, batch: int) -> int:
    """Hidden states of the prompt where they go through the blocks (MM-DiT): T * hs * b * itemsize."""
    return shape.joint_tokens * shape.hidden * batch * shape.itemsize


def latent_bytes(shape: DiTShape, images: int) -> int:
    """Latents of the whole image."""
    return images * shape.in_channels * shape.tokens * shape.patch_size**2 * LATENT_ITEMSIZE


def layer_flops(shape: DiTShape, layer: int = 0) -> float:
    """Multiply-adds times two of one block on one whole image and its prompt."""
    block, p, text = shape.blocks[layer], shape.tokens, shape.text_tokens
    attended = (p + shape.prefix(layer)) ** 2 + shape.cross * p * text
    return 2 * (block.image_macs * p + block.text_macs * text) + 4 * shape.hidden * attended


def stages(shape: DiTShape, devices: int, how: Split) -> list[range]:
    """Layers of each pipeline stage. `cost` balances FLOPs, `bytes` parameters, embed and unembed included."""
    if how == "cost":
        token = 2 * shape.patch_size**2 * shape.hidden * shape.tokens
        ends = token * shape.in_channels, token * shape.out_channels
        weights = [layer_flops(shape, layer) for layer in range(shape.layers)]
    else:
        ends = shape.embed_params, shape.unembed_params
        weights = [block.split_params + block.kept_params for block in shape.blocks]
    return split_layers(shape.layers, devices, how, weights, *ends)


def stage_of(layers: Sequence[range], layer: int) -> int:
    """The stage that has a layer."""
    return next(stage for stage, held in enumerate(layers) if layer in held)


def takes_text(stages: Sequence[range], stage: int) -> bool:
    """Whether an MM-DiT's prompt still goes to this stage: it, or one after it, has a block."""
    return any(stages[stage:])


def stage_prediction(
    shape: DiTShape,
    layers: Sequence[range],
    rank: int,
    steps: int,
    batch: int,
    images: int,
    *,
    texts: int,
    largest_rows: int,
    kv: bool,
    kept_text: bool = False,
) -> Prediction:
    """A pipeline stage, of stages with these `layers`. An MM-DiT's prompt goes along with `texts` of its messages.

    Per step it sends p * hs * b elements on, the last one the new latents to the first. `largest_rows` are
    those of the longest message. Skips go straight to the stage of their mirror layer, into place for a whole image.
    """
    devices, mine = len(layers), layers[rank]
    first, last = rank == 0, rank == devices - 1
    latent = steps * latent_bytes(shape, images)
    image, text = steps * hidden_bytes(shape, batch), texts * text_bytes(shape, batch)
    given = sum(giver in mine and taker not in mine for giver, taker in shape.skips)
    taken = sum(taker in mine and giver not in mine for giver, taker in shape.skips)
    buffers = latent_bytes(shape, images) if first or last else 0
    joint = sum(shape.prefix(layer) > 0 for layer in mine)
    buffers += 2 * text_bytes(shape, batch) * joint if kv else 0  # the prompt's place in front of K and V
    takes, passes = takes_text(layers, rank), takes_text(layers, rank + 1)
    buffers += text_bytes(shape, batch) if kept_text and takes and not first else 0
    message = largest_rows * shape.token_cols * shape.hidden * batch * shape.itemsize
    message += takes * text_bytes(shape, batch)
    comm = 0 if first else 2 * message
    return Prediction(
        layers=mine,
        param_bytes=held_params(shape, mine, embed=first, unembed=last),
        kv_bytes=kv_bytes(shape, len(mine), batch) if kv else 0,
        buffer_bytes=buffers,
        comm_bytes=comm + taken * hidden_bytes(shape, batch),
        sent_bytes=(0 if devices == 1 else latent if last else image + passes * text)
        + given * steps * hidden_bytes(shape, batch),
        recv_bytes=(0 if devices == 1 else latent if first else image + takes * text)
        + taken * steps * hidden_bytes(shape, batch),
    )


def band_prediction(
    shape: DiTShape,
    devices: int,
    batch: int,
    images: int,
    *,
    sent_bytes: int,
    kv: int = 0,
    comm_bytes: int = 0,
) -> Prediction:
    """A device with all layers and 1/n of the token rows; the final latents are gathered on every device."""
    latent = latent_bytes(shape, images)
    gathered = (devices - 1) * latent // devices
    return Prediction(
        layers=range(shape.layers),
        param_bytes=held_params(shape, range(shape.layers)),
        kv_bytes=kv,
        buffer_bytes=latent // devices,
        comm_bytes=comm_bytes + (latent if devices > 1 else 0),
        sent_bytes=sent_bytes + gathered,
        recv_bytes=sent_bytes + gathered,
    )
