"""Weights that are refused, each in one line with the file and the tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.errors import ConfigError
from experiments.models.weights import ARCHITECTURES, check_weights, diffusers_class, read_tensors
from tests.experiments.models.weights.files import (
    INDEX,
    KEY,
    SINGLE,
    change,
    copy_tensors,
    read_index,
    write_index,
)

TENSORS = 57
Damage = Callable[[Path, Path], None]


@pytest.fixture
def single(whole: Path, tmp_path: Path) -> Path:
    """A `transformer/` folder to damage."""
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model" / "transformer"


@pytest.fixture
def sharded(parts: Path, tmp_path: Path) -> Path:
    shutil.copytree(parts, tmp_path / "sharded")
    return tmp_path / "sharded" / "transformer"


def complaint(part: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_weights(part.parent)
    text = str(caught.value)
    assert text.startswith("model.weights=")
    assert "\n" not in text and "; allowed: " in text
    return text.removeprefix("model.weights=")


@pytest.mark.parametrize("kind", ["whole", "parts"])
def test_good_weights_pass(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    assert check_weights(folder) == check_weights(str(folder)) == folder
    found = read_tensors(folder / "transformer")
    assert (kind == "parts") == (len({tensor.file for tensor in found.values()}) > 2)
    assert found[KEY].shape == (48,) and found[KEY].dtype == "F32"


def test_mixed_precision_passes(sharded: Path) -> None:
    file = sharded / read_index(sharded)[KEY]
    change(file, proj_out__bias=torch.zeros(48, dtype=torch.bfloat16))
    change(sharded / read_index(sharded)["pos_embed.proj.bias"], pos_embed__proj__bias=torch.zeros(16).half())
    check_weights(sharded.parent)


def biased(**tensors: torch.Tensor | None) -> Damage:
    """Other tensors in the damaged file."""
    return lambda part, file: change(file, **tensors)


def cut_a_tensor(part: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def cut_the_header(part: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def nothing_left(part: Path, file: Path) -> None:
    file.write_bytes(b"")


def pickle_renamed(part: Path, file: Path) -> None:
    torch.save(copy_tensors(file), file)


def pickled(part: Path, file: Path) -> None:
    torch.save(load_file(file), part / "diffusion_pytorch_model.bin")
    file.unlink()


def gone(part: Path, file: Path) -> None:
    file.unlink()


def another_name(part: Path, file: Path) -> None:
    file.rename(part / "model.safetensors")


def another_file(part: Path, file: Path, name: str = "extra.bias") -> None:
    save_file({name: torch.zeros(7)}, part / "more.safetensors")


def a_copy(part: Path, file: Path) -> None:
    another_file(part, file, KEY)


leave_out, add = biased(proj_out__bias=None), biased(extra__bias=torch.zeros(7))
reshape = biased(proj_out__bias=torch.zeros(7))
DTYPES = {"I64": torch.int64, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn}
# What is done to a folder, and what is said of it. PART is the folder's path, FILE that of the file damaged.
BOTH = [
    (cut_a_tensor, "FILE is truncated or broken, LAST is not whole ("),
    (reshape, f"FILE has {KEY} of shape [7]; allowed: [48]"),
    *((biased(proj_out__bias=torch.zeros(48).to(dtype)), f"FILE has {KEY} of dtype {name}; allowed: F32, F16, BF16")
      for name, dtype in DTYPES.items()),
]  # fmt: skip
ONE_FILE = [
    *BOTH,
    (cut_the_header, "FILE is truncated or broken ("),
    (nothing_left, "FILE is truncated or broken ("),
    (pickle_renamed, "FILE is a pickle under another name; allowed: safetensors"),
    (leave_out, f"FILE lacks {KEY}; allowed: the {TENSORS} tensors of PixArtTransformer2DModel"),
    (add, f"FILE has extra.bias, which PixArtTransformer2DModel has not; allowed: its {TENSORS} tensors"),
    (pickled, "PART holds pickled weights (diffusion_pytorch_model.bin); allowed: *.safetensors"),
    (gone, "PART holds no weights; allowed: *.safetensors"),
    (another_name, f"PART/model.safetensors has FIRST, and there is no {INDEX}; allowed: {SINGLE} alone"),
    (another_file, f"PART/more.safetensors has extra.bias, and there is no {INDEX}; allowed: {SINGLE} alone"),
]
FILES = [
    *BOTH,
    (cut_the_header, "FILE is truncated or broken, FIRST is not whole ("),
    (nothing_left, "FILE is truncated or broken, FIRST is not whole ("),
    (pickle_renamed, "FILE is a pickle under another name, where FIRST should be; allowed: safetensors"),
    (leave_out, f"FILE lacks {KEY}, which {INDEX} says is in it; allowed: what its index says"),
    (add, f"FILE has extra.bias, which {INDEX} does not name; allowed: what its index says"),
    (gone, f"FILE does not exist, and {INDEX} says FIRST is in it; allowed: all its files"),
    (another_file, f"PART/more.safetensors has extra.bias, which {INDEX} does not name; allowed: what its index"),
    (a_copy, f"PART/more.safetensors has {KEY}, which {INDEX} says is in NAME; allowed: what its index says"),
]  # fmt: skip


def last_tensor(path: Path) -> str:
    """The tensor at the end of a file."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return max((entry["data_offsets"][1], name) for name, entry in header.items() if name[0] != "_")[1]


