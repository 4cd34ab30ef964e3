"""What a rank should hold and send, from sizes alone: printed beside what was measured (Table 1 of the paper).

Symbols: p image tokens, hs hidden size, b = images * guidance branches, n devices on the axis, S steps, W warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipefusion.core.dit import DiTShape
from pipefusion.core.split import split_layers

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


def block_params(shape: DiTShape, shards: int = 1) -> int:
    """Elements of one block: 16 hs^2 + 19 hs. With `shards` > 1 heads and MLP columns are split, the rest is kept."""
    hs, mlp = shape.hidden, shape.mlp_hidden
    split = (
        8 * hs * hs + 6 * hs + 2 * hs * mlp + mlp
    )  # q, k, v with biases, output matrices, both MLP matrices
    kept = 3 * hs + 6 * hs  # biases of the three row-parallel outputs, scale_shift_table
    return split // shards + kept


def embed_params(shape: DiTShape) -> int:
    """Elements of the patch embedding."""
    return shape.in_channels * shape.patch_size**2 * shape.hidden + shape.hidden


def unembed_params(shape: DiTShape) -> int:
    """Elements of the final modulation and projection."""
    out = shape.patch_size**2 * shape.out_channels
    return shape.hidden * out + out + 2 * shape.hidden


def conditioning_params(shape: DiTShape) -> int:
    """Elements of AdaLN-single and the caption projection, which every device needs."""
    hs, third = shape.hidden, shape.hidden // 3
    time = 256 * hs + hs + hs * hs + hs + 6 * hs * hs + 6 * hs
    size = 2 * (256 * third + third + third * third + third) if shape.size_conditions else 0
    return time + size + shape.text_channels * hs + hs + hs * hs + hs


def held_params(
    shape: DiTShape, layers: int, embed: bool = True, unembed: bool = True, shards: int = 1
) -> int:
    """Bytes of the parameters of a device with this many layers."""
    count = layers * block_params(shape, shards) + conditioning_params(shape)
    count += embed * embed_params(shape) + unembed * unembed_params(shape)
    return count * shape.itemsize


def kv_bytes(shape: DiTShape, layers: int, batch: int) -> int:
    """Full-length K and V of `layers` layers: 2 * p * hs * layers * b * itemsize."""
    return 2 * shape.tokens * shape.hidden * layers * batch * shape.itemsize


def hidden_bytes(shape: DiTShape, batch: int) -> int:
    """Hidden states of the whole image: p * hs * b * itemsize."""
    return shape.tokens * shape.hidden * batch * shape.itemsize


def latent_bytes(shape: DiTShape, images: int) -> int:
    """Latents of the whole image."""
    return images * shape.in_channels * shape.tokens * shape.patch_size**2 * LATENT_ITEMSIZE


def layer_flops(shape: DiTShape) -> float:
    """Multiply-adds times two of one block for one image token, text included at its share."""
    linear = 2 * (6 * shape.hidden**2 + 2 * shape.hidden * shape.mlp_hidden)
    text = 2 * 2 * shape.hidden**2 * shape.text_tokens / shape.tokens
    return linear + text + 4 * shape.hidden * (shape.tokens + shape.text_tokens)


def stages(shape: DiTShape, devices: int, how: str) -> list[range]:
    """Layers of each pipeline stage; `cost` balances FLOPs with embed and unembed included."""
    token = 2 * shape.patch_size**2 * shape.hidden
    first, last = token * shape.in_channels, token * shape.out_channels
    return split_layers(shape.layers, devices, how, [layer_flops(shape)] * shape.layers, first, last)


def stage_prediction(
    shape: DiTShape,
    layers: range,
    devices: int,
    rank: int,
    steps: int,
    batch: int,
    images: int,
    largest_rows: int,
    kv: bool,
) -> Prediction:
    """A pipeline stage. Per step it sends p * hs * b elements on, the last one the new latents to the first."""
    first, last = rank == 0, rank == devices - 1
    hidden, latent = steps * hidden_bytes(shape, batch), steps * latent_bytes(shape, images)
    largest = largest_rows * shape.token_cols * shape.hidden * batch * shape.itemsize
    return Prediction(
        layers=layers,
        param_bytes=held_params(shape, len(layers), embed=first, unembed=last),
        kv_bytes=kv_bytes(shape, len(layers), batch) if kv else 0,
        buffer_bytes=latent_bytes(shape, images) if first or last else 0,
        comm_bytes=0 if first else 2 * largest,
        sent_bytes=0 if devices == 1 else latent if last else hidden,
        recv_bytes=0 if devices == 1 else latent if first else hidden,
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
        param_bytes=held_params(shape, shape.layers),
        kv_bytes=kv,
        buffer_bytes=latent // devices,
        comm_bytes=comm_bytes + (latent if devices > 1 else 0),
        sent_bytes=sent_bytes + gathered,
        recv_bytes=sent_bytes + gathered,
    )
