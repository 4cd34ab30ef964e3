"""`generate` draws what the families' pipelines draw: on one rank, and with exact methods on products of degrees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from pipefusion import Parallel, generate, init, parallelize
from pipefusion.core.local import LocalFabric
from tests.experiments.tiny_pipelines import FAMILIES, save_tiny, stock
from tests.ranks import Ranks

HEIGHT, WIDTH, STEPS = 64, 96, 3
NEGATIVE = ("pixart_alpha", "pixart_sigma", "sana", "sd3", "sd3_shifted", "hunyuan", "qwen")
UNGUIDED = ("flux", "flux_schnell", "flux2_dev")
PROMPTS = ["red apple", "a green dragon"]
CLASSES = ["3", "golden retriever"]
ROUNDING = 1.01 / 255
LOUDNESS = 4.0
"""Of the matrices: as they are initialised, a picture hardly depends on its prompt."""

EXACT: dict[int, list[tuple[Parallel, dict[str, Any]]]] = {
    2: [
        (Parallel(ulysses=2), {"method": "ulysses"}),
        (Parallel(cfg=2), {"method": "serial"}),
        (Parallel(ring=2), {"method": "ring"}),
    ],
    4: [
        (Parallel(cfg=2, pipe=2), {"method": "sync_pipeline"}),
        (Parallel(cfg=2, pipe=2), {"method": "pipefusion", "warmup": STEPS, "patches": 2}),
        (Parallel(data=2, pipe=2), {"method": "pipefusion", "warmup": STEPS, "patches": 2}),
        (Parallel(data=2, tensor=2), {"method": "tensor"}),
        (Parallel(patch=2, ulysses=2), {"method": "distrifusion", "warmup": STEPS}),
        (Parallel(patch=2, ring=2), {"method": "pcpp", "warmup": STEPS}),
        (Parallel(pipe=2, ring=2), {"method": "pipefusion", "warmup": STEPS, "ring": "rotate"}),
    ],
}
"""Ranks -> degrees and methods that compute what serial computes."""
SHARED = ("pixart_sigma", "sd3", "flux", "flux2_dev", "flux2_klein", "qwen", "hunyuan", "dit")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(family: str) -> Path:
        folder = save_tiny(family, tmp_path_factory.mktemp("tiny") / family, with_transformer=True)
        model = stock(folder).transformer
        for parameter in model.parameters():
            parameter.data *= LOUDNESS if parameter.ndim > 1 else 1
        model.save_pretrained(folder / "transformer")
        return folder

    return made


def opened(folder: Path) -> Any:
    """The stock pipeline, with a scheduler that draws no noise in its steps."""
    pipe = stock(folder)
    if type(pipe).__name__ == "HunyuanDiTPipeline":
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def asked(family: str) -> dict[str, Any]:
    """Arguments of `generate`: two prompts of different lengths, two images of each, not square but for DiT."""
    scale = "true_cfg_scale" if family == "qwen" else "guidance_scale"
    found = {"prompt": CLASSES if family == "dit" else PROMPTS, scale: 3.0, "num_inference_steps": STEPS}
    if family in NEGATIVE:
        found["negative_prompt"] = ["blurry", "very blurry and grey"]
    return found | {"num_images_per_prompt": 2, "height": HEIGHT, "width": picture_size(family)[1]}


def picture_size(family: str) -> tuple[int, int]:
    return HEIGHT, HEIGHT if family == "dit" else WIDTH


def seeded(images: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(images)]


def expected(family: str, pipe: Any, swapped: bool = False) -> np.ndarray:
    """The pipeline's own pictures for `asked`; `swapped`, of each prompt with the noise of the other."""
    found = asked(family) | {"output_type": "np", "generator": seeded(4)}
    if swapped:
        found["prompt"] = found["prompt"][::-1]
    if family in (
        "hunyuan",
        "qwen",
        "sana",
    ):  # whose own call gives images of several prompts each other's masks
        images = found.pop("num_images_per_prompt")
        for side in ("prompt", "negative_prompt"):
            found[side] = [text for text in found[side] for _ in range(images)]
    if family == "dit":
        images, classes = found.pop("num_images_per_prompt"), found.pop("prompt")
        labels = [int(name) if name.isdigit() else pipe.labels[name] for name in classes]
        found = {
            key: found[key] for key in ("num_inference_steps", "guidance_scale", "output_type", "generator")
        }
        found["class_labels"] = [label for label in labels for _ in range(images)]
    if family.startswith("pixart") or family in ("hunyuan", "sana"):
        found["use_resolution_binning"] = False
    return pipe(**found).images


