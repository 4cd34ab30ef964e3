"""A pipeline's own text encoders and VAE give here what diffusers' pipelines give, on tiny folders of every family."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from experiments import components
from experiments.check import ConfigError
from experiments.components import encode, has_encoders, timestep_arguments
from experiments.decode import decode, decode_one, has_vae, latent_factor, load_vae
from experiments.pictures import write_images
from tests.experiments.tiny_pipelines import FAMILIES, WIDTH, save_tiny

CPU = torch.device("cpu")
PROMPTS = ["Red apple", "a green dragon, a very green dragon", "Red apple"]
NEGATIVE = "blurry"
SIDE = 64  # pixels
STEPS = 3
# What each family's encoders give for one prompt, besides the masks.
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "pixart_alpha": {"prompt_embeds": (120, WIDTH)},
    "pixart_sigma": {"prompt_embeds": (300, WIDTH)},
    "sd3": {"prompt_embeds": (333, WIDTH), "pooled_prompt_embeds": (16,)},
    "flux": {"prompt_embeds": (512, WIDTH), "pooled_prompt_embeds": (8,)},
    "flux2_dev": {"prompt_embeds": (512, 3 * WIDTH)},
    "flux2_klein": {"prompt_embeds": (512, 3 * WIDTH)},
    "hunyuan": {"prompt_embeds": (77, WIDTH), "prompt_embeds_2": (256, WIDTH)},
}
CLASS = {
    "pixart": "PixArtTransformer2DModel",
    "sd3": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
}
CLASS |= {"flux2": "Flux2Transformer2DModel", "hunyuan": "HunyuanDiT2DModel", "dit": "DiTTransformer2DModel"}
CLASS |= {"qwen": "QwenImageTransformer2DModel"}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder(family: str) -> Path:
        return save_tiny(family, tmp_path_factory.mktemp("pipelines") / family, with_transformer=True)

    return folder


def stock(folder: Path) -> Any:
    """The plain diffusers pipeline of a folder. FLUX.2-dev's processor needs torchvision, so it gets the tokenizer."""
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    options: dict[str, Any] = {"low_cpu_mem_usage": False}
    if name == "Flux2Pipeline":
        from transformers import AutoTokenizer

        options["tokenizer"] = None
    if name == "HunyuanDiTPipeline":
        options["requires_safety_checker"] = False
    if name == "QwenImagePipeline":
        options |= {"tokenizer": None, "text_encoder": None}
    pipe = getattr(diffusers, name).from_pretrained(folder, **options)
    if name == "Flux2Pipeline":
        pipe.register_modules(tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode_all(folder: Path, negative: str | None = NEGATIVE) -> dict[str, Tensor]:
    return encode(folder, PROMPTS, negative, CPU, torch.float32)


@torch.no_grad()
def stock_prompts(family: str, pipe: Any) -> dict[str, Tensor]:
    """The pipeline's own `encode_prompt` on the whole batch, by our names."""
    if family.startswith("pixart"):
        names = ("prompt_embeds", "prompt_mask", "negative_prompt_embeds", "negative_prompt_mask")
        return dict(zip(names, pipe.encode_prompt(PROMPTS, negative_prompt=NEGATIVE), strict=True))
    if family == "sd3":
        names = (
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        return dict(
            zip(names, pipe.encode_prompt(PROMPTS, None, None, negative_prompt=NEGATIVE), strict=True)
        )
    if family == "hunyuan":
        found = {}
        for index, end in enumerate(("", "_2")):
            names = ("prompt_embeds", "negative_prompt_embeds", "prompt_mask", "negative_prompt_mask")
            parts = pipe.encode_prompt(
                PROMPTS, negative_prompt=[NEGATIVE] * len(PROMPTS), text_encoder_index=index
            )
            found |= {name + end: part for name, part in zip(names, parts, strict=True)}
        return found
    found = {}
    for prefix, texts in (("", PROMPTS), ("negative_", [NEGATIVE] * len(PROMPTS))):
        embeds, *rest = pipe.encode_prompt(texts)
        found[f"{prefix}prompt_embeds"] = embeds
        if family == "flux":
            found[f"{prefix}pooled_prompt_embeds"] = rest[0]
    return found


@pytest.mark.parametrize("family", SIZES)
def test_prompts_are_those_of_the_pipeline(folder_of, family: str) -> None:
    found = encode_all(folder_of(family))
    masks = {
        name.replace("embeds", "mask"): size[:1] for name, size in SIZES[family].items() if len(size) == 2
    }
    sizes = SIZES[family] | masks
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        f"{prefix}{name}": (len(PROMPTS), *size)
        for prefix in ("", "negative_")
        for name, size in sizes.items()
    }
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in found.values())
    expected = stock_prompts(family, stock(folder_of(family)))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.float().expand_as(found[name]), rtol=1e-5, atol=1e-5)
    for name in found.keys() - expected.keys():
        assert name.endswith("prompt_mask") and found[name].eq(1).all()
    embeds = found["prompt_embeds"]
    assert torch.equal(embeds[0], embeds[2]) and not torch.equal(embeds[0], embeds[1])
    assert encode_all(folder_of(family), None).keys() == {
        name for name in found if not name.startswith("negative_")
    }


