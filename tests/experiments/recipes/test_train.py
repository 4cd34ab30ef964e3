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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.recipes.checkpoint import Progress
from experiments.recipes.choice import DataConfig
from experiments.recipes.config import Corpus, Pictures, TrainConfig
from experiments.recipes.folder import WEIGHTS_FILE
from experiments.recipes.network import NetworkConfig, RecipeConfig, StageConfig, build_network, learning_rate
from experiments.recipes.sampling import draw_noise, sample
from experiments.recipes.score import ScoreConfig, closeness, score
from experiments.recipes.train import draw_batch, train, train_on
from experiments.recipes.workers import Workers
from tests.experiments.recipes.fake_emoji import fake_package

NETWORK = NetworkConfig(layers=2, heads=2, head_dim=16, resolution=16, base_resolution=8, caption_channels=8)
BRIEF = [StageConfig(8, 2, 2)]
STATE = Path("checkpoint/state.safetensors")


def tiny(stages: list[StageConfig], workers: int = 1, **recipe: Any) -> TrainConfig:
    cfg = TrainConfig(network=NETWORK, recipe=RecipeConfig(stages=stages, warmup_steps=5, **recipe), seed=3)
    return replace(cfg, wandb_mode="disabled", sheet_samples=0, log_steps=5, workers=workers, threads=2)


def loss_rows(out: Path) -> list[list[float]]:
    lines = (out / "loss.csv").read_text().splitlines()[1:]
    return [[float(value) for value in line.split(",")] for line in lines]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def corpus() -> Corpus:
    """Four pictures of one colour each, four random texts and the empty one."""
    draw = torch.Generator().manual_seed(0)
    colours = torch.rand(4, 3, 1, 1, generator=draw) * 2 - 1
    prompts = {"train": [f"colour {k}" for k in range(4)], "held_out": [], "unseen": []}
    embeds = torch.randn(5, 3, 8, generator=draw)
    return Corpus(Pictures(colours.expand(4, 3, 16, 16).clone()), embeds, torch.ones(5, 3), prompts)


def test_a_stage_has_its_own_rate_and_noise_levels(corpus: Corpus, tmp_path: Path) -> None:
    stages = [StageConfig(8, 2, 20), StageConfig(8, 2, 20, rate=0.5, time_mean=4.0)]
    cfg = tiny(stages, decay=0.0)
    train_on(cfg, tmp_path, corpus)
    assert [row[4] for row in loss_rows(tmp_path)] == [1.0, 1.0, 0.5, 0.5]
    usual, noisy = (draw_batch(cfg, Progress(), stage, corpus)[2].mean() for stage in stages)
    assert usual < 0.8 < 0.95 < noisy


@pytest.mark.slow
def test_loss_falls_and_the_export_samples_in_plain_diffusers(corpus: Corpus, tmp_path: Path) -> None:
    stages = [StageConfig(8, 8, 320), StageConfig(16, 8, 800)]
    folder = train_on(tiny(stages, muon_lr=0.01, adam_lr=0.01, empty_prompts=0.0), tmp_path, corpus)
    rows = loss_rows(tmp_path)
    assert rows[-1][3] < 0.45 * rows[0][3]
    assert (folder / "loss.png").is_file()
    model = PixArtTransformer2DModel.from_pretrained(folder / "transformer", use_safetensors=True)
    scheduler = DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler")
    assert not [*tmp_path.rglob("*.bin"), *tmp_path.rglob("*.pt")]
    facts, prompts = (
        json.loads((folder / name).read_text()) for name in ("pipefusion_lab.json", "prompts.json")
    )
    assert (facts["resolution"], facts["training"]["samples"], prompts) == (16, 1120, corpus.prompts)
    pictures = corpus.samples.draw(torch.arange(4), stages[1], torch.Generator())
    for solver in (scheduler, FlowMatchEulerDiscreteScheduler()):
        made = sample(model, solver, draw_noise(4, (3, 16, 16), seed=5), corpus.embeds, corpus.mask, 20, 1.0)
        assert closeness(made, pictures / 2 + 0.5).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_resuming_gives_the_same_weights_to_the_bit(corpus: Corpus, tmp_path: Path) -> None:
    cfg = tiny([StageConfig(8, 3, 12), StageConfig(16, 3, 12)], workers=2)
    whole = train_on(cfg, tmp_path / "whole", corpus)
    for end in (2, 5):  # inside the first stage, then inside the second
        train_on(cfg, tmp_path / "parts", corpus, lambda at, end=end: at.step == end)
    parts = train_on(cfg, tmp_path / "parts", corpus)
    assert (whole / WEIGHTS_FILE).read_bytes() == (parts / WEIGHTS_FILE).read_bytes()
    assert same(*(load_file(tmp_path / name / STATE) for name in ("whole", "parts")))
    assert len(loss_rows(tmp_path / "whole")) == 1  # step 5


