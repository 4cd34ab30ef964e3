"""The committed configurations of published transformers, and their tiny variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from omegaconf import OmegaConf

from experiments.grid import model_config
from experiments.models.architecture import architecture_fault
from experiments.models.model import open_model
from pipefusion.families import latent_patch

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "model"
# What the project knows of a model besides the arguments of its class.
FACTS = {
    "pixel_space", "latent_factor", "text_tokens", "text_tokens_2", "guidance", "guidance_scale", "resolution",
    "frames", "frame_factor", "first_frame", "references", "boundary", "guidance_scale_2",
}  # fmt: skip
# Each agrees with the size of the published checkpoint, which may hold buffers (tables of positions) besides.
PARAMETERS = {
    "pixart_alpha": 611_349_152,
    "pixart_sigma": 610_856_096,
    "sd3_medium": 2_028_328_000,
    "sd35_large": 8_056_627_520,
    "flux_dev": 11_901_408_320,
    "flux_schnell": 11_891_178_560,
    "flux_kontext": 11_901_408_320,
    "flux2_dev": 32_223_281_152,
    "flux2_klein_4b": 3_875_544_576,
    "flux2_klein_9b": 9_078_581_248,
    "qwen_image": 20_430_401_088,
    "qwen_image_edit": 20_430_401_088,
    "z_image_turbo": 6_154_908_736,
    "sana_1600m": 1_604_462_752,
    "wan21_1_3b": 1_418_996_800,
    "wan21_14b": 14_288_491_584,
    "wan22_a14b": 14_288_491_584,  # of each expert
    "wan22_ti2v_5b": 4_999_787_712,
    "cogvideox_2b": 1_693_783_872,
    "cogvideox_5b": 5_570_283_072,
    "hunyuan_video": 12_821_012_544,
    "hunyuan_video15": 8_326_608_160,
    "ltx_video": 1_923_385_472,
    "ltx2": 18_876_174_592,  # of both streams, of which the video's is held
    "hunyuan_dit": 1_499_952_032,
    "dit_xl_2": 749_826_464,
}
TINY = {
    "sd3_tiny": "sd3_medium",
    "sd35_tiny": "sd35_large",
    "flux_tiny": "flux_dev",
    "flux_kontext_tiny": "flux_kontext",
    "flux2_tiny": "flux2_dev",
    "qwen_tiny": "qwen_image",
    "qwen_edit_tiny": "qwen_image_edit",
    "z_image_tiny": "z_image_turbo",
    "sana_tiny": "sana_1600m",
    "wan_tiny": "wan21_14b",
    "wan22_a14b_tiny": "wan22_a14b",
    "cogvideox_tiny": "cogvideox_5b",
    "hunyuan_video_tiny": "hunyuan_video",
    "hunyuan_video15_tiny": "hunyuan_video15",
    "ltx_tiny": "ltx_video",
    "ltx2_tiny": "ltx2",
    "hunyuan_tiny": "hunyuan_dit",
    "dit_tiny": "dit_xl_2",
}
SIDE = 12  # token rows and columns, and heads, of every tiny model


def read(name: str) -> dict[str, Any]:
    model = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert model["name"] == name
    return model


def build(name: str) -> torch.nn.Module:
    architecture = read(name)["architecture"]
    cls = getattr(diffusers, architecture.pop("class"))
    return cls(**{key: value for key, value in architecture.items() if key not in FACTS})


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.fast_cases(5)
def test_full_size_has_the_parameters_of_the_published_model(name: str) -> None:
    with torch.device("meta"):
        transformer = build(name)
    assert sum(p.numel() for p in transformer.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_model_leaves_its_size_and_its_encoders_to_the_command(path: Path) -> None:
    """A `resolution` here would contradict `model.height`; the size it was made for is a fact of its architecture.

    A `text: random` would stay when weights are given, and the pictures would have nothing to do with prompts.
    """
    assert not {"resolution", "height", "width", "text"} & OmegaConf.load(path).keys()


@pytest.mark.parametrize("name", [*PARAMETERS, *TINY])
def test_what_is_committed_is_nothing_that_a_run_refuses(name: str) -> None:
    assert architecture_fault(open_model(model_config(name))) is None


@pytest.mark.parametrize("name", TINY)
def test_tiny_is_the_big_one_in_small(name: str) -> None:
    tiny, big = read(name)["architecture"], read(TINY[name])["architecture"]
    assert tiny.keys() == big.keys()
    sizes = [key for key, value in big.items() if type(value) in (int, list)]
    kept = {key for key in big if key not in sizes}
    kept |= {"patch_size", "all_patch_size", "all_f_patch_size", "latent_factor"} & big.keys()
    for key in kept - {"mlp_ratio"}:  # Hunyuan's is a fraction chosen for its width
        assert tiny[key] == big[key], key


@pytest.mark.parametrize("name", TINY)
def test_tiny_builds_and_divides_by_many_devices(name: str) -> None:
    model, transformer = read(name), build(name)
    architecture = model["architecture"]
    assert all(not p.is_meta for p in transformer.parameters())
    fixed = 4_500_000 * (name == "hunyuan_video15_tiny")  # an MLP that is 2048 wide at any size
    assert sum(p.numel() for p in transformer.parameters()) < 3_000_000 + fixed
    patch = latent_patch(architecture["class"], architecture)
    side = architecture.get("resolution")
    side = side[0] if isinstance(side, list) else side  # of a video its height, and its frames
    assert (architecture.get("sample_size") or side // architecture["latent_factor"]) == SIDE * patch
    if "frames" in architecture:
        assert (architecture["frames"] - 1) // architecture["frame_factor"] + 1 == SIDE
    assert architecture.get("num_attention_heads", architecture.get("n_heads")) == SIDE


def test_a_model_may_be_a_form_of_another() -> None:
    one, both = (model_config(name) for name in ("wan22_a14b_one", "wan22_a14b"))
    assert (one.experts, both.experts) == ("one", "both") and one.architecture == both.architecture
