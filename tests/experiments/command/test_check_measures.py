"""Every measure refuses what it cannot run before it writes anything; what is committed passes."""

from __future__ import annotations

import shutil
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.command import cli
from experiments.command.compose import plan
from experiments.command.measures import MEASURES, load
from experiments.errors import ConfigError, config_names
from experiments.recipes.scenes import SPRITES
from experiments.study import Study
from tests.experiments.commands import complaint
from tests.experiments.recipes.fake_emoji import entry, fake_package

# fmt: off
BAD = [
    ("bench_cpu", "model.resolution=7", "model.resolution=7 is not a multiple of"),
    ("bench_cpu", "model=dit_tiny", "model=DiTTransformer2DModel has no text; allowed: a model that is prompted"),
    ("bench_cpu", "measure.cases=[{method: diffusers_ulysses}]", "measure.cases.0.method=diffusers_ulysses is not"),
    ("bench_cpu", "measure.cases=[{method: serial, model: flax}]", "measure.cases.0.model='flax' is unknown"),
    ("bench_cpu", "measure.cases=[{method: serial}, {method: serial}]", "measure.cases.0='serial S=20' is there twice"),
    ("bench_cpu", "measure.cases=[{method: diffusers, parallel: {cfg: 2}}]", "measure.cases.0.method=diffusers takes"),
    ("bench_cpu", "measure.headline=ring", "measure.headline='ring' is no case; allowed: serial S=50, pipefusion M=4"),
    ("bench_cpu", "measure.cases=[{method: rng, steps: 4}]", "measure.cases.0.method='rng' is unknown, nearest: ring"),
    ("bench_cpu", "measure.cases=[{method: ring, steps: 4}]", "measure.cases.0.steps=4 has no serial case"),
    ("bench_cpu", "measure.cases=[{method: pipefusion, patches: 99}]", "measure.cases.0: method.patches=99 is outside"),
    ("bench_cpu", "measure.cases=[{method: ring, patches: 4}]", "measure.cases.0.patches=4 is nothing that ring has"),
    ("fit", "measure.devices=[t5]", "measure.devices='t5' is unknown, nearest: t4; allowed: a100, cpu"),
    ("fit", "measure.devices=[h200]", "measure.devices=h200 has no published row of one GPU with pixart_alpha"),
    ("fit", "measure.devices=[]", "measure.devices=[] leaves nothing to fit"),
    ("fit", "measure.borrow=[h300]", "measure.borrow='h300' is unknown, nearest: h200; allowed:"),
    ("fit", "measure.terms=[{name: x}]", "measure.terms.0.key=??? has to be given"),
    ("predict_published", "measure.only=nothing", "measure.only='nothing' begins no row that is predicted"),
    ("text_variants", "measure.models=[sd4]", "measure.models='sd4' is unknown"),
    ("fit", "measure.terms=[{name: pcie4, key: efficiency, row: 'latency.csv:80', place: port, low: 0, high: 1}]",
     "measure.terms.0.low=0.0 is too small; allowed: above 0"),
    ("text_variants", "measure.counted=[sd3_medum]", "measure.counted='sd3_medum' is unknown, nearest: sd3_medium"),
    ("worlds", "measure.methods=[ring,rng]", "measure.methods='rng' is unknown, nearest: ring"),
    ("worlds", "measure.plan=local", "measure.plan=local has no costs; allowed: a cluster of named hardware"),
    ("calibrate", "measure.heads=7", "measure.hidden=512 is not a multiple of measure.heads=7"),
    ("gpu_check", "measure.only=nothing", "measure.only='nothing' is in no check; allowed: part of a name"),
    ("gpu_check", "devices=1", "devices=1 leaves no ranks to check; allowed: 2 or more"),
    ("gpu_check", "cluster.device=gpu", "cluster.device='gpu' is unknown"),
    ("accounting", "measure.crosses=[hole]", "measure.crosses='hole' is unknown, nearest: whole"),
    ("train_emoji", "measure.dtype=float61", "measure.dtype='float61' is unknown, nearest: bfloat16; allowed:"),
    ("train_emoji", "measure.recipe.stages=[{resolution: 30}]", "measure.recipe.stages.0.resolution=30 is not a mult"),
    ("train_emoji", "measure.data.concepts=9", "measure.data.concepts=11 with those that stay unseen, and there"),
    ("train_emoji", "measure.data.held_out_pairs=1", "measure.data.held_out_pairs=1 needs two styles"),
    ("train_emoji", "measure.start_from=/nowhere", "measure.start_from=/nowhere has no transformer/"),
    ("train_scorer", "measure.folder=conf", "measure.folder=conf holds cluster, which would be lost; allowed: a new"),
    ("train_scorer", "measure.folder=run.py", "measure.folder=run.py is a file; allowed: a folder"),
    ("loading", "measure.folder=conf", "measure.folder=conf holds cluster, which would be lost; allowed: a new"),
    ("accounting", "measure.models=[flux_deev]", "measure.models='flux_deev' is unknown, nearest: flux_dev"),
    ("accounting", "measure.dtype=int8", "measure.dtype='int8' is unknown"),
    ("accounting", "cluster=local", "cluster=local runs on real tensors"),
    ("params_per_device", "measure.literal.devices=17", "measure.literal.devices=17 is not measured; allowed: 1, 2"),
    ("params_per_device", "measure.literal.model=emoji", "measure.literal.model=emoji is not measured; allowed: "),
    ("scaling", "measure.clusters=[local]", "measure.clusters=local has no costs"),
    ("scaling", "measure.warmups=[x]", "measure.warmups='x' is no number"),
    ("staleness", "measure.pictures=999", "measure.pictures=999 pictures, and there are "),
    ("staleness", "measure.swept=[tensor]", "measure.swept='tensor' is unknown"),
    ("staleness", "measure.probe.models=[nope]", "measure.probe.models='nope' is unknown"),
    ("staleness", "measure.schedulers=[ddim,shipped]", "measure.schedulers=['ddim', 'shipped'] are several"),
    ("staleness", "steps=1", "steps=1 leaves no step with an age; allowed: 2 or more"),
    ("staleness", "model.dtype=bfloat16", "model.dtype=bfloat16 has errors of its own; allowed: float32"),
    ("loading", "measure.methods=[pipefuson]", "measure.methods='pipefuson' is unknown, nearest: pipefusion; allowed:"),
    ("loading", "measure.stored=float23", "measure.stored='float23' is unknown, nearest: float32; allowed: float32,"),
    ("loading", "model.weights=/nowhere/model", "model.weights=/nowhere/model does not exist; allowed:"),
    ("score_emoji", "measure.weights=/nowhere", "measure.weights=/nowhere has no pipefusion_lab.json"),
    ("score_emoji", "measure.scheduler=Euler", "measure.scheduler='Euler' is no scheduler of diffusers"),
]
# fmt: on
NEED_INPUT = {"conformance", "quality_coco", "gpu_check"}
"""Experiments on something that only the user has: files, a GPU."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for ten pictures of things, eight of them learnt, beside those that the video model learns."""
    root = tmp_path_factory.mktemp("packages")
    fake_package(root, 10, more=[entry(k, "Sprites", name=name) for k, name in enumerate(SPRITES, start=100)])
    data = {"data_dir": root, "categories": "[Objects]", "concepts": 8, "unseen": 2}
    return [f"measure.data.{key}={value}" for key, value in data.items()]


