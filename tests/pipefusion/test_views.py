"""Every view against its stock model, whole and band by band."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_ltx2 import apply_split_rotary_emb
from torch import Tensor

from experiments.models.stock_sampling import predict
from pipefusion.core.attention import full
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT, Given, KeptSkips, Tokens, parameter_parts, run_blocks
from pipefusion.core.linear import own_attention
from pipefusion.core.shape import NotSquare
from pipefusion.core.split import split_rows
from pipefusion.views import ltx, ltx2, sites
from pipefusion.views.stock import fitted
from tests.cases import FAMILIES, VIDEOS, Case, case_model, case_weights, inputs, stock_network

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pixart": ("pixart", {}),
    "pixart, learned variance": ("pixart", {"out_channels": 6}),
    "pixart, told the picture's size": ("pixart", {"use_additional_conditions": True}),
    "pixart, other size than trained": ("pixart", {"sample_size": 24}),
    "pixart, stretched positions": ("pixart", {"interpolation_scale": 2}),
    "flux schnell": ("flux_tiny", {"guidance_embeds": False, "guidance": "none"}),
    "flux2 klein": ("flux2_tiny", {"guidance_embeds": False, "guidance": "none"}),
    "flux kontext": ("flux_kontext_tiny", {}),
    "flux2, two references": ("flux2_tiny", {"references": 2}),
    "qwen edit, three references": ("qwen_edit_tiny", {"references": 3}),
    "qwen edit 2511": ("qwen_edit_tiny", {"zero_cond_t": True}),
    "sana for larger pictures": ("sana_tiny", {"interpolation_scale": 2}),
    "wan from a picture": ("wan_tiny", {"first_frame": True}),
    "cogvideox 2b": ("cogvideox_tiny", {"use_rotary_positional_embeddings": False}),
    "hunyuan_video, guided by branches": (
        "hunyuan_video_tiny",
        {"guidance_embeds": False, "guidance": "cfg"},
    ),
    "hunyuan 1.1": ("hunyuan_tiny", {"use_style_cond_and_image_meta_size": True}),
    **{name: (name, {}) for name in FAMILIES},
}
OVER_ROWS = {f"{name}, cut over rows": name for name in VIDEOS}
"""Videos are cut over frames unless it is said."""
WIDE, TALL = (7, 16), (17, 6)  # token rows and columns
SIZES: dict[str, tuple[str, tuple[int, int]]] = {
    "pixart, wide": ("pixart", WIDE),
    "pixart, told its height and width": ("pixart, told the picture's size", TALL),
    "sd3, wide": ("sd3_tiny", WIDE),
    "flux, tall": ("flux_tiny", TALL),
    "flux2, wide": ("flux2_tiny", WIDE),
    "qwen, tall": ("qwen_tiny", TALL),
    "flux kontext, wide": ("flux kontext", WIDE),
    "z_image, not filled up": ("z_image_tiny", (12, 8)),
    "sana, wide": ("sana_tiny", WIDE),
    "hunyuan, wide": ("hunyuan_tiny", WIDE),
    "hunyuan 1.1, tall": ("hunyuan 1.1", TALL),
}
"""Variants of a picture whose height and width differ."""
TIME = torch.tensor(321.0)


def stock(case: Case, noise: Tensor, cond: Conditioning) -> Tensor:
    """The prediction of plain diffusers, called as its pipeline calls it."""
    model = case_model(case)
    prompt = {name: cond.stacked(name) for name in cond.prompt}
    latent = torch.cat([noise] * cond.branches)
    return predict(
        stock_network(case), latent, TIME, prompt, cond.guidance_scale, (model.height, model.width)
    )


@pytest.fixture(params=[*VARIANTS, *SIZES, *OVER_ROWS], scope="module")
def case(request) -> Case:
    if request.param in OVER_ROWS:
        model = OVER_ROWS[request.param]
        return Case("serial", {"patch_axis": "rows"}, guidance=3.0, images=2, model=model, size=None)
    variant, size = SIZES.get(request.param, (request.param, None))
    model, changes = VARIANTS[variant]
    return Case("serial", guidance=3.0, images=2, model=model, architecture=changes, size=size)


def loaded(case: Case) -> DiT:
    view = case_model(case).view()
    if "patch_axis" in case.method:
        view.cut(case.method["patch_axis"])
    view.load(case_weights(case), torch.device("cpu"))
    return view


def enter(view: DiT, noise: Tensor, cond: Conditioning, rows: range) -> tuple[Tokens, Given]:
    text, latent = view.text(cond), torch.cat([noise] * cond.branches)
    modulation = view.modulation(TIME, text, latent.shape[0])
    band = view.shape.grid.take_latent(latent, rows)
    prompt = range(view.shape.joint_tokens)
    given = Given(text, modulation, view.positions(rows, prompt), view.cross(text), prompt)
    return view.embed(band, rows, text, modulation), given


def tables(positions: Any) -> tuple[Tensor, ...]:
    """What there is of a band's places: nothing, turns, or more."""
    if positions is None or isinstance(positions, Tensor):
        return () if positions is None else (positions,)
    return tuple(positions)


