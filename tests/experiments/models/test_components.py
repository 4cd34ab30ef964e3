"""A pipeline's own text encoders give here what diffusers' pipelines give, on tiny folders of every family."""

from __future__ import annotations

import gc
import inspect
import json
import pickle
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.errors import ConfigError
from experiments.models import components
from experiments.models.components import encode, has_encoders
from experiments.models.decode import has_vae
from tests.experiments.tiny_pipelines import save_tiny, stock
from tests.experiments.tiny_transformers import WIDTH

CPU = torch.device("cpu")
PROMPTS = ["Red apple", "a green dragon, a very green dragon", "Red apple"]
NEGATIVE = "blurry"
# What each family's encoders give for one prompt, besides the masks.
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "pixart_alpha": {"prompt_embeds": (120, WIDTH)},
    "pixart_sigma": {"prompt_embeds": (300, WIDTH)},
    "sana": {"prompt_embeds": (300, WIDTH)},
    "sd3": {"prompt_embeds": (333, WIDTH), "pooled_prompt_embeds": (16,)},
    "flux": {"prompt_embeds": (512, WIDTH), "pooled_prompt_embeds": (8,)},
    "flux2_dev": {"prompt_embeds": (512, 3 * WIDTH)},
    "flux2_klein": {"prompt_embeds": (512, 3 * WIDTH)},
    "hunyuan": {"prompt_embeds": (77, WIDTH), "prompt_embeds_2": (256, WIDTH)},
}


def encode_all(folder: Path, negative: str | None = NEGATIVE) -> dict[str, Tensor]:
    return encode(folder, PROMPTS, negative, CPU, torch.float32)


@torch.no_grad()
def stock_prompts(family: str, pipe: Any) -> dict[str, Tensor]:
    """The pipeline's own `encode_prompt` on the whole batch, by our names."""
    if family.startswith("pixart") or family == "sana":
        names = ("prompt_embeds", "prompt_mask", "negative_prompt_embeds", "negative_prompt_mask")
        instruction = inspect.signature(type(pipe).__call__).parameters.get("complex_human_instruction")
        options = {} if instruction is None else {"complex_human_instruction": instruction.default}
        return dict(zip(names, pipe.encode_prompt(PROMPTS, negative_prompt=NEGATIVE, **options), strict=True))
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
@pytest.mark.fast_cases(3)
def test_prompts_are_those_of_the_pipeline(tiny_folder, family: str) -> None:
    found = encode_all(tiny_folder(family))
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
    expected = stock_prompts(family, stock(tiny_folder(family)))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.float().expand_as(found[name]), rtol=1e-5, atol=1e-5)
    for name in found.keys() - expected.keys():
        assert name.endswith("prompt_mask") and found[name].eq(1).all()
    embeds = found["prompt_embeds"]
    assert torch.equal(embeds[0], embeds[2]) and not torch.equal(embeds[0], embeds[1])
    assert encode_all(tiny_folder(family), None).keys() == {
        name for name in found if not name.startswith("negative_")
    }


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.fast_cases(4)
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


def test_bfloat16_encoders_give_float32(tiny_folder) -> None:
    found = encode(tiny_folder("flux"), PROMPTS, None, CPU, torch.bfloat16)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    exact = encode_all(tiny_folder("flux"), None)
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


def test_classes_by_name_and_number(tiny_folder) -> None:
    folder = tiny_folder("dit")
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