def test_a_checkpoint_of_another_network_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    cfg = tiny(BRIEF)
    other = replace(cfg, network=replace(NETWORK, layers=3))
    train_on(cfg, tmp_path / "mine", corpus)
    (tmp_path / "text/checkpoint").mkdir(parents=True)
    (tmp_path / "text" / STATE).write_bytes(b"not tensors")
    (tmp_path / "tensors/checkpoint").mkdir(parents=True)
    save_file({"model.x": torch.zeros(1)}, tmp_path / "tensors" / STATE)
    message = r"^measure.resume=true, and .* is no checkpoint .*; allowed: [^\n]*$"
    for name in ("mine", "tensors", "text"):
        with pytest.raises(ConfigError, match=message):
            train_on(other, tmp_path / name, corpus)
    train_on(replace(other, resume=False), tmp_path / "mine", corpus)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_a_model_folder(corpus: Corpus, tmp_path: Path) -> None:
    first = train_on(tiny([StageConfig(8, 2, 8)], muon_lr=0.01), tmp_path / "first", corpus)
    cfg = replace(tiny([StageConfig(8, 2, 2, rate=1e-9)]), start_from=str(first), seed=4)
    second = train_on(cfg, tmp_path / "second", corpus)
    third = train_on(replace(cfg, start_from=""), tmp_path / "third", corpus)
    states = [load_file(folder / WEIGHTS_FILE) for folder in (first, second, third)]
    assert same(states[0], states[1]) and not same(states[0], states[2])
    assert f"on from `{first}`, 2 pictures in 1 steps" in (second / "README.md").read_text()


def test_the_number_of_workers_changes_only_rounding(corpus: Corpus, tmp_path: Path) -> None:
    cfg = replace(tiny([StageConfig(8, 5, 15)]), dtype="float32")
    for workers in (1, 2):
        train_on(replace(cfg, workers=workers), tmp_path / str(workers), corpus)
    one, two = (load_file(tmp_path / workers / STATE) for workers in "12")
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=1e-2, atol=2e-3, msg=key)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch.set_flush_denormal needs x86-64")
@pytest.mark.parametrize("count", [1, 3])
def test_the_smallest_numbers_are_zero_in_every_worker(count: int) -> None:
    """Peaked attention is full of them, and a CPU takes many times longer for each."""
    smallest = torch.full((8,), 1e-40)
    kept: list[int] = []

    def product(model: nn.Module, x: Tensor) -> Tensor:
        kept.append(int((x * 0.5).count_nonzero()))
        return model(x[:, None])[:, 0]

    Workers(count).gradients(product, nn.Linear(1, 1), (smallest,))
    assert kept == [0] * count
    assert (smallest * 0.5).count_nonzero() == 8  # elsewhere nothing is flushed


@pytest.mark.parametrize(("asked", "compiled"), [(None, 0), (False, 0), (True, NETWORK.layers)])
@pytest.mark.fast_cases(1)
def test_blocks_are_compiled_where_asked_and_by_default_not_on_a_cpu(
    asked: bool | None, compiled: int, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, **options: calls.append(block))
    train_on(replace(tiny(BRIEF), compile=asked, device="cpu"), tmp_path, corpus)
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
    steps = [Progress(stage_step=step) for step in range(4)]
    seen = torch.cat([draw_batch(cfg, at, cfg.recipe.stages[0], corpus)[0][:, :, 0, 0] for at in steps])
    assert [len(part.unique(dim=0)) for part in seen.split(4)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("progress", "step", "factor"), [(0.0, 0, 0.1), (0.6, 100, 1.0), (0.8, 100, 0.5), (1.0, 100, 0.0)]
)
def test_learning_rate(progress: float, step: int, factor: float) -> None:
    cfg = RecipeConfig(warmup_steps=10, decay=0.4, final_lr=0.0)
    assert learning_rate(progress, step, cfg) == pytest.approx(factor)


@pytest.mark.slow
def test_training_and_scoring_from_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_package(tmp_path / "data", 8)
    data = DataConfig(data_dir=str(tmp_path / "data"), concepts=6, unseen=2, categories=["Objects"])
    run, out, folder = tmp_path / "run", tmp_path / "score", tmp_path / "run/model"
    cfg = replace(tiny([StageConfig(8, 2, 4)]), data=data, network=replace(NETWORK, caption_channels=384))
    cfg = replace(cfg, sheet_samples=2, sheet_prompts=3)
    asked = ScoreConfig(weights=str(folder), data_dir=data.data_dir, steps=2, guidance_scale=1.5)

    def card() -> str:
        return (folder / "README.md").read_text()

    def scored(**change: Any) -> dict[str, Any]:
        assert score(RunConfig(measure=replace(asked, **change)), out) == "ok"
        return json.loads((out / "score.json").read_text())

    assert train(RunConfig(measure=cfg), run) == "ok"
    assert str(folder) in capsys.readouterr().out
    assert [path.name for path in sorted((run / "sheets").iterdir())] == [
        "samples_0000002.png", "samples_0000004.png"
    ]  # fmt: skip
    found = scored()
    assert (found["train"]["prompts"], found["unseen"]["prompts"], found["held_out"]) == (6, 2, "none")
    assert "Not scored yet" in card()
    (out / "mine.png").touch()
    assert scored(limit=3, publish=True)["train"]["prompts"] == 3
    assert "training, 3" in card()
    assert (folder / "sheet.png").is_file() and not (folder / "mine.png").exists()
    assert json.loads((folder / "pipefusion_lab.json").read_text())["guidance_scale"] == 1.5
    with pytest.raises(FileNotFoundError):
        scored(weights=str(tmp_path / "nothing"))
    assert train(RunConfig(measure=replace(cfg, export_only=True)), run) == "ok"
    assert "Not scored yet" in card() and not (folder / "score.json").exists()
