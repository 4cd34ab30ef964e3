"""Weights by their hub id, with and without a hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from experiments.errors import ConfigError
from experiments.models.weights import check_weights, resolve_weights
from tests.experiments.models.weights.files import KEY, SINGLE, change, read_index

HUB_ID = "someone/pixart"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local cache of the hub, and no hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


def fill(cache: Path, weights: Path) -> Path:
    """Put a folder where a download of HUB_ID would have put it."""
    repository, commit = cache / "models--someone--pixart", "0" * 40
    shutil.copytree(weights, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def test_hub_id_without_a_hub_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_weights(HUB_ID)
    text = str(caught.value)
    assert text.startswith("model.weights=someone/pixart is no folder, and the hub does not give it (")
    assert '`hf download someone/pixart --include "*.json" --include ' in text
    assert ' --include "transformer/*.safetensors" --local-dir FOLDER`' in text
    assert text.endswith("then model.weights=FOLDER")
    assert "\n" not in text


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), ValueError("bad id"), RuntimeError("broken\npipe")]
)
def test_whatever_keeps_the_hub_away(error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(
        ConfigError, match=rf"\({str(error).splitlines()[0]}\); allowed: .* `hf download {HUB_ID} "
    ):
        resolve_weights(HUB_ID)


def test_hub_id_in_the_cache_needs_no_hub(cache: Path, parts: Path) -> None:
    snapshot = fill(cache, parts)
    assert resolve_weights(HUB_ID) == snapshot
    assert check_weights(HUB_ID) == snapshot


def test_what_was_downloaded_is_checked_too(cache: Path, parts: Path) -> None:
    part = fill(cache, parts) / "transformer"
    change(part / read_index(part)[KEY], proj_out__bias=torch.zeros(7))
    with pytest.raises(ConfigError, match=rf"{KEY} of shape \[7\]; allowed: \[48\]"):
        check_weights(HUB_ID)


def test_only_what_is_read_is_downloaded(cache: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert check_weights(HUB_ID) == whole
    paths = [
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer/spiece.model",
        "transformer/config.json", f"transformer/{SINGLE}",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.fp16.safetensors", "transformer/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder_2/model-00001-of-00002.safetensors",
        "text_encoder_2/pytorch_model.bin", "whole.safetensors",
    ]  # fmt: skip

    def fetched() -> list[str]:
        patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
        return list(huggingface_hub.utils.filter_repo_objects(paths, **patterns))

    assert asked["name"] == HUB_ID
    assert fetched() == paths[:6]
    resolve_weights(HUB_ID, ["transformer", "text_encoder*"])
    assert fetched() == [*paths[:6], "text_encoder_2/model-00001-of-00002.safetensors"]


def test_a_revision_of_a_hub_id(cache: Path, parts: Path) -> None:
    snapshot = fill(cache, parts)
    (snapshot.parents[1] / "refs" / "refs" / "pr").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "refs" / "pr" / "1").write_text(snapshot.name)
    for revision in ("main", "refs/pr/1", snapshot.name):
        assert resolve_weights(f"{HUB_ID}@{revision}") == snapshot
    with pytest.raises(
        ConfigError, match=r"^model.weights=someone/pixart@no is no folder.* --revision no --local"
    ):
        resolve_weights(f"{HUB_ID}@no")


def test_what_ships_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = resolve_weights("results/models/emoji64")
    assert (shipped / "transformer" / "config.json").is_file()
    (tmp_path / "results/models/emoji64").mkdir(parents=True)
    assert resolve_weights("results/models/emoji64") == Path(
        "results/models/emoji64"
    )  # what is here comes first