@pytest.mark.parametrize("family", SIZES)
def test_encoders_alone_are_read_and_gone_afterwards(tmp_path: Path, monkeypatch, family: str) -> None:
    folder = save_tiny(family, tmp_path / family)
    for part in ("vae", "scheduler"):
        shutil.rmtree(folder / part)
    parts: list[weakref.ref] = []

    def load(*arguments: Any) -> Any:
        pipe = load_encoders(*arguments)
        parts.extend(
            weakref.ref(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module)
        )
        return pipe

    load_encoders = components.load_encoders
    monkeypatch.setattr(components, "load_encoders", load)
    gc.disable()  # gone at once, not when the garbage collector finds time
    try:
        encode_all(folder)
        assert parts and all(part() is None for part in parts)
    finally:
        gc.enable()


def test_bfloat16_encoders_give_float32(folder_of) -> None:
    found = encode(folder_of("flux"), PROMPTS, None, CPU, torch.bfloat16)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    exact = encode_all(folder_of("flux"), None)
    torch.testing.assert_close(found["prompt_embeds"], exact["prompt_embeds"], rtol=0.05, atol=0.05)


def test_pickled_encoders_are_refused(tmp_path: Path) -> None:
    folder = save_tiny("pixart_alpha", tmp_path / "folder")
    (folder / "text_encoder" / "model.safetensors").unlink()
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(OSError, match=r"safetensors"):
        encode_all(folder)


