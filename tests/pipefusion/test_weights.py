"""Reading slices from safetensors: the right numbers, of the right dtype, in hardly more memory than they take."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipefusion.core import weights
from pipefusion.core.dit import Shard
from pipefusion.core.weights import INDEX, NAME, pieces, reader, weight_files

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "matrix": (13, 10),
    "vector": (37,),
    "kernel": (5, 3, 2, 2),
    "table": (1, 9, 6),
    "scalar": (),
    "empty": (0, 4),
}


def save(tensors: dict[str, Tensor], folder: Path, files: int) -> None:
    """Tensors dealt out to files, with an index as diffusers writes it; one file has none."""
    if files == 1:
        save_file(tensors, folder / NAME)
        return
    index = {}
    for number in range(files):
        names = [*tensors][number::files]
        save_file({name: tensors[name] for name in names}, folder / f"part-{number}.safetensors")
        index |= dict.fromkeys(names, f"part-{number}.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


@pytest.fixture(params=[1, 3], ids=["one_file", "three_files"])
def folder(request: pytest.FixtureRequest, tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    save(tensors, tmp_path, request.param)
    return tmp_path


@pytest.fixture(params=[1, 50, 200, 4 << 20])
def _window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WINDOW_BYTES", request.param)


def sliced(tensor: Tensor, shard: Shard) -> Tensor:
    """What a shard means, in one line."""
    dim, sections = shard
    return torch.cat([tensor.narrow(dim, start, stop - start) for start, stop in sections], dim)


@pytest.mark.usefixtures("_window")
def test_whole_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    read = reader(folder)
    for name, tensor in tensors.items():
        assert torch.equal(read(name), tensor), name
        assert torch.equal(read(name, None, dtype=torch.bfloat16), tensor.bfloat16()), name


@pytest.mark.usefixtures("_window")
@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("matrix", (0, ((4, 9),))),
        ("matrix", (0, ((9, 13), (0, 2)))),
        ("matrix", (1, ((5, 10),))),
        ("matrix", (1, ((0, 1), (3, 4), (8, 10)))),
        ("matrix", (1, ((2, 2), (2, 3)))),
        ("vector", (0, ((36, 37),))),
        ("vector", (0, ((0, 9), (18, 27)))),
        ("kernel", (0, ((1, 2),))),
        ("kernel", (1, ((1, 3),))),
        ("kernel", (3, ((1, 2),))),
        ("table", (1, ((3, 8),))),
        ("table", (2, ((0, 2), (4, 6)))),
    ],
)
def test_shards(folder: Path, tensors: dict[str, Tensor], name: str, shard: Shard) -> None:
    read = reader(folder)
    wanted = sliced(tensors[name], shard)
    for dtype in (torch.float32, torch.float16):
        part = read(name, shard, dtype=dtype, device=torch.device("cpu"))
        assert torch.equal(part, wanted.to(dtype))
        assert part.is_contiguous()
        assert part.untyped_storage().nbytes() == wanted.numel() * dtype.itemsize  # no view of the file


@pytest.mark.parametrize("dtype", weights.DTYPES.values())
def test_without_a_dtype_it_is_as_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.arange(8, dtype=dtype)}, tmp_path / NAME)
    assert torch.equal(reader(tmp_path)("a", (0, ((2, 5),))), torch.arange(2, 5, dtype=dtype))


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1000), "b": torch.tensor(2.0)}, tmp_path / NAME)
    read = reader(tmp_path)
    parts = [read("a"), read("b")]
    (tmp_path / NAME).write_bytes(bytes(5000))  # in place: a mapping would show it
    assert [float(part.sum()) for part in parts] == [1000.0, 2.0]


def test_pieces_cover_a_box_once_and_fit_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WINDOW_BYTES", 100)
    seen = torch.zeros(7, 6)
    box = torch.zeros(5, 3)
    for piece, place, nbytes in pieces([(1, 6), (2, 5)], (7, 6), 4):
        seen[piece] += 1
        box[place] += 1
        assert nbytes <= 100
    assert torch.equal(seen.nonzero().amin(0), torch.tensor([1, 2]))
    assert seen.sum() == seen.count_nonzero() == 15
    assert bool((box == 1).all())


def test_names_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=f"{folder} has no tensor missing"):
        reader(folder)("missing")
    nowhere = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=f"{nowhere} holds no {NAME}"):
        weight_files(nowhere)


@pytest.mark.parametrize("sections", [((8, 14),), ((0, 2), (13, 14)), ((-1, 3),), ((5, 4),)])
def test_sections_outside_of_a_tensor(folder: Path, sections: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"safetensors has matrix of shape \[13, 10\]: no .* in dimension 0"):
        reader(folder)("matrix", (0, sections))


def test_a_dtype_that_weights_do_not_have(tmp_path: Path) -> None:
    save_file({"a": torch.arange(8)}, tmp_path / NAME)
    with pytest.raises(KeyError, match=f"{NAME} has a of dtype I64; allowed: F32, F16, BF16"):
        reader(tmp_path)("a")


LOADED: dict[str, tuple[range, Shard | None, torch.dtype]] = {
    "whole": (range(12), None, torch.float32),
    "whole, bfloat16": (range(12), None, torch.bfloat16),
    "stage": (range(3, 6), None, torch.float32),
    "rows": (range(12), (0, ((512, 1024),)), torch.float32),
    "columns": (range(12), (1, ((512, 1024),)), torch.float32),
    "sections": (range(12), (1, ((0, 256), (1024, 1280))), torch.float32),
    "columns, bfloat16": (range(12), (1, ((0, 1024),)), torch.bfloat16),
}


def peaks(folder: Path) -> None:
    """Print the bytes that loading each of `LOADED` takes at most, and those that it leaves."""
    torch.set_num_threads(1)

    def status(name: str) -> int:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0]) * 1024

    read = reader(folder)
    for layers, shard, dtype in LOADED.values():
        read("bias.0", None, dtype=dtype).add(1)  # pages of code are no part of the weights
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        kept = [read(f"weight.{i}", shard, dtype=dtype) for i in layers]
        kept += [read(f"bias.{i}", None, dtype=dtype) for i in layers]
        grown = status("VmHWM") - before
        assert all(torch.isfinite(tensor).all() for tensor in kept)
        print(grown, sum(tensor.nbytes for tensor in kept))
        del kept


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak of resident memory"
)
@pytest.mark.slow
def test_memory_while_loading(tmp_path: Path) -> None:
    """200 MB in three files, of 12 matrices of 16.8 MB and 12 small vectors, by a process of its own."""
    tensors = {f"weight.{i}": torch.full((2048, 2048), float(i)) for i in range(12)}
    save(tensors | {f"bias.{i}": torch.ones(2048) for i in range(12)}, tmp_path, 3)
    code = f"from pathlib import Path; from tests.pipefusion.test_weights import peaks; peaks(Path({str(tmp_path)!r}))"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (name, (layers, shard, dtype)), line in zip(LOADED.items(), done.stdout.splitlines(), strict=True):
        grown, kept = map(int, line.split())
        share = len(layers) / 12 * (1 if shard is None else sum(b - a for a, b in shard[1]) / 2048)
        assert kept == pytest.approx(201.4e6 * share * dtype.itemsize / 4, rel=0.01), name
        assert grown <= 1.15 * kept, f"{name}: {grown / kept:.3f} of the shard"
