"""What is optimised and how: the network, the flow-matching loss, the optimisers, the learning rate, the average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from diffusers import PixArtTransformer2DModel, WanTransformer3DModel
from diffusers.models import ModelMixin
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from experiments.models.stock_sampling import predict
from experiments.recipes.attention import TrainAttention
from experiments.recipes.muon import Muon
from pipefusion.core.domain import Count, Domain, Gain, Grid, Natural, Part, Pixels, Samples, Share, Width

Mean = Annotated[float, Domain(-10, 10)]


@dataclass
class NetworkConfig:
    """A `PixArtTransformer2DModel`, of clips a `WanTransformer3DModel`; heads and width split many ways."""

    layers: Width = 12
    heads: Width = 12
    head_dim: Width = 16
    patch: Width = 4
    resolution: Pixels = 64  # of the shipped model; smaller pictures run through the same weights
    base_resolution: Pixels = 32  # a picture's positions are counted in patches of this resolution
    frames: Natural = 0  # pictures of a clip; 0: no video
    frame_factor: Count = 1  # pictures stacked in the channels of a latent frame, which shortens the sequence
    caption_channels: Width = 384
    # Projected text tokens start about this much larger. As built they have a root mean square of 0.1 beside 1 of the
    # image tokens: cross-attention is then uniform and its output lost, and captions are ignored for a long time.
    text_gain: Gain = 8.0


@dataclass
class StageConfig:
    """A stretch of training at one resolution and length."""

    resolution: Pixels = 64
    batch: Count = 16
    samples: Samples = 20000
    frames: Natural = 0  # latent frames: a window of a clip; 0: all there are
    rate: Gain = 1.0  # factor on both learning rates
    # None: the recipe's. What a caption says is learnt near t = 1; nearer 0 the noisy picture itself gives it away.
    time_mean: Mean | None = None


@dataclass
class RecipeConfig:
    """Optimisation. Progress runs from 0 to 1 in image tokens processed, which is about proportional to time."""

    stages: Grid[StageConfig] = field(
        default_factory=lambda: [StageConfig(32, 32, 40000), StageConfig(64, 16, 20000)]
    )
    muon_lr: Share = 2e-3
    # Newton-Schulz; 5 is torch's default, 3 learn as well here and cost less.
    muon_iterations: Annotated[int, Domain(1, 100)] = 3
    adam_lr: Share = 1e-3
    warmup_steps: Natural = 30
    decay: Part = 0.4  # the last share of progress over which the learning rate falls to `final_lr` of itself
    final_lr: Part = 0.01
    empty_prompts: Part = 0.1
    time_mean: Mean = 0.7  # t = sigmoid(N(time_mean, time_std)); t = 1 is noise
    time_std: Gain = 1.0
    ema_share: Part = 0.04  # half-life of the average, as a share of the samples seen so far
    ema_samples: Samples = 1200  # and at most this many samples


def build_network(cfg: NetworkConfig, seed: int) -> ModelMixin:
    """The stock network, with its output and its text branch silent at the start."""
    torch.manual_seed(seed)
    model, text = build_video(cfg) if cfg.frames else build_picture(cfg)
    silent: list[Any] = [model.proj_out, *(block.get_submodule("attn2.to_out.0") for block in blocks(model))]
    for layer in silent:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        text.linear_2.weight.mul_(cfg.text_gain)
    model.set_attn_processor(TrainAttention())
    return model


def build_picture(cfg: NetworkConfig) -> tuple[Any, Any]:
    """A network for pictures, and its projection of the text."""
    model = PixArtTransformer2DModel(
        num_attention_heads=cfg.heads,
        attention_head_dim=cfg.head_dim,
        cross_attention_dim=cfg.heads * cfg.head_dim,
        in_channels=3,
        out_channels=3,
        num_layers=cfg.layers,
        sample_size=cfg.resolution,
        patch_size=cfg.patch,
        interpolation_scale=cfg.resolution // cfg.base_resolution,
        use_additional_conditions=False,
        caption_channels=cfg.caption_channels,
    )
    return model, model.caption_projection


def build_video(cfg: NetworkConfig) -> tuple[Any, Any]:
    """A network for clips, and its projection of the text."""
    model = WanTransformer3DModel(
        patch_size=(1, cfg.patch, cfg.patch),
        num_attention_heads=cfg.heads,
        attention_head_dim=cfg.head_dim,
        in_channels=3 * cfg.frame_factor,
        out_channels=3 * cfg.frame_factor,
        text_dim=cfg.caption_channels,
        ffn_dim=4 * cfg.heads * cfg.head_dim,
        num_layers=cfg.layers,
    )
    return model, model.condition_embedder.text_embedder


def blocks(model: nn.Module) -> nn.ModuleList:
    """The layers of a network, its only list of modules."""
    return next(part for part in model.children() if isinstance(part, nn.ModuleList))


def draw_times(stage: StageConfig, cfg: RecipeConfig, generator: torch.Generator) -> Tensor:
    """Times [B] in 0..1: one from each B-th part of the distribution, in random order (less noise in the loss)."""
    batch, device = stage.batch, generator.device
    mean = cfg.time_mean if stage.time_mean is None else stage.time_mean
    order = torch.randperm(batch, generator=generator, device=device)
    ranks = (order + torch.rand(batch, generator=generator, device=device)) / batch
    return torch.sigmoid(mean + cfg.time_std * torch.special.ndtri(ranks.clamp(1e-4, 1 - 1e-4)))


def flow_loss(model: nn.Module, x0: Tensor, noise: Tensor, t: Tensor, embeds: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the velocity, per picture or clip [B].

    x_t = (1 - t) x0 + t noise, and the target is dx_t/dt = noise - x0, what diffusers calls `flow_prediction`.
    x0, noise [B, C, h, w] or [B, C, F, h, w] with x0 in -1..1; t [B]; embeds [B, T, D]; mask [B, T].
    """
    w = t.view(-1, *[1] * (x0.ndim - 1))
    noisy = (1 - w) * x0 + w * noise
    prompt = {"prompt_embeds": embeds, "prompt_mask": mask}
    out = predict(model, noisy, t * 1000, prompt, 1.0, (0, 0))
    return (out.float() - (noise - x0)).square().flatten(1).mean(1)