def check_complaint(message: str, damage: Damage, part: Path, file: Path, first: str) -> None:
    words = {
        "PART": str(part),
        "FILE": str(file),
        "NAME": file.name,
        "FIRST": first,
        "LAST": last_tensor(file),
    }
    damage(part, file)
    for word, meant in words.items():
        message = message.replace(word, meant)
    assert complaint(part).startswith(message)


@pytest.mark.parametrize(("damage", "message"), ONE_FILE)
def test_one_file(damage: Damage, message: str, single: Path) -> None:
    file = single / SINGLE
    check_complaint(message, damage, single, file, min(copy_tensors(file)))


@pytest.mark.parametrize(("damage", "message"), FILES)
def test_several_files(damage: Damage, message: str, sharded: Path) -> None:
    index = read_index(sharded)
    first = next(name for name, other in index.items() if other == index[KEY])
    check_complaint(message, damage, sharded, sharded / index[KEY], first)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("missing.safetensors", f"PART/missing.safetensors does not exist, and {INDEX} says {KEY} is in it"),
        ("weights.bin", f"PART/{INDEX} says {KEY} is in weights.bin; allowed: weight_map, from each tensor"),
        ("../away.safetensors", f"PART/{INDEX} says {KEY} is in ../away.safetensors; allowed: weight_map"),
        (None, f"PART/{INDEX} says {KEY} is in None; allowed: weight_map"),
    ],
)
def test_index_that_leads_nowhere(file: str | None, message: str, sharded: Path) -> None:
    write_index(sharded, read_index(sharded) | {KEY: file})
    assert complaint(sharded).startswith(message.replace("PART", str(sharded)))


def test_index_that_names_the_wrong_file(sharded: Path) -> None:
    index = read_index(sharded)
    other = next(file for file in index.values() if file != index[KEY])
    write_index(sharded, index | {KEY: other})
    assert complaint(sharded).startswith(
        f"{sharded / index[KEY]} has {KEY}, which {INDEX} says is in {other}"
    )


def test_index_and_files_that_both_lack_a_tensor(sharded: Path) -> None:
    index = read_index(sharded)
    change(sharded / index.pop(KEY), proj_out__bias=None)
    write_index(sharded, index)
    assert complaint(sharded).startswith(f"{sharded / INDEX} lacks {KEY}; allowed: the {TENSORS} tensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not readable as JSON ("), ("[]", "holds no mapping"), ("{}", "has no weight_map")],
)
def test_broken_index(content: str, message: str, sharded: Path) -> None:
    (sharded / INDEX).write_text(content)
    assert complaint(sharded).startswith(f"{sharded / INDEX} {message}")


def test_copies_in_another_precision_are_left_alone(single: Path, sharded: Path) -> None:
    for part in (single, sharded):
        save_file({"extra": torch.zeros(1)}, part / "diffusion_pytorch_model.fp16.safetensors")
        check_weights(part.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; allowed: a configuration in diffusers' layout"),
        ("{", "is not readable as JSON ("),
        ("[]", "holds no mapping"),
        ("{}", "is for None; allowed: PixArtTransformer2DModel, SanaTransformer2DModel,"),
        ('{"_class_name": "UNet2DModel"}', "is for UNet2DModel; allowed: PixArtTransformer2DModel, Sana"),
        ('{"_class_name": "Transformer2DModel"}', "is for Transformer2DModel; allowed: PixArtTransformer2D"),
    ],
)
def test_configuration(content: str | None, message: str, single: Path) -> None:
    path = single / "config.json"
    path.unlink() if content is None else path.write_text(content)
    assert complaint(single).startswith(f"{path} {message}")


def test_configuration_that_its_class_does_not_take(single: Path) -> None:
    path = single / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_type": "layer_norm"}))
    assert complaint(single).startswith(f"{path}: ")


def test_names_that_classes_had_before(single: Path) -> None:
    path = single / "config.json"
    config = json.loads(path.read_text()) | {"_class_name": "Transformer2DModel", "num_vector_embeds": None}
    path.write_text(json.dumps(config))
    check_weights(single.parent)
    assert diffusers_class(config) == "PixArtTransformer2DModel"
    assert diffusers_class(config | {"norm_type": "ada_norm_zero"}) == "DiTTransformer2DModel"
    assert all(diffusers_class({"_class_name": name}) == name for name in ARCHITECTURES)


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for weights, message in [
        ("file", "file is a file; allowed: a folder with transformer/config.json, or a hub id"),
        ("nowhere", "nowhere does not exist; allowed: a folder"),
        ("/nowhere/model", "/nowhere/model does not exist; allowed: a folder"),
        ("folder/model", "folder/model does not exist; allowed: a folder"),
        ("a/b/c", "a/b/c does not exist; allowed: a folder"),
        ("not a/hub id", "not a/hub id does not exist; allowed: a folder"),
    ]:
        with pytest.raises(ConfigError, match=f"^model.weights={message}"):
            check_weights(weights)
