"""Wrong configurations: one line with the key, what is allowed and the nearest valid name; nothing written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from experiments.command import cli
from experiments.command.check import check_torchrun
from experiments.command.compose import plan
from experiments.command.measures import MEASURES, load
from experiments.config import from_hydra
from experiments.errors import ConfigError
from experiments.methods import METHODS
from experiments.runs.check import check_gpus
from tests.experiments.commands import complaint, composed, planned

TINY = "model=pixart_tiny"
# Of the numbers outside their domains a few: test_domains.py has every key.
# fmt: off
BAD = [
    (["method=pipefuson"], f"method=pipefuson is unknown, nearest: pipefusion; allowed: {', '.join(sorted(METHODS))}"),
    (["model=pixart_tinny"], "model=pixart_tinny is unknown, nearest: pixart_tiny; allowed:"),
    (["experiment=quickstrt"], "experiment=quickstrt is unknown, nearest: quickstart; allowed:"),
    (["cluster=locl"], "cluster=locl is unknown, nearest: local; allowed: a100_nvlink,"),
    (["measure=latncy"], "measure=latncy is unknown, nearest: latency; allowed:"),
    (["stepz=3"], "stepz=3 is for an unknown key, nearest: steps; allowed:"),
    (["modle=pixart_tiny"], "modle=pixart_tiny is for an unknown key, nearest: model; allowed:"),
    (["method.patchez=3"], "method.patchez=3 is for an unknown key, nearest: patches; allowed:"),
    (["method=serial", "method.patches=3"], "method.patches=3 is for an unknown key"),
    (["hydra.foo=3"], "hydra.foo=3 is for an unknown key"),
    (["+extra=1"], "'+extra=1' adds or removes a key; allowed:"),
    (["~method"], "'~method' adds or removes a key; allowed:"),
    (["steps"], "'steps' is not understood"),
    (["steps=[1,2"], "'steps=[1,2' is not understood"),
    (["devices=1,2"], "devices=1,2 is several values; allowed: one, or a sweep with -m"),
    (["devices=abc"], "devices=abc is of the wrong type; allowed: whole numbers, 1..4096"),
    (["steps=1.5"], "steps=1.5 is of the wrong type; allowed: whole numbers, 1..10000"),
    (["steps=null"], "steps=null is of the wrong type; allowed: whole numbers, 1..10000"),
    ([TINY, "devices=0"], "devices=0 is too small; allowed: 1.."),
    ([TINY, "devices=5"], "devices=5 is outside 1..4 (4: the model's layers); allowed: 1..4"),
    ([TINY, "method=tensor", "devices=3"], "devices=3 does not divide the 4 attention heads; allowed: 1, 2, 4"),
    (
        [TINY, "method=ulysses", "devices=3"],
        "devices=3 does not divide the 4 attention heads; allowed: 1, 2, 4, or any with method.heads=pad",
    ),
    (
        [TINY, "devices=6", "parallel.ulysses=3"],
        "parallel.ulysses=3 does not divide the 4 attention heads; allowed: 1, 2, 4, or any with method.heads=pad",
    ),
    ([TINY, "method=ulysses", "devices=3", "method.heads=pad"], "devices=3 does not divide the 8 token rows"),
    ([TINY, "method=tensor", "devices=3", "method.heads=pad"], "devices=3 does not divide the 4 attention heads"),
    ([TINY, "method=serial", "method.heads=padded"], "method.heads='padded' is unknown, nearest: pad; allowed: even"),
    ([TINY, "method=ring", "devices=3"], "devices=3 does not divide the 8 token rows; allowed: 1, 2, 4, 8"),
    ([TINY, "method.order=rotated"], "method.order='rotated' is unknown; allowed: plain, rotational"),
    ([TINY, "method.order=rotational", "method.warmup=0"], "method.warmup=0 is outside 1..20 (20: the steps)"),
    ([TINY, "method.forecast=taylor2"], "method.forecast=taylor2 needs method.order=rotational; allowed: last"),
    (["model=hunyuan_tiny", "method.order=rotational"], "method.order=rotational forecasts the input of a stage"),
    (
        ["model=sd3_tiny", "method.order=rotational", "method.text=first_patch"],
        "method.text=first_patch needs method.order=plain, patch 0 first; allowed: exact",
    ),
    ([TINY, "method.patches=9"], "method.patches=9 is outside 1..8 (8: the token rows); allowed: 1..8"),
    ([TINY, "steps=4", "method.warmup=5"], "method.warmup=5 is outside 0..4 (4: the steps); allowed: 0..4"),
    ([TINY, "method.split=evn"], "method.split='evn' is unknown, nearest: even; allowed: ceil, even, cost"),
    ([TINY, "method.name=ring"], "method.name=ring is set by its group; allowed: method=NAME instead"),
    ([TINY, "seed=-1"], "seed=-1 is too small; allowed: whole numbers, 0.."),
    ([TINY, "seed=[1,-2]"], "seed.1=-2 is too small"),
    ([TINY, "seed=true"], "seed=True is no whole number"),
    ([TINY, "seed=abc"], "seed=abc is no whole number; allowed: 0 or more, or a list of them"),
    ([TINY, "seed=[1,2]"], "seed=[1, 2] has 2 seeds for 1 pictures; allowed: one seed, or a list of 1"),
    ([TINY, "prompt_file=nowhere.txt"], "prompt_file=nowhere.txt cannot be read"),
    ([TINY, "prompt_file=baselines/__init__.pyc"], "prompt_file=baselines/__init__.pyc cannot be read"),
    ([TINY, "method.split=[1,2]"], "method.split=[1,2] does not cut 4 layers into 4 stages; allowed: ceil, even,"),
    ([TINY, "devices=2", "method.split=[5,-1]"], "method.split.1=-1 is too small"),
    ([TINY, "method.text=last"], "method.text='last' is unknown; allowed: exact, first_patch"),
    ([TINY, "method=tensor", "method.cross=hole"], "method.cross='hole' is unknown, nearest: whole; allowed:"),
    ([TINY, "method.cache=fbcach"], "method.cache='fbcach' is unknown, nearest: fbcache; allowed: none, fbcache,"),
    ([TINY, "method.cache_threshold=-0.1"], "method.cache_threshold=-0.1 is too small; allowed: 0..1000"),
    ([TINY, "method.cache=fbcache", "cluster=l20_pcie"], "method.cache=fbcache skips by values, and predicted"),
    ([TINY, "method=asyncdiff", "method.cache=teacache"], "method.cache=teacache decides step by step"),
    (["model=hunyuan_tiny", "devices=2", "method.cache=fbcache"], "method.cache=fbcache would leave stages without"),
    (["model=sd3_tiny", "devices=2", "method.cache=fbcache", "method.text=first_patch"], "method.text=first_patch"),
    ([TINY, "devices=2", "method.cache=fbcache", "method.split=[0,4]"], "method.cache=fbcache is decided on the first"),
    ([TINY, "method.warmup=soon"], "method.warmup='soon' is no number of steps; allowed: 0..20, auto"),
    ([TINY, "method.warmup=1.5"], "method.warmup=1.5 is no whole number; allowed: "),
    ([TINY, "method.warmup=auto", "cluster=l20_pcie"], "method.warmup=auto is found out from values, and predicted"),
    (["model=hunyuan_tiny", "devices=2", "method.warmup=auto"], "method.warmup=auto is found out step by step"),
    ([TINY, "devices=2", "method.warmup=auto", "method.order=rotational"], "method.warmup=auto needs"),
    ([TINY, "method=distrifusion", "method.sync_layers=2"], "method.sync_layers=2 needs distrifusion on pixart_tiny"),
    (["method=naive_patch", "method.sync_layers=13"], "method.sync_layers=13 is more than the 12 layers; allowed:"),
    ([TINY, "method=naive_patch", "method.sync_layers=[a]"], "method.sync_layers=['a'] is no list of layers; allowed:"),
    ([TINY, "method.qkv=joint"], "method.qkv='joint' is unknown; allowed: packed, separate"),
    (["model=sd3_medium", "model.resolution=4096"], "model.resolution=4096 is too much: 256 token rows are too many"),
    (["model=flux_tiny", "model.text=minilm"], "model.text=minilm gives prompt_embeds only, and the model takes"),
    ([TINY, "model.text=own"], "model.text=own needs model.weights, which is null; allowed: random"),
    ([TINY, "model.architecture.num_layers=nan"], "model.architecture.num_layers=nan is not a number"),
    ([TINY, "guidance_scale=inf"], "guidance_scale=inf is too large; allowed: 0..1000"),
    ([TINY, "prompt=''"], "prompt='' is empty"),
    ([TINY, "prompt=[]"], "prompt=[] is empty"),
    ([TINY, "prompt=[a,' ']"], "prompt=['a', ' '] is empty"),
    ([TINY, "scheduler=ddim", "steps=2000"], "steps=2000 is too much: DDIMScheduler cannot be stepped"),
    ([TINY, "scheduler=dimm"], "scheduler='dimm' is unknown, nearest: ddim; allowed: shipped,"),
    ([TINY, "model.dtype=float23"], "model.dtype='float23' is unknown, nearest: float32; allowed: float32,"),
    ([TINY, "cluster.device=cud"], "cluster.device='cud' is unknown, nearest: cuda; allowed: auto, cpu, cuda"),
    ([TINY, "cluster.backend=glo"], "cluster.backend='glo' is unknown, nearest: gloo; allowed: auto, gloo, nccl"),
    ([TINY, "log.wandb.mode=off"], "log.wandb.mode='off' is unknown"),
    ([TINY, "model.text=minilmm"], "model.text='minilmm' is unknown, nearest: minilm; allowed: auto, own,"),
    ([TINY, "model.text=minilm"], "model.text=minilm gives 384 channels, and the model takes 16; allowed: random"),
    ([TINY, "model.resolution=30"], "model.resolution=30 is not a multiple of 4; allowed: 4, 8, ..."),
    ([TINY, "model.height=34"], "model.height=34 is not a multiple of 4; allowed: 4, 8, ..."),
    ([TINY, "model.height=96", "model.width=62"], "model.width=62 is not a multiple of 4; allowed: 4, 8, ..."),
    ([TINY, "model.resolution=64", "model.height=96"], "model.height=96 contradicts model.resolution=64, which is"),
    ([TINY, "model.resolution=64", "model.height=64", "model.width=32"], "model.width=32 contradicts model.resolution"),
    (["model=ltx2", "model.architecture.rope_type=interleaved"], "model.architecture.rope_type=interleaved is not "),
    (["model=sd3_medium", "model.width=4096"], "model.width=4096 is too much: 256 token columns are too many"),
    (["model=sd3_medium", "model.height=4096"], "model.height=4096 is too much: 256 token rows are too many"),
    ([TINY, "model.frames=5"], "model.frames=5, and the model makes pictures; allowed: null"),
    (["model=wan_tiny", "model.frames=8"], "model.frames=8 is not 1 and a multiple of 4; allowed: 1, 5, 9, ..."),
    (["model=flux_kontext_tiny", "model.architecture.references=2"], "model.architecture.references=2 is too large"),
    ([TINY, "method.patch_axis=frames"], "method.patch_axis='frames' is unknown; allowed: rows"),
    (["model=wan_tiny", "model.architecture.first_frame=3"], "model.architecture.first_frame=3 is of the wrong type"),
    (["model=wan22_a14b_tiny", "model.experts=one"], "model.experts=one is planned only: nothing loads the other"),
    (["model=wan_tiny", "model.experts=one", "cluster=h100_nvlink"], "model.experts=one is of two transformers"),
    (["model=wan_tiny", "method.patch_axis=cols"], "method.patch_axis='cols' is unknown; allowed: frames, rows"),
    (["model=wan_tiny", "method.patches=13"], "method.patches=13 is outside 1..12 (12: the latent frames)"),
    (["model=dit_tiny", "model.height=96"], "model.height=96 is not model.width=192: DiTTransformer2DModel draws sq"),
    (
        [TINY, "model.tiled=true", "model.share_decoding=true"],
        "model.share_decoding=true needs a VAE whose tiles can be dealt, and pixart_tiny has none; allowed: false",
    ),
    ([TINY, "model.share_decoding=true"], "model.share_decoding=true deals tiles, and model.tiled=false makes none"),
    ([TINY, "model.share_decoding=true", "cluster=sim"], "model.share_decoding=true is for ranks that are processes"),
    ([TINY, "model.architecture=null"], "model.weights=null needs model.architecture"),
    ([TINY, "model.architecture={layers: 3}"], "model.architecture="),
    ([TINY, "model.weights=/nowhere/model"], "model.weights=/nowhere/model does not exist; allowed: a folder"),
    ([TINY, "model.weights=run.py"], "model.weights=run.py is a file; allowed: a folder"),
    ([TINY, "model.weights=conf"], "model.weights=conf/transformer/config.json does not exist; allowed:"),
    (["model=pixart_alpha", "cluster=l40_pcie", "devices=16"], "devices=16 is more than the one node of l40_pcie has"),
    ([TINY, "cluster=sim", "cluster.world=plan"], "cluster.hardware=null has no costs; allowed:"),
    ([TINY, "cluster.world=cloud"], "cluster.world='cloud' is unknown; allowed: local, sim, plan"),
    ([TINY, "hydra.run.dir=/proc/nowhere/run"], "hydra.run.dir=/proc/nowhere/run cannot be written"),
    ([TINY, "hydra.run.dir=run.py/run"], "hydra.run.dir=run.py/run cannot be written"),
]
# fmt: on


@pytest.mark.parametrize(("overrides", "expected"), BAD, ids=[" ".join(case[0]) for case in BAD])
@pytest.mark.fast_cases(14)
def test_one_line_says_what_is_wrong(overrides: list[str], expected: str) -> None:
    text = complaint(overrides)
    assert text.startswith(expected)
    assert "allowed: " in text


@pytest.mark.slow
def test_shipped_defaults_and_every_method_pass() -> None:
    found = plan([TINY, f"method={','.join(METHODS)}"], multirun=True)
    cli.check(found, [])
    assert found.sweep
    assert len(found.jobs) == len(METHODS)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert complaint([TINY, "cluster.device=cuda"]).startswith(
        "cluster.device=cuda needs a GPU and a CUDA build"
    )
    cli.check(plan([TINY, "cluster=l40_pcie", "cluster.device=cuda"], False), [])  # predicted: none is needed


@pytest.mark.slow
def test_a_gpu_for_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert complaint([TINY]).startswith(
        "devices=4 puts 4 ranks on a node with 2 GPUs; allowed: a GPU for each rank"
    )
    assert complaint([TINY, "cluster=sim", "cluster.device=cuda"]).startswith(
        "cluster.device=cuda is not what"
    )
    cli.check(plan([TINY, "cluster.device=cpu"], False), [])
    cli.check(plan([TINY, "devices=2"], False), [])
    cli.check(plan([TINY, "devices=2,4"], True), [])  # a sweep skips what does not fit
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # four ranks on two nodes
    cli.check(plan([TINY], False), [])


@pytest.mark.parametrize("name", ["CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING"])
@pytest.mark.fast_cases(1)
def test_variables_that_would_hang_ranks_on_gpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cli.check(plan([TINY], False), [])
    monkeypatch.setenv(name, "1")
    assert complaint([TINY]).startswith(f"{name}=1 would make ranks wait for each other for ever; allowed: ")
    for other in ("cluster.device=cpu", "cluster=sim", "cluster=l40_pcie"):
        cli.check(plan([TINY, other], False), [])
    monkeypatch.setenv(name, "8" if name.endswith("CONNECTIONS") else "0")
    cli.check(plan([TINY], False), [])


def test_the_demonstration_runs_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU would be too few for its four ranks, and seven methods would be skipped."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for job in planned("experiment=quickstart").jobs:
        assert check_gpus(from_hydra(job)) is None


def test_experiment_is_a_sweep() -> None:
    found = planned("experiment=quickstart")
    assert found.sweep
    assert found.jobs[0].hydra.sweep.dir == "results/runs/quickstart"
    assert found.jobs[0].hydra.sweep.subdir == "serial"  # the experiment's own choice


def test_sweep_refuses_what_is_never_valid_but_not_what_a_method_cannot_do() -> None:
    cli.check(plan([TINY, "method=tensor,ring", "devices=3,4"], multirun=True), [])
    assert complaint([TINY, "steps=0,4"], multirun=True).startswith("steps=0 is too small")
    assert complaint([TINY, "stepz=1,4"], multirun=True).startswith(
        "stepz=1,4 is for an unknown key, nearest: steps"
    )
    assert complaint([TINY, "method=ring,rng"], multirun=True).startswith(
        "method=rng is unknown, nearest: ring"
    )


def test_torchrun_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert complaint([TINY, "devices=4"]) == "devices=4 is not the 2 ranks that torchrun started; allowed: 2"
    assert complaint([TINY, "devices=2"]).startswith("hydra.run.dir=")
    assert complaint([TINY, "devices=2"], multirun=True).startswith("hydra.mode=MULTIRUN is not possible")
    given = [TINY, "devices=2", "hydra.run.dir=some/dir"]
    for cluster in ("sim", "l40_pcie"):
        assert complaint([*given, f"cluster={cluster}"]).startswith(
            f"cluster={cluster} simulates its ranks in one"
        )
    cli.check(plan(given), given)
    monkeypatch.setenv("RANK", "2")
    assert complaint(given).startswith("RANK=2 is no rank of WORLD_SIZE=2; allowed: 0 or more")
    monkeypatch.delenv("RANK")
    assert complaint(given).startswith("RANK is not set; allowed: all of RANK, WORLD_SIZE")


def test_no_study_runs_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed(TINY)
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for name, measure in MEASURES.items():
        if name != "latency":
            with pytest.raises(ConfigError, match=f"measure={name} starts what ranks it needs; allowed: "):
                check_torchrun(replace(cfg, measure=load(measure.config)()), False, True)