def drawn(
    folder: Path, family: str, parallel: Parallel, settings: dict[str, Any], tiled: bool = False
) -> np.ndarray | None:
    """What a rank returns; with tiles they share the decoding."""
    fabric = init(parallel, "cpu")
    height, width = picture_size(family)
    pipe = opened(folder)
    denoiser = parallelize(folder, fabric, height=height, width=width, **settings)
    pipe.transformer = None
    if tiled:
        pipe.vae.enable_tiling()
    arguments = asked(family) | {"generator": seeded(4), "output_type": "np", "share_decoding": tiled}
    return generate(pipe, denoiser, **arguments)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.fast_cases(2)
def test_one_rank_draws_what_the_pipeline_draws(family: str, fabric: LocalFabric, tiny_folder: Any) -> None:
    images = drawn(tiny_folder(family), family, Parallel(), {"patches": 2, "warmup": STEPS})
    pictures = expected(family, opened(tiny_folder(family)))
    assert images is not None and images.shape == pictures.shape == (4, *picture_size(family), 3)
    assert np.abs(images - pictures).max() <= ROUNDING
    others = expected(family, opened(tiny_folder(family)), swapped=True)
    assert np.abs(others - pictures).max() > 4 * ROUNDING, "pictures hardly depend on their prompts"


def test_a_picture_is_edited_as_flux_kontext_does(fabric: LocalFabric, tiny_folder: Any) -> None:
    """Two patches, all steps synchronous; without the picture others come out."""
    pipe = diffusers.FluxKontextPipeline(**opened(tiny_folder("flux")).components)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture, arguments = Image.fromarray(pixels), asked("flux") | {"output_type": "np"}
    sizes = {"max_area": HEIGHT * WIDTH, "_auto_resize": False}
    want = pipe(picture, **arguments, **sizes, generator=seeded(4)).images
    denoiser = parallelize(pipe.transformer, fabric, height=HEIGHT, width=WIDTH, patches=2, warmup=STEPS)
    edited, drawn = (
        generate(pipe, denoiser, image=image, **arguments, generator=seeded(4)) for image in (picture, None)
    )
    assert np.abs(edited - want).max() <= ROUNDING
    assert np.abs(drawn - want).max() > 4 * ROUNDING, "the picture hardly matters"


@pytest.mark.parametrize("count", EXACT)
@pytest.mark.parametrize("family", SHARED)
@pytest.mark.fast_cases(1)
def test_exact_products_draw_what_the_pipeline_draws(
    family: str, count: int, ranks: Ranks, tiny_folder: Any
) -> None:
    folder = tiny_folder(family)
    pictures = expected(family, opened(folder))
    for parallel, settings in EXACT[count]:
        if parallel.cfg > 1 and family in UNGUIDED:
            continue
        first, *others = ranks.run(count, drawn, folder, family, parallel, settings)
        assert all(each is None for each in others)
        assert np.abs(first - pictures).max() <= ROUNDING, (str(parallel), settings)


