"""Layers that stay synchronous in displaced methods: what they send and when, and which there may be."""

from __future__ import annotations

import pytest

from baselines import distrifusion, naive_patch
from pipefusion.core.parallel import Parallel
from tests.cases import Case, case_model
from tests.sampling import simulate

SHAPE = case_model(Case("distrifusion")).shape  # 4 layers


@pytest.mark.parametrize(("name", "displaced"), [("distrifusion", {1, 2}), ("naive_patch", set())])
def test_a_synchronous_layer_gathers_and_waits_in_every_step(name, displaced):
    rows = simulate(Case(name, {"warmup": 1, "sync_layers": [2]}).on(3))[0].rows
    inside = {(row["layer"], row["step"]): row["async"] for row in rows if row["layer"] >= 0}
    assert [inside[2, step] for step in range(4)] == [False] * 4
    assert {step for layer, step in inside if layer != 2 and step} == displaced
    assert all(inside[0, step] for step in displaced) and not inside[0, 0]


@pytest.mark.parametrize("module", [distrifusion, naive_patch])
@pytest.mark.parametrize(
    ("layers", "message"),
    [([1, 4], "4 is outside 0..3 (3: the last layer); allowed: 0..3"), ([2, 1, 2], "[2, 1, 2] has 2 twice")],
)
def test_layers_are_the_models_each_once(module, layers, message):
    problem = module.check(SHAPE, Parallel(patch=3), 4, module.Config(sync_layers=layers))
    assert problem is not None and problem.key == "method.sync_layers"
    assert problem.message.startswith(message) and "allowed:" in problem.message
    assert module.check(SHAPE, Parallel(patch=3), 4, module.Config(sync_layers=[3, 0])) is None
