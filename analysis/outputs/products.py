"""Products of degrees on the shipped model: what each axis saves and sends, and who holds what."""

from __future__ import annotations

from pathlib import Path

from analysis import mesh, products, style, tables
from analysis.output import Output

COMMANDS = ("python run.py experiment=products",)
FOLDER = "records/products"
RECORDS = tuple(
    f"{FOLDER}/**/{name}" for name in ("run.json", "config.yaml", "ranks.csv", "latents.safetensors")
)
DRAWN = tuple(f"{FOLDER}/method=pipefusion*/{name}" for name in ("run.json", "config.yaml", "ranks.csv"))
SOURCE = "measured by the runs of records/products"


def products_methods(results: Path) -> list[Path]:
    """Four methods on four ranks, each alone and with a second axis: the fullest rank's parameters and K, V, bytes sent
    per step by axis (of the busiest rank on each; the gather of the latents at the end counts too), and distance to
    serial; measured by the runs of records/products. PipeFusion has as many patches as stages."""
    table = products.products(results / FOLDER)
    folder = results / "tables"
    made = tables.save(table, products.readable(table), folder, "products_methods")
    alone = folder / "products_methods_pipefusion.md"
    alone.write_text(tables.markdown(products.readable(table[table.method == "pipefusion"])))
    return [*made, alone]


def products_mesh(results: Path) -> list[Path]:
    """The ranks of a product, drawn from its record: layers, heads and tokens that each one holds and computes;
    measured by the runs of records/products."""
    figure = mesh.mesh(results / FOLDER, "pipefusion", "cfg 2 x pipe 2", "pipe 2 x ulysses 2")
    return style.save(figure, results / "figures", "products_mesh") if figure else []


OUTPUTS = [Output(products_methods, RECORDS, COMMANDS), Output(products_mesh, DRAWN, COMMANDS)]