def turned_as_reals(x: Tensor, turns: Tensor | None) -> Tensor:
    """`turned` with the arithmetic of most stock models, which rounds otherwise than complex numbers do."""
    if turns is None:
        return x
    cos_sin = turns.real.repeat_interleave(2, dim=1), turns.imag.repeat_interleave(2, dim=1)
    return apply_rotary_emb(x, cos_sin, sequence_dim=1)


def halves_turned_as_reals(x: Tensor, turns: Tensor | None) -> Tensor:
    """`halves_turned` with the arithmetic of LTX-2."""
    if turns is None:
        return x
    by_head = (
        turns.unflatten(1, (x.shape[2], -1)).transpose(0, 1).expand(len(x), -1, -1, -1)
    )  # [b, H, t, d/2]
    return apply_split_rotary_emb(x.flatten(2), (by_head.real, by_head.imag)).view_as(x)


@torch.inference_mode()
@pytest.mark.fast_cases(16)
def test_view_is_the_stock_model(case, monkeypatch):
    if not case.model.startswith(("qwen", "z_image")):  # these have complex numbers as well
        for module in (sites, ltx):
            monkeypatch.setattr(module, "turned", turned_as_reals)
        monkeypatch.setattr(ltx2, "halves_turned", halves_turned_as_reals)
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    rows = range(view.shape.lines)
    tokens, given = enter(view, noise, cond, rows)
    tokens = run_blocks(view, tokens, given, own_attention(view.shape), KeptSkips(view.shape))
    got, want = view.unembed(tokens.image, given.modulation, rows), stock(case, noise, cond)
    # SD3, Z-Image and HunyuanVideo have the image before the prompt, videos cut over rows have frames behind these, and
    # reference pictures are row by row beside the image: sums in another order.
    apart = case.model.startswith(("sd3", "z_image", "hunyuan_video"))
    if view.shape.first_frame:  # which nobody denoises
        got, want = got[:, :, 1:], want[:, :, 1:]
    if apart or case.method or view.shape.references or view.shape.first_frame:
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(got, want)


@torch.inference_mode()
def test_the_video_of_ltx2_depends_on_no_audio_where_the_streams_are_apart():
    case = Case("serial", model="ltx2_tiny", size=None)
    (noise, cond), network = inputs(case, case_model(case)), stock_network(case)
    prompt, (frames, height, width) = cond.prompt["prompt_embeds"], noise.shape[2:]
    options = {"num_frames": frames, "height": height, "width": width, "audio_num_frames": 5}
    options |= {"encoder_attention_mask": cond.prompt["prompt_mask"], "return_dict": False}

    def video(audio: Tensor, isolated: bool) -> Tensor:
        pixels = noise.flatten(2).transpose(1, 2)
        out = network(pixels, audio, prompt, prompt, TIME[None], isolate_modalities=isolated, **options)[0]
        return out.transpose(1, 2).view_as(noise)

    channels = network.config.audio_in_channels
    silence, sound = torch.zeros(1, 5, channels), torch.randn(1, 5, channels)
    assert torch.equal(video(silence, True), video(sound, True))
    assert torch.equal(video(sound, True), stock(case, noise, cond))
    assert not torch.allclose(video(silence, False), video(sound, False), atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"), [("gated_attn", True), ("cross_attn_mod", True), ("rope_type", "interleaved")]
)
def test_later_versions_of_ltx2_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key}={value} is not supported; allowed: "):
        case_model(Case("serial", model="ltx2_tiny", size=None, architecture={key: value})).view()


@pytest.mark.parametrize("model", ["hunyuan_video_tiny", "hunyuan_video15_tiny"])
@torch.inference_mode()
def test_padding_of_a_prompt_is_refined_and_attended_to_as_in_hunyuan_video(model):
    """Masks in two places: where the prompt's tokens attend to each other, and where image and prompt do."""
    case = Case("serial", guidance=3.0, images=2, model=model, size=None, padded=True)
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    rows, padding = range(view.shape.lines), cond.stacked("padding")
    bias = torch.zeros(padding.shape).masked_fill(padding, float("-inf"))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
        return full(q, k, v, F.pad(bias, (0, view.shape.tokens))[:, None, None])

    tokens, given = enter(view, noise, cond, rows)
    tokens = run_blocks(view, tokens, given, attend, KeptSkips(view.shape))
    got, want = view.unembed(tokens.image, given.modulation, rows), stock(case, noise, cond)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for side in (cond.prompt, cond.negative or {}):
        side.pop("padding", None)
    assert not torch.allclose(got, stock(case, noise, cond), atol=1e-4)


