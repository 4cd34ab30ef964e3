"""The recipe on a tiny model and made-up pictures: it learns, resumes exactly, exports, and scores as it should."""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.training.checkpoint import Progress
from experiments.training.data import DataConfig, resize
from experiments.training.export import WEIGHTS_FILE
from experiments.training.loop import Corpus, TrainConfig, draw_batch, train, train_on
from experiments.training.recipe import NetworkConfig, RecipeConfig, StageConfig, build_network, learning_rate
from experiments.training.sampling import draw_noise, sample
from experiments.training.score import ScoreConfig, closeness, score
from experiments.training.workers import Workers
from tests.experiments.training.fake_emoji import fake_package

NETWORK = NetworkConfig(layers=2, heads=2, head_dim=16, resolution=16, base_resolution=8, caption_channels=8)


def tiny(stages: list[StageConfig], workers: int = 1, **recipe: Any) -> TrainConfig:
    return TrainConfig(
        network=NETWORK,
        recipe=RecipeConfig(stages=stages, warmup_steps=5, **recipe),
        wandb_mode="disabled",
        sheet_samples=0,
        log_steps=5,
        workers=workers,
        threads=2,
        seed=3,
    )


def test_a_stage_has_its_own_rate_and_noise_levels(corpus: Corpus, tmp_path: Path) -> None:
    stages = [StageConfig(8, 2, 20), StageConfig(8, 2, 20, rate=0.5, time_mean=4.0)]
    cfg = tiny(stages, decay=0.0)
    train_on(cfg, tmp_path, corpus)
    rows = [line.split(",") for line in (tmp_path / "loss.csv").read_text().splitlines()[1:]]
    assert [float(row[4]) for row in rows] == [1.0, 1.0, 0.5, 0.5]
    usual, noisy = (draw_batch(cfg, Progress(), stage, corpus.pictures, corpus)[2].mean() for stage in stages)
    assert usual < 0.8 < 0.95 < noisy


@pytest.fixture
def corpus() -> Corpus:
    """Four pictures of one colour each, four random texts and the empty one."""
    draw = torch.Generator().manual_seed(0)
    colours = torch.rand(4, 3, 1, 1, generator=draw) * 2 - 1
    prompts = {"train": [f"colour {k}" for k in range(4)], "held_out": [], "unseen": []}
    return Corpus(
        colours.expand(4, 3, 16, 16).clone(), torch.randn(5, 3, 8, generator=draw), torch.ones(5, 3), prompts
    )


def test_loss_falls_and_the_export_samples_in_plain_diffusers(corpus: Corpus, tmp_path: Path) -> None:
    cfg = tiny(
        [StageConfig(8, 8, 320), StageConfig(16, 8, 800)], muon_lr=0.01, adam_lr=0.01, empty_prompts=0.0
    )
    folder = train_on(cfg, tmp_path, corpus)
    rows = [line.split(",") for line in (tmp_path / "loss.csv").read_text().splitlines()[1:]]
    assert float(rows[-1][3]) < 0.45 * float(rows[0][3])
    assert (tmp_path / "loss.png").is_file()
    model = PixArtTransformer2DModel.from_pretrained(folder / "transformer", use_safetensors=True)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler")
    assert not list(tmp_path.rglob("*.bin"))
    assert not list(tmp_path.rglob("*.pt"))
    noise = draw_noise(4, 16, seed=5)
    for solver in (scheduler, FlowMatchEulerDiscreteScheduler()):
        made = sample(
            model,
            solver,
            noise,
            corpus.embeds[:4],
            corpus.mask[:4],
            corpus.embeds[4:],
            corpus.mask[4:],
            20,
            1.0,
        )
        near = closeness(made, corpus.pictures / 2 + 0.5)
        assert near.argmax(1).tolist() == [0, 1, 2, 3]


def test_resuming_gives_the_same_weights_to_the_bit(corpus: Corpus, tmp_path: Path) -> None:
    cfg = tiny([StageConfig(8, 3, 12), StageConfig(16, 3, 12)], workers=2)
    whole = train_on(cfg, tmp_path / "whole", corpus)
    for end in (2, 5):  # inside the first stage, then inside the second

        def stop(at: Progress, end: int = end) -> bool:
            return at.step == end

        train_on(cfg, tmp_path / "parts", corpus, stop)
    parts = train_on(cfg, tmp_path / "parts", corpus)
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (whole / file).read_bytes() == (parts / file).read_bytes()
    states = [load_file(tmp_path / name / "checkpoint" / "state.safetensors") for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert (tmp_path / "whole/loss.csv").read_text().count("\n") == 2  # header and step 5


def test_a_run_begins_with_the_weights_of_a_model_folder(corpus: Corpus, tmp_path: Path) -> None:
    first = train_on(tiny([StageConfig(8, 2, 8)], muon_lr=0.01), tmp_path / "first", corpus)
    cfg = replace(tiny([StageConfig(8, 2, 2, rate=1e-9)]), start_from=str(first), seed=4)
    second = train_on(cfg, tmp_path / "second", corpus)
    before, after = (load_file(folder / "transformer" / WEIGHTS_FILE) for folder in (first, second))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert f"on from `{first}`, 2 pictures in 1 steps" in (second / "README.md").read_text()
    other = train_on(replace(cfg, start_from=""), tmp_path / "third", corpus)
    weights = load_file(other / "transformer" / WEIGHTS_FILE)
    assert not all(torch.equal(before[name], weights[name]) for name in before)


def test_the_number_of_workers_changes_only_rounding(corpus: Corpus, tmp_path: Path) -> None:
    cfg = replace(tiny([StageConfig(8, 5, 15)]), dtype="float32")
    states = []
    for workers in (1, 2):
        train_on(replace(cfg, workers=workers), tmp_path / str(workers), corpus)
        states.append(load_file(tmp_path / str(workers) / "checkpoint" / "state.safetensors"))
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-2, atol=2e-3, msg=key)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch.set_flush_denormal needs x86-64")
def test_the_smallest_numbers_are_zero_in_every_worker() -> None:
    """Peaked attention is full of them, and a CPU takes many times longer for each."""
    smallest = torch.full((8,), 1e-40)

    def product(model: nn.Module, x: Tensor) -> Tensor:
        kept.append((x * 0.5).count_nonzero())
        return model(x[:, None])[:, 0]

    for count in (1, 3):
        kept: list[Tensor] = []
        Workers(count).gradients(product, nn.Linear(1, 1), (smallest,))
        assert [int(k) for k in kept] == [0] * count
    assert (smallest * 0.5).count_nonzero() == 8  # elsewhere nothing is flushed