def test_a_tokenizer_with_spiece_model_alone(tmp_path: Path) -> None:
    """As the hub has PixArt's: without a tokenizer.json."""
    pytest.importorskip("sentencepiece")
    from sentencepiece import sentencepiece_model_pb2 as proto

    folder = save_tiny("pixart_alpha", tmp_path / "folder")
    expected = encode_all(folder)
    path = folder / "tokenizer" / "tokenizer.json"
    pieces = json.loads(path.read_text())["model"]["vocab"]
    path.unlink()
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}  # control, control, unknown
    model = proto.ModelProto(
        pieces=[{"piece": piece, "score": score, "type": kinds.get(piece, 1)} for piece, score in pieces],
        trainer_spec={"model_type": 1, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    )
    (folder / "tokenizer" / "spiece.model").write_bytes(model.SerializeToString())
    found = encode_all(folder)
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_classes_by_name_and_number(folder_of) -> None:
    folder = folder_of("dit")
    found = encode(folder, ["207", "golden retriever", "dog", "class 3"], "", CPU, torch.float32)
    assert found["class_labels"].tolist() == [207, 207, 207, 3]
    assert found["negative_class_labels"].tolist() == [1000] * 4
    assert found["class_labels"].dtype == found["negative_class_labels"].dtype == torch.int64
    assert encode(folder, ["dog"], None, CPU, torch.float32).keys() == {"class_labels"}
    for prompt in ("golden retrieve", "1000", "-1", ""):
        with pytest.raises(ConfigError, match=r"prompt=.* is no class") as error:
            encode(folder, [prompt], None, CPU, torch.float32)
        assert ("nearest: golden retriever" in str(error.value)) == prompt.startswith("golden")


def test_what_a_folder_has(tmp_path: Path) -> None:
    folder = save_tiny("hunyuan", tmp_path / "hunyuan")
    assert has_encoders(folder) and has_vae(folder)
    shutil.rmtree(folder / "tokenizer_2")
    shutil.rmtree(folder / "vae")
    assert not has_encoders(folder) and not has_vae(folder)
    assert not has_encoders(tmp_path) and not has_vae(tmp_path)
    assert has_encoders(save_tiny("dit", tmp_path / "dit"))
    (folder / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline"}')
    for ask in (has_encoders, encode_all):
        with pytest.raises(ConfigError, match=r"is for CogVideoXPipeline; allowed: PixArtAlphaPipeline, "):
            ask(folder)


@torch.no_grad()
def picture_of(family: str, pipe: Any) -> tuple[Tensor, np.ndarray]:
    """Latents as the pipeline's scheduler has them last [2, C, H, W], and its pixels [2, h, w, 3] in 0..1."""
    stepped: list[Tensor] = []
    step = pipe.scheduler.step

    def recorded(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        stepped.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    pipe.scheduler.step = recorded
    options: dict[str, Any] = {"prompt": PROMPTS[:2], "height": SIDE, "width": SIDE}
    if family == "dit":
        options = {"class_labels": [1, 2]}
    if family == "qwen":
        options |= {"prompt": None, "prompt_embeds": torch.ones(2, 5, WIDTH)}
    if family.startswith("pixart") or family == "hunyuan":
        options["use_resolution_binning"] = False
    generator = torch.Generator().manual_seed(0)
    images = pipe(
        **options, guidance_scale=1.0, num_inference_steps=STEPS, output_type="np", generator=generator
    ).images
    latents = stepped[-1]
    if family.startswith("flux2"):
        latents = latents.transpose(1, 2).unflatten(2, (SIDE // 16, SIDE // 16))
    elif family.startswith("flux"):
        latents = pipe._unpack_latents(latents, SIDE, SIDE, pipe.vae_scale_factor)
    elif family == "qwen":
        latents = pipe._unpack_latents(latents, SIDE, SIDE, pipe.vae_scale_factor)[:, :, 0]
    return latents, images


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_and_timesteps_are_those_of_the_pipeline(folder_of, family: str) -> None:
    folder = folder_of(family)
    pipe = stock(folder)
    latents, expected = picture_of(family, pipe)
    side = SIDE // latent_factor(folder)
    assert latents.shape[2:] == (side, side)

    vae = load_vae(folder, torch.float32)
    with torch.no_grad():
        pixels = torch.cat([decode_one(vae, latent) for latent in latents.split(1)])
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-5)
    pictures = decode(folder, latents, False, CPU, torch.float32)
    same = [
        np.asarray(one) == np.asarray(other)
        for one, other in zip(pictures, pipe.numpy_to_pil(expected), strict=True)
    ]
    assert np.mean(same) > 0.999  # a value on the border between two bytes may go either way

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    tokens = (SIDE // 16) ** 2
    arguments = timestep_arguments(CLASS[family.partition("_")[0]], config, tokens, STEPS)
    assert json.loads(json.dumps(arguments)) == arguments
    assert ("mu" in arguments) == config.get("use_dynamic_shifting", False)
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(**arguments)
    assert torch.equal(scheduler.timesteps, pipe.scheduler.timesteps)
    if hasattr(scheduler, "sigmas"):
        assert torch.equal(scheduler.sigmas, pipe.scheduler.sigmas)


def test_timesteps_of_schedulers_that_the_pipeline_does_not_ship_with() -> None:
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        assert timestep_arguments("FluxTransformer2DModel", {"_class_name": name}, 256, 4) == {
            "num_inference_steps": 4
        }
    shifted = {
        "_class_name": "DPMSolverMultistepScheduler",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": True,
    }
    shifted |= {"prediction_type": "flow_prediction"}
    arguments = timestep_arguments("FluxTransformer2DModel", shifted, 4096, 4)
    assert arguments == {"num_inference_steps": 4, "mu": pytest.approx(1.15)}
    assert timestep_arguments("SD3Transformer2DModel", shifted, 4096, 4)["mu"] == pytest.approx(1.16)


@pytest.mark.parametrize("family", ["pixart_alpha", "flux2_klein"])
def test_tiles_are_those_of_the_vae(folder_of, family: str) -> None:
    folder, factor = folder_of(family), latent_factor(folder_of(family))
    channels = 4 if family == "pixart_alpha" else 16
    latents = torch.randn(2, channels, 8, 4, generator=torch.Generator().manual_seed(0))
    whole, tiles = (
        [np.asarray(picture) for picture in decode(folder, latents, tiled, CPU, torch.float32)]
        for tiled in (False, True)
    )
    assert [picture.shape for picture in tiles] == [(8 * factor, 4 * factor, 3)] * 2
    vae = load_vae(folder, torch.float32)
    vae.enable_tiling()
    with torch.no_grad():
        pixels = decode_one(vae, latents[:1])[0].permute(1, 2, 0)
    np.testing.assert_allclose(tiles[0], ((pixels + 1) * 127.5).clamp(0, 255), atol=0.51)
    assert not np.array_equal(tiles[0], whole[0])
    alone = decode(folder, latents[1:], False, CPU, torch.float32)
    assert np.array_equal(alone[0], whole[1])


def test_written_pictures(tmp_path: Path, folder_of) -> None:
    def write(latents: Tensor, folder: Path | None, pixel_space: bool) -> list[Path]:
        save_file({"latents": latents}, tmp_path / "latents.safetensors")
        model: Any = SimpleNamespace(folder=folder, facts={"pixel_space": pixel_space})
        cfg: Any = SimpleNamespace(model=SimpleNamespace(tiled=False))
        return write_images(tmp_path, cfg, model)

    cfg: Any = None
    assert write_images(tmp_path, cfg, cfg) == []  # a plan has no latents
    latents = torch.randn(2, 4, 8, 8)
    assert write(latents, None, False) == write(latents, tmp_path, False) == write(latents, None, True) == []
    assert not (tmp_path / "images").exists()
    paths = write(latents, folder_of("pixart_alpha"), False)
    assert paths == [tmp_path / "images" / "0.png", tmp_path / "images" / "1.png"]
    assert Image.open(paths[1]).size == (64, 64)
    assert Image.open(write(torch.zeros(1, 3, 8, 8), None, True)[0]).getpixel((0, 0)) == (128, 128, 128)