@torch.inference_mode()
def test_padding_of_a_prompt_is_zeros_in_hunyuan_video15():
    """As in the stock model: a refiner's row of padding attends to nothing, which a kernel may answer with nan."""
    case = Case("serial", guidance=3.0, images=2, model="hunyuan_video15_tiny", size=None, padded=True)
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    _, given = enter(view, noise, cond, range(view.shape.lines))
    padding, prompt = cond.stacked("padding"), given.modulation.prompt
    assert not prompt[padding].any() and prompt[~padding].all(dim=1).any()


@torch.inference_mode()
@pytest.mark.fast_cases(10)
def test_modulated_is_what_the_first_self_attention_is_given(case):
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    tokens, given = enter(view, noise, cond, range(2, 5))
    seen = []

    def hear(module: Any, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])

    attention = view.block_module(0).get_submodule(view.attentions[0])
    attention.to_q.register_forward_pre_hook(hear)
    view.block(0, tokens, given, own_attention(view.shape))
    image = tokens.image.shape[1]
    behind = slice(0, image) if case.model.startswith("sd3") else slice(-image, None)
    assert torch.equal(view.modulated(tokens, given), seen[0][:, behind])


def test_complex_turns_are_those_of_pairs_of_reals():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 24)
    turns = torch.polar(torch.ones(5, 12), 100 * torch.randn(5, 12))
    got, want = sites.turned(x, turns), turned_as_reals(x, turns)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert got.dtype == x.dtype and sites.turned(x, None) is x
    wide = torch.polar(torch.ones(5, 36), 100 * torch.randn(5, 36))  # each of the 3 heads otherwise
    torch.testing.assert_close(
        ltx2.halves_turned(x, wide), halves_turned_as_reals(x, wide), rtol=0, atol=1e-6
    )


@torch.inference_mode()
@pytest.mark.fast_cases(10)
def test_bands_are_slices_of_the_whole(case):
    """Positions above all, learned, sin-cos or rotary: a band is where it lies in the image, not at its top."""
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    whole_rows = range(view.shape.lines)
    whole, given = enter(view, noise, cond, whole_rows)
    picture = view.unembed(whole.image, given.modulation, whole_rows)
    prefix = view.shape.joint_tokens
    for rows in split_rows(view.shape.lines, 5):
        band, there = enter(view, noise, cond, rows)
        tokens = view.shape.band_tokens(rows)
        torch.testing.assert_close(band.image, whole.image[:, tokens])
        part = view.unembed(band.image, given.modulation, rows)
        torch.testing.assert_close(part, view.shape.grid.take_latent(picture, rows))
        for mine, whole_s in zip(tables(there.positions), tables(given.positions), strict=True):
            assert torch.equal(mine[:prefix], whole_s[:prefix])
            assert torch.equal(mine[prefix:], whole_s[prefix:][tokens])


@pytest.mark.fast_cases(10)
def test_attention_sites_are_the_blocks_self_attentions(case):
    """Each layer asks its method once, for q, k, v of the prompt and the band."""
    view, (noise, cond) = loaded(case), inputs(case, case_model(case))
    seen = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
        seen.append((layer, tuple(q.shape[1:]), prefix))
        return own_attention(view.shape)(layer, q, k, v, prefix)

    rows, shape = range(2, 5), view.shape
    with torch.inference_mode():
        tokens, given = enter(view, noise, cond, rows)
        run_blocks(view, tokens, given, attend, KeptSkips(shape))
    prefixes, t = [shape.prefix(layer) for layer in range(shape.layers)], 3 * shape.grid.width
    sizes = [(prefix + t, shape.heads, shape.head_dim) for prefix in prefixes]
    assert seen == list(zip(range(shape.layers), sizes, prefixes, strict=True))


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_dit_draws_squares_only(size):
    """As its stock model, which takes the root of the number of tokens for rows and columns."""
    with pytest.raises(NotSquare, match="squares only"):
        case_model(Case("serial", model="dit_tiny", size=size)).view()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 12), (12, 20), (23, 32), (64, 63), (96, 33)])
def test_hunyuan_counts_positions_as_its_pipeline(size):
    """The longer side has the base's length, the other is in its middle, each rounded."""
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    for base in (16, 32):
        assert fitted(size, (base, base)) == get_resize_crop_region_for_grid(size, base)


@pytest.mark.fast_cases(8)
def test_a_stage_holds_its_parts_only(case):
    view = case_model(case).view()
    view.keep(range(2, 4), embed=False, unembed=True)
    conditioning = {"conditioning"} & set(parameter_parts(case_model(case).view()))
    assert set(parameter_parts(view)) == {"block 2", "block 3", "unembed"} | conditioning


def test_every_parameter_has_a_name_that_people_use(case):
    view = case_model(case).view()
    labels = {view.parameter_label(name) for name, _ in view.model.named_parameters()}
    assert "blocks" in labels
    assert not any("_" in label for label in labels)
