"""What holds the house together: which package may import which, plain pins, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["pipefusion/method.py", "baselines/*.py"]
FORBIDDEN = {
    # a method sees the fabric and the view: no world, no clock, no other method
    "methods": (METHODS, ["torch.distributed", "time", "experiments", "analysis", "pipefusion.sim"]),
    "baselines": (["baselines/*.py"], ["pipefusion.method"]),
    "core": (
        ["pipefusion/core/*.py"],
        ["pipefusion.method", "pipefusion.sim", "baselines", "experiments", "analysis"],
    ),
    # a simulated world knows no method and no process group
    "sim": (
        ["pipefusion/sim/*.py"],
        ["pipefusion.method", "baselines", "experiments", "analysis", "torch.distributed"],
    ),
    "analysis": (["analysis/**/*.py"], ["torch", "diffusers", "experiments", "baselines", "pipefusion"]),
    "replay": (["experiments/replay.py"], ["pipefusion", "baselines"]),
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it, outside of type checking or not."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_imports_run_one_way(rule: str) -> None:
    patterns, forbidden = FORBIDDEN[rule]
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert files
    for path in files:
        for name in imports(path):
            bad = [prefix for prefix in forbidden if name == prefix or name.startswith(f"{prefix}.")]
            assert not bad, f"{path.relative_to(ROOT)} imports {name}"


def test_the_library_imports_what_it_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    assert needed == {"torch", "diffusers", "greenlet", "safetensors"}
    theirs = {"huggingface_hub", "numpy", "PIL"}  # what diffusers itself depends on
    own = {"pipefusion", "baselines", "__future__"} | theirs
    for package in ("pipefusion", "baselines"):
        for path in (ROOT / package).rglob("*.py"):
            names = {name.partition(".")[0] for name in imports(path)}
            assert names <= needed | own | sys.stdlib_module_names, path


def test_versions_are_pinned_plainly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    assert not any(pin.startswith("torchvision") for pin in pins)


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", path.read_text()):
        generated = link.startswith("results/figures/") and not (ROOT / "results/records").exists()
        assert link.startswith("http") or generated or (path.parent / link).exists(), f"{page}: {link}"


def test_code_named_in_the_docs_exists() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(
            r"`((?:pipefusion|baselines|experiments|analysis|conf)/[\w/.]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists() or "NAME" in name, f"{page.name}: {name}"