def test_every_measure_is_checked() -> None:
    """The rows name what is there."""
    for row in MEASURES.values():
        assert is_dataclass(load(row.config))
        assert (
            isinstance(load(row.study), Study)
            if row.study
            else callable(load(row.run)) and callable(load(row.check))
        )


@pytest.mark.parametrize(("experiment", "override", "expected"), BAD, ids=[f"{e} {o}" for e, o, _ in BAD])
@pytest.mark.fast_cases(8)
def test_one_line_says_what_is_wrong(
    experiment: str, override: str, expected: str, tmp_path: Path, packages: list[str]
) -> None:
    overrides = [f"experiment={experiment}", override, f"hydra.run.dir={tmp_path}/run"]
    if experiment == "train_emoji":
        overrides = [*overrides[:1], *packages, *overrides[1:]]
    text = complaint(overrides)
    assert text.startswith(expected)
    assert "allowed: " in text
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_weights_of_the_same_network(tmp_path: Path, packages: list[str]) -> None:
    def check(folder: Path) -> None:
        cli.check(plan(["experiment=train_emoji", *packages, f"measure.start_from={folder}"]), [])

    shipped = Path("results/models/emoji64")
    check(shipped)
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    weights = folder / "transformer/diffusion_pytorch_model.safetensors"
    shutil.copy(shipped / "prompts.json", folder)
    weights.write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"^measure.start_from=.*cannot be read.*allowed: whole"):
        check(folder)
    save_file({"pos_embed.proj.bias": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match=r"^measure.start_from=.* is another network than measure.network"):
        check(folder)


@pytest.mark.parametrize(
    "experiment", [name for name in config_names("experiment") if name not in NEED_INPUT]
)
@pytest.mark.fast_cases(2)
def test_committed_experiments_pass(experiment: str, packages: list[str]) -> None:
    ours = ["measure.data.packages=[{}]", "measure.data.held_out_pairs=0", *packages]
    overrides = [f"experiment={experiment}", *(ours if experiment.startswith("train_emoji") else [])]
    cli.check(plan(overrides), overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=staleness", "measure.swept=[]"],
        ["experiment=staleness", "measure.warmups=[]"],
        ["experiment=fit", "measure.devices=[]", "measure.borrow=[]"],
        ["experiment=text_variants", "measure.counted=[]"],
    ],
    ids=" ".join,
)
@pytest.mark.fast_cases(2)
def test_a_part_of_a_measure_may_be_left_out(overrides: list[str]) -> None:
    cli.check(plan(overrides), overrides)
