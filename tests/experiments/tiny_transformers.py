"""A tiny random transformer of every family, two layers, of the widths that `tiny_pipelines` has."""

from __future__ import annotations

from typing import Any

import diffusers

CHANNELS = 4  # of the VAE's latents
WIDTH = 16  # of T5, BERT and the language models


def pixart_transformer() -> Any:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
        in_channels=CHANNELS, out_channels=2 * CHANNELS, num_layers=2, sample_size=8,
    )  # fmt: skip


def sana_transformer() -> Any:
    return diffusers.SanaTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8,
        cross_attention_dim=16, caption_channels=WIDTH, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=2,
        sample_size=8,
    )  # fmt: skip


def sd3_transformer() -> Any:
    return diffusers.SD3Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16, joint_attention_dim=WIDTH,
        pooled_projection_dim=16, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=2, sample_size=8,
        pos_embed_max_size=8,
    )  # fmt: skip


def flux_transformer() -> Any:
    return diffusers.FluxTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, axes_dims_rope=(4, 2, 2), joint_attention_dim=WIDTH,
        pooled_projection_dim=8, in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1,
    )  # fmt: skip


def flux2_transformer(guidance_embeds: bool = True) -> Any:
    return diffusers.Flux2Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, axes_dims_rope=(2, 2, 2, 2), joint_attention_dim=3 * WIDTH,
        in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1, guidance_embeds=guidance_embeds,
    )  # fmt: skip


def klein_transformer() -> Any:
    return flux2_transformer(guidance_embeds=False)


def qwen_transformer() -> Any:
    return diffusers.QwenImageTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, axes_dims_rope=(4, 2, 2), joint_attention_dim=WIDTH,
        in_channels=4 * CHANNELS, out_channels=CHANNELS, num_layers=2,
    )  # fmt: skip


def hunyuan_transformer() -> Any:
    return diffusers.HunyuanDiT2DModel(
        num_attention_heads=2, attention_head_dim=8, hidden_size=16, cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH, pooled_projection_dim=8, in_channels=CHANNELS, num_layers=2, patch_size=2,
        sample_size=8, use_style_cond_and_image_meta_size=False,
    )  # fmt: skip


def dit_transformer() -> Any:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=CHANNELS, out_channels=2 * CHANNELS,
        num_layers=2, sample_size=8, norm_type="ada_norm_zero",
    )  # fmt: skip