def build_optimisers(
    model: nn.Module, cfg: RecipeConfig, dtype: torch.dtype, parts: int = 1
) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the blocks, in `parts` equal parts, its products in `dtype`; AdamW on everything else.

    Each group keeps its rate as `initial_lr`. No weight decay: each picture is to be learnt.
    """
    matrices = [p for p in blocks(model).parameters() if p.ndim == 2 and min(p.shape) > 6]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices[part::parts], cfg.muon_lr, cfg.muon_iterations, dtype) for part in range(parts)
    ]
    optimisers.append(torch.optim.AdamW(rest, lr=cfg.adam_lr, betas=(0.9, 0.98), weight_decay=0.0))
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["initial_lr"] = group["lr"]
    return optimisers


def set_learning_rate(optimisers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Every learning rate to `factor` times what it began with."""
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["lr"] = factor * group["initial_lr"]


def learning_rate(progress: float, step: int, cfg: RecipeConfig) -> float:
    """Factor on both learning rates: a short warm-up, flat, then straight down over the last `decay` of progress."""
    warm = min(1.0, (step + 1) / max(1, cfg.warmup_steps))
    left = min(1.0, max(0.0, (1 - progress) / cfg.decay)) if cfg.decay > 0 else 1.0
    return warm * (cfg.final_lr + (1 - cfg.final_lr) * left)


def update_average(average: nn.Module, model: nn.Module, seen: int, batch: int, cfg: RecipeConfig) -> None:
    """Exponential average of the weights, after a step of `batch` samples, `seen` of them in all.

    Its memory grows with the run, so that it is usable at any time.
    """
    half_life = min(cfg.ema_samples, max(1.0, cfg.ema_share * seen))
    update = get_ema_multi_avg_fn(0.5 ** (batch / half_life))
    update(list(average.parameters()), list(model.parameters()), None)
