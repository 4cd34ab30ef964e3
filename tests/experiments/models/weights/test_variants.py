"""Weights of which there are several copies, told apart by the names of their files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from experiments.errors import ConfigError
from experiments.models.components import encode
from experiments.models.decode import load_vae
from experiments.models.model import open_model
from experiments.models.weights import check_weights, read_tensors
from experiments.runs.check import check_model
from pipefusion.checkpoint import open_transformer
from pipefusion.core.weights import reader, stored_dtype, variants
from tests.experiments.commands import config
from tests.experiments.tiny_pipelines import stock

CPU = torch.device("cpu")


@pytest.mark.parametrize("largest_file", ["1GB", "10KB"])
def test_a_variant_beside_the_others(whole: Path, tmp_path: Path, largest_file: str) -> None:
    shutil.copytree(whole, tmp_path / "model")
    part = tmp_path / "model" / "transformer"
    model = PixArtTransformer2DModel.from_pretrained(part)
    for variant, dtype in {"fp16": torch.float16, "bf16": torch.bfloat16}.items():
        model.to(dtype).save_pretrained(part, variant=variant, max_shard_size=largest_file)
    assert variants(part) == ["bf16", "fp16"]
    check_weights(part.parent)
    check_weights(part.parent, "fp16")
    assert {one.dtype for one in read_tensors(part).values()} == {"F32"}
    assert {one.dtype for one in read_tensors(part, "fp16").values()} == {"F16"}
    full, half = (reader(part, variant)("proj_out.weight") for variant in (None, "fp16"))
    assert torch.equal(full.half(), half)
    assert stored_dtype(part, "bf16") == open_transformer(part, None, "bf16").dtype == torch.bfloat16
    with pytest.raises(
        ConfigError, match=r"^model.variant=fp8 is no variant that .* has; allowed: null, bf16, fp16$"
    ):
        check_weights(part.parent, "fp8")
    with pytest.raises(FileNotFoundError, match=r"fp8\.safetensors; there are the variants bf16, fp16"):
        reader(part, "fp8")


def test_all_parts_of_a_pipeline(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    full, half = tiny_folder("pixart_alpha"), tmp_path / "half"
    pipe = stock(full).to(torch.float16)
    pipe.save_pretrained(half, variant="fp16")
    assert not [*half.rglob("model.safetensors")]
    cfg = config(f"model.weights={half}", "model.variant=fp16")
    model = check_model(cfg)
    assert model.variant == "fp16"
    assert model.tensors()("proj_out.bias").dtype == torch.float16
    found, expected = (
        encode(folder, ["a"], "", CPU, torch.float32, variant)
        for folder, variant in ((half, "fp16"), (full, None))
    )
    torch.testing.assert_close(found["prompt_embeds"], expected["prompt_embeds"], rtol=1e-2, atol=1e-2)
    assert load_vae(half, torch.float32, "fp16").dtype == torch.float32
    with pytest.raises(ConfigError, match=r"has no weights|holds no weights|allowed"):
        check_model(config(f"model.weights={half}"))
    shutil.copy(full / "vae" / "diffusion_pytorch_model.safetensors", half / "vae")
    (half / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"^model.variant=fp16 is no variant that .*vae has; allowed: null$"
    ):
        check_model(cfg)


def test_random_weights_have_none() -> None:
    with pytest.raises(
        ConfigError, match=r"^model.variant=fp16 is of the files of weights, and .* allowed: null$"
    ):
        check_model(config("model.variant=fp16"))
    assert open_model(config().model).variant is None
