"""Hostile input, keys with values that cannot be meant and files that are none: one line each, and nothing waits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.presentation.line import one_line
from analysis.records.files import read_json, read_text
from experiments.command import cli, compose
from experiments.command.check import check_request
from experiments.config import RunConfig, read_prompts
from experiments.conformance.fields import BundleError, read_fields
from experiments.errors import ConfigError
from experiments.models.architecture import faults
from experiments.models.components import read_index
from experiments.models.inputs import encoded_prompts
from experiments.models.model import read_scheduler
from experiments.models.schedulers import config_fault
from experiments.models.weights import read_config, read_header
from experiments.runs import server
from tests.experiments.commands import composed
from tests.fuzz.configurations import ESCAPE

BASE = ["model=pixart_tiny", "cluster=l40_pcie"]


def answer(overrides: list[str]) -> str | None:
    """The line that refuses a command before a model is opened, or None. Anything but a ConfigError is raised."""
    try:
        check_request(composed(*BASE, *map(compose.as_text, overrides)))
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "value", ["null", "7", "nan", "''", "[]", "{}", f"'{ESCAPE}'", "${nope}", "x" * 5000]
)
@pytest.mark.parametrize("group", ["measure", "hydra/launcher"])
def test_a_group_takes_a_name(group: str, value: str) -> None:
    line = answer([f"{group}={value}"])
    assert line
    assert line.isprintable()
    assert "allowed: " in line


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "prompt=café",
            """'prompt=café' is not understood; allowed: key=value; a value with other than letters""",
        ),
        ("prompt=a (b)", """in quotes: 'prompt="a (b)"'"""),
        ("prompt={a: b}", "prompt={'a': 'b'} is no text; allowed: a text, or a list"),
        ("prompt=[1e5,a]", "prompt=100000.0 is no text; allowed: a text, or a list"),
        ("prompt=null", "prompt=None is empty; allowed:"),
        ("parallel=${seed}", "parallel=0 has no keys and is no list; allowed:"),
        ("cluster.topology.port.sources=${model}", "topology.port.sources=ModelConfig("),
        ("model.architecture=${seed}", "model.architecture=0 has no keys and is no list; allowed:"),
        ("measure.name=7", "measure.name=7 is set by its group; allowed: measure=NAME instead"),
        ("model=null", "model=null is unknown; allowed: cogvideox_2b,"),
        ("steps", "'steps' is not understood; allowed: key=value"),
    ],
)
def test_what_is_said(override: str, expected: str) -> None:
    line = answer([override])
    assert line is not None
    assert expected in line


@pytest.mark.parametrize("value", ["", "''"])
def test_the_folder_of_a_run_has_a_name(value: str) -> None:
    """And is not the working directory."""
    with pytest.raises(ConfigError, match=r"^hydra.run.dir='' is no path; allowed: a folder"):
        cli.checked(cli.arguments([*BASE, f"hydra.run.dir={value}"]))


@pytest.mark.parametrize("text", ["1e5", "7", "true", "nan", "1_000", "0x10", "green apple"])
def test_a_prompt_is_the_text_that_was_typed(text: str) -> None:
    cfg = composed(*BASE, compose.as_text(f"prompt={text}"))
    assert read_prompts(cfg) == [text]


def test_a_line_of_a_prompt_file_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffred apple\r\n\r\n two\u2028parts\u0085here \nlast".encode())
    assert read_prompts(RunConfig(prompt_file=str(path))) == ["red apple", "two\u2028parts\u0085here", "last"]


def test_one_line() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line(ESCAPE) == "\\x1b[31m red\\u202e"
    assert one_line("é 水 🍏") == "é 水 🍏"
    long = one_line(f"key={'x' * 5000} is wrong; allowed: {'name, ' * 2000}last")
    assert len(long) <= 2000
    assert long.startswith("key=xxx")
    assert long.endswith("last")


FILES: dict[str, Callable[[Path], Any]] = {
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "empty": Path.touch,
    "deep": lambda path: path.write_text("[" * 100_000),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "list": lambda path: path.write_text("[]"),
    "foreign": lambda path: path.write_text(
        json.dumps({"_class_name": [ESCAPE], "format": {}, ESCAPE: None})
    ),
    "header": lambda path: path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}"),
    "absent": lambda path: None,
}
READERS: dict[str, Callable[[Path], Any]] = {
    "transformer": read_config,
    "scheduler": read_scheduler,
    "index": lambda path: read_index(path.parent),
    "tensors": lambda path: read_header(path, None),
    "bundle": lambda path: read_fields(path.parent),
    "prompts": lambda path: check_request(RunConfig(prompt_file=str(path))),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", FILES)
def test_no_file_that_is_read_gives_a_trace_or_has_no_end(reader: str, content: str, tmp_path: Path) -> None:
    names = {"index": "model_index.json", "bundle": "bundle.json"}
    path = tmp_path / names.get(reader, "file.json")
    FILES[content](path)
    if reader == "prompts" and content in ("deep", "list", "foreign", "header"):
        return  # text
    with pytest.raises((ConfigError, BundleError)) as caught:
        READERS[reader](path)
    assert str(caught.value).isprintable()
    assert "allowed: " in str(caught.value)


def test_a_file_with_a_byte_order_mark_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert read_text(path) == '{"a": 1}'


PIXART, SD3, FLUX, DIT = (
    f"{name}2DModel" for name in ("PixArtTransformer", "SD3Transformer", "FluxTransformer", "HunyuanDiT")
)
FACTS = {"text_tokens": 12, "latent_factor": 8, "guidance_scale": 4.5, "guidance": "cfg", "pixel_space": True}


@pytest.mark.parametrize(
    ("stock", "arguments", "facts", "expected"),
    [
        (PIXART, {"patch_size": 0}, {}, "patch_size=0 is too small; allowed: 1..1048576"),
        (PIXART, {"num_layers": 2.5}, {}, "num_layers=2.5 is no whole number; allowed: 0..1000"),
        (PIXART, {"num_layers": 10**6}, {}, "num_layers=1000000 is too large; allowed: 0..1000"),
        (PIXART, {"num_layers": None}, {}, "num_layers=None is of the wrong type; allowed: int"),
        (PIXART, {"sample_size": [1]}, {}, "sample_size=[1] is no number; allowed: 1..1048576"),
        (PIXART, {"activation_fn": 3}, {}, "activation_fn=3 is of the wrong type; allowed: str"),
        (PIXART, {"norm_elementwise_affine": "no"}, {},
         "norm_elementwise_affine='no' is of the wrong type; allowed: bool"),
        (PIXART, {"norm_eps": float("nan")}, {},
         "norm_eps=nan is not a number; allowed: -1000000000.0..1000000000.0"),
        (PIXART, {"norm_eps": 1}, {}, None),
        (PIXART, {"interpolation_scale": 0.5, "out_channels": None, "num_layers": 0}, {}, None),
        (SD3, {"dual_attention_layers": [0, 1, 2]}, {}, None),
        ("HunyuanDiT2DModel", {"mlp_ratio": 4}, {}, None),
        (FLUX, {"axes_dims_rope": [8, "a"]}, {}, "axes_dims_rope='a' is no number; allowed: 0..1048576"),
        (PIXART, {}, {"text_tokens": 1e9}, "text_tokens=1000000000.0 is no whole number; allowed: 0..16384"),
        (PIXART, {}, {"guidance_scale": "x"}, "guidance_scale='x' is no number; allowed: 0..1000"),
        (PIXART, {}, {"pixel_space": "no"}, "pixel_space='no' is of the wrong type; allowed: bool"),
        (PIXART, {}, {"guidance": []}, "guidance=[] is unknown; allowed: cfg, embedded, none"),
        (PIXART, {}, FACTS, None),
    ],
)  # fmt: skip
def test_arguments_and_facts_of_a_transformer(
    stock: str, arguments: dict[str, Any], facts: dict[str, Any], expected: str | None
) -> None:
    assert next(faults(stock, arguments, facts), None) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"beta_start": 0, "trained_betas": [0.1, 0.2], "variance_type": None, "unknown": []}, None),
        ({"lambda_min_clipped": float("-inf")}, None),
        (
            {"num_train_timesteps": 10**12},
            "num_train_timesteps=1000000000000 is too large; allowed: 1..1000000",
        ),
        ({"beta_start": float("nan")}, "beta_start=nan is not a number; allowed: 0..1"),
        ({"thresholding": []}, "thresholding=[] is of the wrong type; allowed: bool"),
        ({"lower_order_final": "no"}, "lower_order_final='no' is of the wrong type; allowed: bool"),
        ({"solver_order": True}, "solver_order=True is no number; allowed: 1..1048576"),
        ({"trained_betas": [0.1, ESCAPE]}, f"trained_betas={ESCAPE!r} is no number; allowed: 0..1"),
        ({"solver_type": "x"}, "solver_type='x' is unknown; allowed: midpoint, heun"),
        ({"variance_type": []}, "variance_type=[] is unknown; allowed: learned, learned_range"),
    ],
)
def test_keys_of_a_scheduler(config: dict[str, Any], expected: str | None) -> None:
    assert config_fault("DPMSolverMultistepScheduler", config) == expected


def test_a_temporary_directory_that_is_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: f"/tmp/{'d' * 100}")
    with pytest.raises(
        ConfigError, match=r"^TMPDIR=/tmp/d+ is too long for the sockets in it; allowed: up to \d+ bytes$"
    ):
        server.start([])


def test_a_prompt_that_is_cut_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ("red apple", "a very long prompt that goes on and on and on and on")
    for _ in range(2):
        encoded_prompts(prompts, "minilm", 12, 384)
    assert capsys.readouterr().err == (
        f"warning: prompt {prompts[1]!r} is cut: the model takes 12 tokens, two of them start and end\n"
    )


@pytest.mark.parametrize(("measure", "key"), [("conformance", "bundle"), ("loading", "measure.folder")])
def test_a_path_that_the_system_does_not_take_is_one_line(measure: str, key: str) -> None:
    asked = cli.arguments([*BASE, f"measure={measure}", f"{key}={'x' * 5000}"])
    with pytest.raises(
        ConfigError, match=r"cannot be opened \(File name too long\); allowed: a path that can"
    ) as error:
        cli.checked(asked)
    assert error.value.key == key
