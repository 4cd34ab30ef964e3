"""What the documentation shows runs: the script in the README, and the examples of the library's docstrings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipefusion import Denoiser, Parallel, generate, init, parallelize
from tests.experiments.tiny_pipelines import save_tiny, stock
from tests.pipefusion.test_library import seeded

ROOT = Path(__file__).resolve().parents[2]
SIDE, STEPS = 64, 3


def torchrun(script: str, ranks: int, folder: Path) -> None:
    """Run a script on so many ranks. Raises AssertionError with what it printed."""
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]


def replaced(text: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def readme_script(folder: Path) -> str:
    """The script in the README on a small pipeline: with nothing stale, and with an exact method."""
    page = (ROOT / "README.md").read_text()
    script = page.partition("## As a library")[2].partition("```python\n")[2].partition("```")[0]
    assert 0 < len(script.strip().splitlines()) <= 15
    return "\n".join(
        replaced(script, {
            "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": str(folder), "1024": str(SIDE), "warmup=1": how,
            "bfloat16": "float32", "num_inference_steps=20": f"num_inference_steps={STEPS}",
            "lighthouse.png": f"{name}.png", "a lighthouse in the fog": "red apple",
        })
        for name, how in {"stale": f"warmup={STEPS}", "exact": 'method="sync_pipeline"'}.items()
    )  # fmt: skip


def docstring_examples() -> str:
    """In the order in which they are used, with a small pipeline in place of what they do not say."""
    shown = [Parallel, init, parallelize, Denoiser.__call__, Denoiser.prediction, generate]
    lines = [re.findall(r">>> (.*)", each.__doc__ or "") for each in shown]
    assert all(lines), "an example each"
    example = "\n".join(line for each in lines for line in each)
    script = """
from pathlib import Path
import torch
from pipefusion import Denoiser, Parallel, generate, init, parallelize
from pipefusion.core.conditioning import Conditioning
from tests.experiments.tiny_pipelines import stock

pipe = stock(Path("tiny"))
scheduler = pipe.scheduler
scheduler.set_timesteps(2)
prompt = {"prompt_embeds": torch.ones(1, 7, 16), "prompt_mask": torch.ones(1, 7)}
negative = {"prompt_embeds": torch.zeros(1, 7, 16), "prompt_mask": torch.ones(1, 7)}
EXAMPLE
assert (fabric.rank == 0) == (images is not None) == (latents is not None)
if images:
    images[0].save("lighthouse.png")
"""
    sizes = {"1024": str(SIDE), "128, 128": f"{SIDE // 8}, {SIDE // 8}"}
    return script.replace("EXAMPLE", replaced(example, sizes))


@pytest.mark.slow
def test_what_the_documentation_shows(tmp_path: Path) -> None:
    """On four ranks under torchrun; the README's script draws the pipeline's picture."""
    folder = save_tiny("pixart_sigma", tmp_path / "tiny", with_transformer=True)
    torchrun(readme_script(folder) + docstring_examples(), 4, tmp_path)
    expected = stock(folder)(
        "red apple", height=SIDE, width=SIDE, use_resolution_binning=False, num_inference_steps=STEPS,
        output_type="np", generator=seeded(),
    ).images[0]  # fmt: skip
    for name in ("stale", "exact"):
        image = np.asarray(Image.open(tmp_path / f"{name}.png"), dtype=float) / 255
        assert np.abs(image - expected).max() <= 1.01 / 255
    assert Image.open(tmp_path / "lighthouse.png").size == (SIDE, SIDE)
