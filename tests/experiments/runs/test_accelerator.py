"""What is set, recorded and counted on a GPU, with CUDA's functions replaced."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from experiments.runs import accelerator

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU of torch's functions only; the calls that touch its memory, in order."""
    calls: list[str] = []
    peaks = {"max_memory_allocated": 70, "max_memory_reserved": 90, "mem_get_info": (400, 1000)}
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", *peaks):
        monkeypatch.setattr(
            torch.cuda, name, lambda *_, name=name: calls.append(name) or peaks.get(name), raising=False
        )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=1000)
    )
    monkeypatch.setattr(torch.cuda, "nccl", SimpleNamespace(version=lambda: (2, 27, 3)), raising=False)
    return calls


@pytest.fixture(autouse=True)
def _as_torch_has_it() -> Iterator[None]:
    """Settings of torch are the process's."""

    def put(matmul: bool, cudnn: bool, attention: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.backends.cuda.enable_cudnn_sdp(attention)

    put(True, True, True)
    yield
    put(False, True, True)


def test_float32_is_float32_and_the_record_says_so(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    before = accelerator.facts(GPU, torch.float32)
    assert before is not None and before["tf32"] == {"matmul": True, "cudnn": True}
    accelerator.settle(GPU)
    found = accelerator.facts(GPU, torch.float32)
    assert found is not None
    assert found["tf32"] == {"matmul": False, "cudnn": False}
    assert found["attention"]["unmasked"] == "efficient"
    assert "cudnn" not in found["attention"]["masked"]
    assert (found["name"], found["compute_capability"], found["nccl"]) == ("Tesla T4", "7.5", "2.27.3")
    assert found["environment"]["NCCL_P2P_DISABLE"] == "1"
    assert "SOME_TOKEN" not in found["environment"]
    assert {"cuda", "cudnn", "driver", "memory_bytes"} <= set(found)


def test_bfloat16_needs_a_gpu_that_has_it(gpu: list[str]) -> None:
    with pytest.raises(ValueError, match=r"model.dtype=bfloat16 .* has 7.5; allowed: float16, float32"):
        accelerator.check_dtype(GPU, torch.bfloat16)
    accelerator.check_dtype(GPU, torch.float16)


def test_peaks_are_those_of_one_image_from_an_empty_cache(gpu: list[str]) -> None:
    peaks = accelerator.cuda_peaks(lambda: gpu.append("image"), GPU)
    order = [name for name in gpu if name != "synchronize"]
    assert order[:3] == ["empty_cache", "reset_peak_memory_stats", "image"]
    assert peaks == {
        "cuda_allocated_peak_bytes": 70,
        "cuda_reserved_peak_bytes": 90,
        "cuda_used_bytes": 600,  # of 1000, 400 are free
    }


def test_on_a_cpu_nothing_is_set_or_found() -> None:
    accelerator.settle(CPU)
    accelerator.check_dtype(CPU, torch.bfloat16)
    assert torch.backends.cudnn.allow_tf32
    assert accelerator.facts(CPU, torch.float32) is None
    assert set(accelerator.cuda_peaks(lambda: pytest.fail("an image"), CPU).values()) == {None}