def test_ranks_share_the_tiles(ranks: Ranks, tiny_folder: Any) -> None:
    pipe = opened(folder := tiny_folder("flux2_klein"))
    pipe.vae.enable_tiling()
    first, other = ranks.run(
        2, drawn, folder, "flux2_klein", Parallel(pipe=2), {"method": "sync_pipeline"}, True
    )
    assert other is None and np.abs(first - expected("flux2_klein", pipe)).max() <= ROUNDING


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd3", "flux", "flux2_klein", "qwen"])
@pytest.mark.fast_cases(1)
def test_noise_that_is_given(family: str, fabric: LocalFabric, tiny_folder: Any) -> None:
    """The pipelines of Flux and Qwen-Image are given it as they pack it."""
    pipe = opened(tiny_folder(family))
    denoiser = parallelize(pipe.transformer, fabric, height=32, width=32, method="serial")
    rows, cols = HEIGHT // denoiser.pixels_per_latent, WIDTH // denoiser.pixels_per_latent
    size = (2, denoiser.dit.shape.in_channels, rows, cols)
    noise = torch.randn(*size, generator=torch.Generator().manual_seed(1))
    packed = pipe._pack_latents(noise, *size) if family in ("flux", "qwen") else noise
    options = {"prompt": PROMPTS, "num_inference_steps": STEPS, "output_type": "np"}
    pictures = pipe(**options, latents=packed, height=HEIGHT, width=WIDTH).images
    assert np.abs(generate(pipe, denoiser, **options, latents=noise) - pictures).max() <= ROUNDING


@pytest.mark.slow
def test_one_generator_and_every_kind_of_output(fabric: LocalFabric, tmp_path: Path) -> None:
    pipe = opened(save_tiny("sd3", tmp_path / "tiny", with_transformer=True))
    denoiser = parallelize(pipe.transformer, fabric, height=HEIGHT, width=WIDTH, method="serial")
    options = {"prompt": PROMPTS, "num_inference_steps": STEPS}

    def ours(kind: str) -> Any:
        draw = torch.Generator().manual_seed(0)
        return generate(pipe, denoiser, **options, generator=draw, output_type=kind)

    draw = torch.Generator().manual_seed(0)
    latents = pipe(**options, height=HEIGHT, width=WIDTH, generator=draw, output_type="latent").images
    torch.testing.assert_close(ours("latent"), latents, rtol=1e-4, atol=1e-5)
    array = ours("np")
    np.testing.assert_array_equal(ours("pt").permute(0, 2, 3, 1).numpy(), array)
    pictures = [np.asarray(picture, dtype=float) / 255 for picture in ours("pil")]
    assert np.abs(np.stack(pictures) - array).max() <= ROUNDING
    pipe.vae = None
    assert torch.equal(ours("latent"), ours("latent"))
    with pytest.raises(ValueError, match="the pipeline has no VAE; allowed: one, or output_type='latent'"):
        ours("pil")


@pytest.mark.slow
def test_distilled_klein_has_no_guidance(fabric: LocalFabric, tiny_folder: Any) -> None:
    pipe = opened(tiny_folder("flux2_klein"))
    guided = drawn(tiny_folder("flux2_klein"), "flux2_klein", Parallel(), {"method": "serial"})
    pipe.register_to_config(is_distilled=True)
    denoiser = parallelize(pipe.transformer, fabric, height=HEIGHT, width=WIDTH, method="serial")
    images = generate(pipe, denoiser, **asked("flux2_klein"), generator=seeded(4), output_type="np")
    assert np.abs(images - expected("flux2_klein", pipe)).max() <= ROUNDING
    assert guided is not None and np.abs(images - guided).max() > ROUNDING


def test_a_transformer_of_another_precision_than_its_pipeline(fabric: LocalFabric, tmp_path: Path) -> None:
    pipe = opened(save_tiny("sd3", tmp_path / "tiny", with_transformer=True))
    options = asked("sd3") | {"output_type": "latent"}
    whole, half = (
        generate(
            pipe,
            parallelize(pipe.transformer, fabric, height=HEIGHT, width=WIDTH, method="serial", dtype=dtype),
            **options,
            generator=seeded(4),
        )
        for dtype in (None, torch.bfloat16)
    )
    assert half.dtype == torch.float32 and not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, rtol=0.05, atol=0.05)
