"""What each device holds: counted in the built views, added up to the model, printed and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import PixArtTransformer2DModel

from analysis.__main__ import main
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import open_model
from experiments.params import Subject
from pipefusion.core.dit import DiT
from tests.experiments.runs import command

# transformer/config.json of PixArt-alpha/PixArt-XL-2-1024-MS, less what only other kinds of transformer look at.
PIXART_XL = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "upcast_attention": False,
}


def test_pixart_alpha_is_the_published_model() -> None:
    model = open_model(model_config("pixart_alpha"))
    with torch.device("meta"):
        published = PixArtTransformer2DModel(**PIXART_XL)
    ours = {name: tuple(p.shape) for name, p in model.view().model.named_parameters()}
    assert ours == {name: tuple(p.shape) for name, p in published.named_parameters()}
    assert model.view().model.num_parameters() == 611_349_152
    assert (model.resolution, model.shape.tokens, model.dtype) == (1024, 4096, torch.float16)
    assert {key: model.config[key] for key in PIXART_XL} == PIXART_XL


def test_48_layers_on_4_devices_are_12_each() -> None:
    rows, totals = Subject(open_model(model_config("dit_48")), "pipefusion", steps=20).measure(4)
    assert [row["layers"] for row in rows] == ["0-11", "12-23", "24-35", "36-47"]
    assert [row["block_share"] for row in rows] == [0.25] * 4
    assert all(0.25 < row["model_share"] < 0.27 for row in rows)
    assert {row["replicated"] for row in rows} == {"AdaLN, caption projection"}
    assert totals["reconciles"]
    assert totals["devices_bytes"] - totals["copies_bytes"] == totals["model_bytes"]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "serial"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_what_is_built_is_what_is_predicted_and_adds_up(method: str, devices: int) -> None:
    model = open_model(model_config("pixart_tiny"))
    rows, totals = Subject(model, method, steps=20).measure(devices)
    assert [row["rank"] for row in rows] == list(range(devices))
    assert all(row["param_bytes"] == row["predicted_param_bytes"] for row in rows)
    assert totals["reconciles"]
    assert totals["devices_bytes"] - totals["copies_bytes"] == totals["model_bytes"]
    assert totals["model_bytes"] == 4 * model.view().model.num_parameters()


def test_a_view_is_used_again_only_if_nothing_was_taken_from_it() -> None:
    subject = Subject(open_model(model_config("pixart_tiny")), "pipefusion", steps=4)
    assert [row["layers"] for row in subject.measure(2)[0]] == ["0-1", "2-3"]
    assert [row["layers"] for row in subject.measure(1)[0]] == ["0-3"]
    assert [row["layer_count"] for row in subject.measure(4)[0]] == [1, 1, 1, 1]


@pytest.mark.parametrize(("stages", "reconciles"), [([(0, 2), (2, 4)], True), ([(0, 2), (3, 4)], False)])
def test_a_lost_layer_does_not_add_up(stages: list[tuple[int, int]], reconciles: bool) -> None:
    subject = Subject(open_model(model_config("pixart_tiny")), "sync_pipeline", steps=4)
    real = subject.method

    def build(dit: DiT, fabric: Any, cfg: Any) -> None:
        index = fabric.axis("pipe").index
        dit.keep(range(*stages[index]), embed=index == 0, unembed=index == 1)

    subject.method = replace(real, build=build)
    _, totals = subject.measure(2)
    assert totals["reconciles"] is reconciles


TINY = ["experiment=params_per_device", "measure.models=[pixart_tiny]", "measure.literal.model=pixart_tiny"]
TINY += [
    "measure.literal.devices=2",
    "measure.most_devices=4",
    "measure.summary=[2]",
    "log.wandb.mode=disabled",
]


def test_the_experiment_prints_records_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert command(monkeypatch, *TINY, f"hydra.run.dir={run}") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "device 1 of 2 holds layers 2-3: 50.0 % of block parameters" in text
    assert "In 16 of 16 cases" in text
    rows = pd.read_csv(run / "params.csv")
    skipped = rows[rows.status == "skipped"]
    assert set(zip(skipped.method, skipped.devices, strict=True)) == {
        (method, 3) for method in ("tensor", "ulysses", "ring", "distrifusion")
    }
    assert skipped.reason.str.startswith("devices=3 does not divide").all()
    assert skipped.param_bytes.isna().all()
    assert main(["keep", str(run), "params"], tmp_path / "results") == 0
    assert main(["params"], tmp_path / "results") == 0
    made = {path.name for path in (tmp_path / "results").rglob("params_per_device.*")}
    assert made == {f"params_per_device.{kind}" for kind in ("csv", "md", "png", "svg", "sources.json")}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("measure.models=[pixart_alfa]", "measure.models='pixart_alfa' is unknown, nearest: pixart_alpha"),
        ("measure.methods=[pipe]", "measure.methods='pipe' is unknown, nearest: pipefusion"),
        ("measure.literal.devices=5", "measure.literal.devices=5 is not measured; allowed: 1..4"),
        (
            "measure.literal.model=dit_48",
            "measure.literal.model=dit_48 is not measured; allowed: pixart_tiny",
        ),
    ],
)
def test_a_wrong_name_is_one_line(
    wrong: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, *TINY, wrong, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
