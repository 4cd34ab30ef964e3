"""Parameters and inputs that several families have alike."""

from __future__ import annotations

from pipefusion.core.shape import BlockShape, Sizes, linear


def double_block(hs: int, mlp: int, norms: int) -> BlockShape:
    """A block of an MM-DiT: two streams with modulation, projections and MLP of their own; `norms`: of q and k."""
    macs = 4 * hs * hs + 2 * hs * mlp
    return BlockShape(
        split_params=6 * linear(hs, hs) + 2 * hs * hs + 2 * (linear(hs, mlp) + mlp * hs),
        kept_params=4 * hs + 2 * linear(hs, 6 * hs) + norms,
        image_macs=macs,
        text_macs=macs,
        image_reduces=2,
        text_reduces=2,
    )


def single_block(hs: int, mlp: int, norms: int) -> BlockShape:
    """A block of both streams as one sequence, attention and MLP side by side."""
    macs = 4 * hs * hs + 2 * hs * mlp
    return BlockShape(
        split_params=3 * linear(hs, hs) + linear(hs, mlp) + (hs + mlp) * hs,
        kept_params=hs + linear(hs, 3 * hs) + norms,
        image_macs=macs,
        text_macs=macs,
        image_reduces=1,
        text_reduces=1,
    )


def time_embedder(hidden: int, bias: bool = True) -> int:
    """Elements of the MLP from 256 sinusoids to the hidden size."""
    return linear(256, hidden, bias) + linear(hidden, hidden, bias)


def token_refiner(text: int, hs: int, layers: int) -> int:
    """Elements of what refines a prompt's tokens of width `text`, given the timestep and their mean."""
    layer = 4 * linear(hs, hs) + linear(hs, 4 * hs) + linear(4 * hs, hs) + linear(hs, 2 * hs) + 4 * hs
    mean = linear(text, hs) + linear(hs, hs)
    return time_embedder(hs) + mean + linear(text, hs) + layers * layer


def prompt_sizes(tokens: int, width: int, suffix: str = "") -> Sizes:
    """The tensors of one encoder's prompt: embeddings and mask."""
    return (f"prompt_embeds{suffix}", (tokens, width)), (f"prompt_mask{suffix}", (tokens,))
