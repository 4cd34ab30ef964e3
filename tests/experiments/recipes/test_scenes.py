"""Scenes: motions do what their names say, held-out pairs are in no scene, and the video recipe trains and exports."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from experiments.clips import unpack
from experiments.config import RunConfig
from experiments.emoji import PackageConfig
from experiments.errors import ConfigError
from experiments.models.stock_model import load_stock
from experiments.recipes.choice import DataConfig
from experiments.recipes.clip_score import shares
from experiments.recipes.config import TrainConfig
from experiments.recipes.muon import Muon, orthogonalised
from experiments.recipes.network import NetworkConfig, RecipeConfig, StageConfig, build_network
from experiments.recipes.scenes import (
    MOTIONS,
    Actor,
    ScenesConfig,
    build_scenes,
    caption,
    check_scenes,
    lanes,
    list_scenes,
)
from experiments.recipes.score import ScoreConfig, check_score, score
from experiments.recipes.train import check_train, train
from tests.experiments.recipes.fake_emoji import fake_package

NETWORK = NetworkConfig(
    layers=2, heads=2, head_dim=12, resolution=16, caption_channels=8, frames=4, frame_factor=2
)
CONFIG = ScenesConfig(sprites=[f"thing {k}" for k in range(8)], pairs=6, jitter=0.0)
NAMES = [*MOTIONS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    fake_package(folder, 8)
    return str(folder)


def drawn(data: str, *motions: str, resolution: int = 16) -> Tensor:
    """How much darker than white each pixel is, [motions, F, h, w], of sprite 1."""
    actors = [(Actor(1, NAMES.index(motion)),) for motion in motions]
    scenes = build_scenes(actors, CONFIG, NETWORK, PackageConfig(), data)
    whole = StageConfig(resolution, len(motions), 1)
    latents = scenes.draw(torch.arange(len(motions)), whole, torch.Generator().manual_seed(0))
    return 1 - (unpack(latents, 2).mean(1) + 1) / 2


def test_motions_do_what_their_names_say(data: str) -> None:
    dark = drawn(data, *NAMES)
    weight = dark.sum((2, 3))
    steps = torch.arange(16.0)
    column = (dark.sum(2) * steps).sum(2) / weight
    row = (dark.sum(3) * steps).sum(2) / weight
    ends = {
        name: [float((value[k, -1] - value[k, 0]).round(decimals=2)) for value in (column, row, weight)]
        for k, name in enumerate(NAMES)
    }
    assert ends["stands still"] == [0, 0, 0] == ends["turns"]
    assert ends["moves right"][0] == -ends["moves left"][0] == pytest.approx(8, abs=0.1)
    assert ends["falls"][1] == -ends["rises"][1] == pytest.approx(8, abs=0.1)
    assert ends["grows"][2] == -ends["shrinks"][2] > 5
    still, turning = (dark[NAMES.index(name)] for name in ("stands still", "turns"))
    assert torch.equal(still[0], still[-1])
    assert not torch.allclose(turning[0], turning[1], atol=0.05)


def test_a_stage_of_few_frames_sees_a_window(data: str) -> None:
    scenes = build_scenes([(Actor(0, 0),)], CONFIG, NETWORK, PackageConfig(), data)
    latents = scenes.draw(torch.zeros(3, dtype=torch.long), StageConfig(8, 3, 1, frames=1), torch.Generator())
    assert latents.shape == (3, 6, 1, 8, 8)


def test_what_is_held_out_is_in_no_scene() -> None:
    roles = list_scenes(CONFIG)
    learnt = {actor for scene in roles["train"] for actor in scene}
    held_out = {actor for (actor,) in roles["held_out"]}
    assert len(held_out) == len(CONFIG.sprites) and not held_out & learnt
    assert {actor.sprite for actor in held_out} == {actor.sprite for actor in learnt}
    assert sum(len(scene) == 2 for scene in roles["train"]) == CONFIG.pairs


def test_two_sprites_have_a_lane_each() -> None:
    falls, left, grows = (
        Actor(k, NAMES.index(name)) for k, name in enumerate(("falls", "moves left", "grows"))
    )
    assert lanes((falls, left), CONFIG) is None
    beside, above = lanes((falls, grows), CONFIG), lanes((left, grows), CONFIG)
    assert beside is not None and beside[:, 1].tolist() == [0, 0] and beside[0, 0] < beside[1, 0]
    assert above is not None and above[:, 0].tolist() == [0, 0] and above[0, 1] < above[1, 1]
    assert caption((falls, grows), CONFIG) == "a thing 0 falls, a thing 2 grows"


@pytest.mark.parametrize(
    ("change", "network", "message"),
    [
        (
            {"sprites": ["nothing"]},
            NETWORK,
            "measure.scenes.sprites.0='nothing' is unknown; allowed: names in",
        ),
        ({"motions": ["hops"]}, NETWORK, "measure.scenes.motions.0='hops' is unknown; allowed: moves left, "),
        ({}, replace(NETWORK, frames=5), "measure.network.frames=5 is not a multiple of frame_factor=2"),
    ],
)
def test_scenes_that_cannot_be_drawn_are_refused(
    change: dict[str, list[str]], network: NetworkConfig, message: str, data: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        check_scenes(replace(CONFIG, **change), network, PackageConfig(), data)


@pytest.mark.slow
def test_the_video_recipe_trains_exports_a_stock_model_and_is_scored(data: str, tmp_path: Path) -> None:
    stages = [StageConfig(16, 4, 8, frames=1), StageConfig(16, 2, 4)]
    cfg = TrainConfig(
        recipe=RecipeConfig(stages=stages), scenes=CONFIG, dtype="float32", wandb_mode="disabled"
    )
    cfg = replace(cfg, network=replace(NETWORK, caption_channels=384), data=DataConfig(data_dir=data))
    cfg = replace(cfg, sheet_samples=12, sheet_prompts=1)
    run, out, folder = tmp_path / "run", tmp_path / "score", tmp_path / "run/model"
    check_train(RunConfig(measure=cfg))
    assert train(RunConfig(measure=cfg), run) == "ok"
    assert (run / "sheets/samples_0000012.png").is_file()
    assert type(load_stock(folder / "transformer", torch.float32)).__name__ == "WanTransformer3DModel"
    assert "clips of 4 pictures of 16 x 16 px" in (folder / "README.md").read_text()
    asked = ScoreConfig(weights=str(folder), data_dir=data, steps=1, limit=2, sheet_prompts=1, publish=True)
    check_score(RunConfig(measure=asked))
    assert score(RunConfig(measure=asked), out) == "ok"
    found = json.loads((folder / "score.json").read_text())
    assert (found["train"]["clips"], found["held_out"]["clips"], found["among"]) == (2, 2, 64)
    assert "held-out pairs | 2" in (folder / "README.md").read_text()
    assert (folder / "held_out.png").is_file()


def test_a_score_counts_sprite_motion_and_both() -> None:
    asked = [Actor(0, 0), Actor(1, 1), Actor(2, 2), Actor(3, 3)]
    found = [Actor(0, 0), Actor(1, 2), Actor(0, 2), Actor(3, 3)]
    assert shares(asked, found) == {"sprite": 0.75, "motion": 0.75, "both": 0.5}


def test_the_training_attention_of_clips_is_the_stock_one() -> None:
    model = build_network(NETWORK, 0)
    for block in model.blocks:
        torch.nn.init.normal_(block.attn2.to_out[0].weight, std=0.1)
    torch.nn.init.normal_(model.proj_out.weight, std=0.1)
    draw = torch.Generator().manual_seed(1)
    inputs = [
        torch.randn(2, 6, 2, 16, 16, generator=draw),
        torch.tensor([300.0, 700.0]),
        torch.randn(2, 5, 8, generator=draw),
    ]
    stock = type(model).from_config(model.config)
    stock.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs).sample, stock(*inputs).sample, rtol=1e-4, atol=1e-5)


def test_muon_is_the_one_of_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    matrices = [torch.randn(*shape, generator=draw) for shape in ((6, 8), (8, 6), (6, 8))]
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices] for _ in range(2))
    mine = Muon(ours, 0.01, 5, torch.bfloat16)
    stock = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
        mine.step()
        stock.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(2, 6, 8, generator=draw), 5, torch.float32))
    assert bool(((values > 0.5) & (values < 1.5)).all())
