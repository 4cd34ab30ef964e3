"""Products of degrees on the shipped model: what each axis saves and sends, and who holds what."""

from __future__ import annotations

from pathlib import Path

from analysis.output import Output
from analysis.presentation.style import Drawing, drawings
from analysis.presentation.tables import Table, markdown, table
from analysis.records.committed import PRODUCTS
from analysis.runs import mesh, products


def products_methods(results: Path) -> list[Table]:
    """Four methods on four ranks, each alone and with a second axis: the fullest rank's parameters and K, V, bytes sent
    per step by axis (of the busiest rank on each; the gather of the latents at the end counts too), and distance to
    serial; measured by the runs of records/products. PipeFusion has as many patches as stages."""
    rows = products.products(results / PRODUCTS)
    piped = markdown(products.readable(rows[rows.method == "pipefusion"]))
    return [table(rows, products.readable(rows)), Table(None, piped, "_pipefusion")]


def products_mesh(results: Path) -> list[Drawing]:
    """The ranks of a product, drawn from its record: layers, heads and tokens that each one holds and computes;
    measured by the runs of records/products."""
    return drawings(mesh.mesh(results / PRODUCTS, "pipefusion", "cfg 2 x pipe 2", "pipe 2 x ulysses 2"))


RUN = ("run.json", "config.yaml", "ranks.csv")
OUTPUTS = [
    Output(products_methods, tuple(f"{PRODUCTS}/**/{name}" for name in (*RUN, "latents.safetensors"))),
    Output(products_mesh, tuple(f"{PRODUCTS}/method=pipefusion*/{name}" for name in RUN)),
]