@pytest.mark.parametrize(("asked", "compiled"), [(None, 0), (False, 0), (True, NETWORK.layers)])
def test_blocks_are_compiled_where_asked_and_by_default_not_on_a_cpu(
    asked: bool | None, compiled: int, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, **options: calls.append(block))
    train_on(replace(tiny([StageConfig(8, 2, 2)]), compile=asked, device="cpu"), tmp_path, corpus)
    assert len(set(calls)) == compiled


def test_the_training_attention_is_the_stock_one() -> None:
    model = build_network(NETWORK, 0)
    for block in model.transformer_blocks:  # silent at the start, which would hide a wrong cross-attention
        torch.nn.init.normal_(block.attn2.to_out[0].weight, std=0.1)
    torch.nn.init.normal_(model.proj_out.weight, std=0.1)
    draw = torch.Generator().manual_seed(1)
    inputs = {
        "hidden_states": torch.randn(2, 3, 16, 16, generator=draw),
        "encoder_hidden_states": torch.randn(2, 5, 8, generator=draw),
        "encoder_attention_mask": torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "timestep": torch.tensor([300.0, 700.0]),
    }
    with torch.no_grad():
        ours = model(**inputs).sample
        model.set_attn_processor(AttnProcessor2_0())
        torch.testing.assert_close(ours, model(**inputs).sample, rtol=1e-4, atol=1e-5)


def test_batches_come_in_whole_rounds(corpus: Corpus) -> None:
    cfg = tiny([StageConfig(8, 3, 12)])
    pictures = resize(corpus.pictures, 8)
    colours = [
        draw_batch(cfg, Progress(stage_step=step), cfg.recipe.stages[0], pictures, corpus)[0][:, :, 0, 0]
        for step in range(4)
    ]
    seen = torch.cat(colours)
    for part in seen.split(4):
        assert len(part.unique(dim=0)) == 4


def test_learning_rate() -> None:
    cfg = RecipeConfig(warmup_steps=10, decay=0.4, final_lr=0.0)
    assert learning_rate(0.0, 0, cfg) == pytest.approx(0.1)
    assert learning_rate(0.6, 100, cfg) == 1.0
    assert learning_rate(0.8, 100, cfg) == pytest.approx(0.5)
    assert learning_rate(1.0, 100, cfg) == pytest.approx(0.0)


def test_exported_facts(corpus: Corpus, tmp_path: Path) -> None:
    folder = train_on(tiny([StageConfig(8, 2, 4)]), tmp_path, corpus)
    facts = json.loads((folder / "pipefusion_lab.json").read_text())
    assert facts["resolution"] == 16
    assert facts["training"]["samples"] == 4
    assert json.loads((folder / "prompts.json").read_text())["train"] == corpus.prompts["train"]


def test_training_and_scoring_from_a_package(tmp_path: Path) -> None:
    fake_package(tmp_path / "data", 8)
    data = DataConfig(data_dir=str(tmp_path / "data"), concepts=6, unseen=2, categories=["Objects"])
    cfg = replace(tiny([StageConfig(8, 2, 4)]), data=data, network=replace(NETWORK, caption_channels=384))
    folder = train(cfg, tmp_path / "run")
    asked = ScoreConfig(weights=str(folder), data_dir=data.data_dir, steps=2, guidance_scale=1.5)
    before = score(asked, tmp_path / "score")
    assert before["train"]["prompts"] == 6
    assert before["unseen"]["prompts"] == 2
    assert before["held_out"] == "none"
    assert json.loads((tmp_path / "score/score.json").read_text()) == before
    assert "Not scored yet" in (folder / "README.md").read_text()
    (tmp_path / "score" / "mine.png").touch()
    publish = replace(asked, limit=3, publish=True)
    assert score(publish, tmp_path / "score")["train"]["prompts"] == 3
    assert "training, 3" in (folder / "README.md").read_text()
    assert (folder / "sheet.png").is_file() and not (folder / "mine.png").exists()
    assert json.loads((folder / "pipefusion_lab.json").read_text())["guidance_scale"] == 1.5
    missing = replace(publish, weights=str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        score(missing, tmp_path / "score")
    assert train(replace(cfg, export_only=True), tmp_path / "run") == folder
    assert "Not scored yet" in (folder / "README.md").read_text() and not (folder / "score.json").exists()
