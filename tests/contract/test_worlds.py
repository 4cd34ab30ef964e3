"""The same method code on real ranks and on simulated ones: the same latents, bytes, parameters and KV."""

from __future__ import annotations

import itertools

import pytest
import torch

from experiments.methods import METHODS
from pipefusion.core.dit import Conditioning, Tokens
from pipefusion.core.mesh import Mesh
from pipefusion.core.shape import BlockShape, DiTShape
from pipefusion.schedulers import make_scheduler
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.network import LinkConfig, TopologyConfig
from pipefusion.sim.world import World
from tests.cases import Case, Result, degrees_in, relative_error, sample, simulate

COUNTED = ("op", "peer", "axis", "step", "layer", "patch", "sent_bytes", "recv_bytes", "async")
SETTINGS = {"plain": {}, "guided-batch": {"guidance": 4.5, "images": 2, "scheduler": "ddim"}}


def agree(case: Case, real: list[Result], virtual: list[Result]) -> None:
    """Latents to the bit, or to 1e-6 where gloo takes sums in another order; ledgers and bytes exactly."""
    want = virtual[0].latents
    assert want is not None and relative_error(real[0].latents, want) <= 1e-6
    if degrees_in(case, len(real)).tensor == 1:
        assert torch.equal(real[0].latents, want)
    for rank, (ours, theirs) in enumerate(zip(virtual, real, strict=True)):
        ledgers = [[tuple(row[key] for key in COUNTED) for row in side.rows] for side in (ours, theirs)]
        assert ledgers[0] == ledgers[1], f"rank {rank}"
        assert ours.measured == theirs.measured, f"rank {rank}"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "serial"])
def test_local_and_sim_agree(ranks, name, devices, setting):
    method = {key: value for key, value in {"patches": 5, "warmup": 1}.items() if METHODS[name].has(key)}
    case = Case(name, method, **SETTINGS[setting])
    agree(case, ranks(devices).run(sample, case, 2), simulate(case.on(devices), images=2))


def test_times_of_a_rank_add_up():
    for rank in simulate(Case("pipefusion", {"patches": 5}).on(3), images=2):
        compute_s, wait_s, total_s = rank.seconds
        assert compute_s + wait_s == pytest.approx(total_s)
        assert sum(span.end_s - span.start_s for span in rank.spans) == pytest.approx(total_s)
        assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(rank.spans))
        assert {span.at.patch for span in rank.spans if span.kind == "compute"} == {-1, 0, 1, 2, 3, 4}


class OneSecond:
    """A DiT of as many layers as devices, in which a block on a patch takes one second and nothing else takes time."""

    dtype = torch.float32

    def __init__(self, layers: int, rows: int, clock: FixedClock):
        block = BlockShape(0, 0, 0, 0, 0)
        self.shape = DiTShape(1, 1, 1, rows, 1, 1, 1, 1, (block,) * layers, 0, 0, (), ())
        self.layers, self.clock = range(layers), clock

    def keep(self, layers, *, embed, unembed):
        self.layers = layers

    def text(self, cond):
        return None

    def cross(self, text):
        return {}

    def modulation(self, timestep, text, batch):
        return None

    def positions(self, rows, prompt):
        return None

    def embed(self, latent, rows, text):
        return Tokens(torch.zeros(1, len(rows), 1))

    def block(self, layer, tokens, given, attend, skip=None):
        self.clock.wait_until(self.clock.read() + 1.0)
        return Tokens(tokens.image + 1)

    def unembed(self, image, modulation, rows):
        return torch.zeros(1, 1, len(rows), 1)


def ideal_pipeline(devices: int, patches: int, steps: int) -> tuple[World, list[float]]:
    """PipeFusion where only blocks take time; each rank's seconds."""
    free = TopologyConfig(port=LinkConfig("free", bandwidth=1e30, latency_s=0.0))
    clocks = [FixedClock(lambda: 0.0) for _ in range(devices)]
    world = World(Mesh({"pipe": devices}), torch.device("cpu"), free, clocks=clocks)
    scheduler = make_scheduler("FlowMatchEulerDiscreteScheduler", {}, steps)
    cfg = METHODS["pipefusion"].Config(patches=patches, warmup=0)
    samplers = [
        METHODS["pipefusion"].build(OneSecond(devices, patches, clock), fabric, cfg)
        for clock, fabric in zip(clocks, world.fabrics, strict=True)
    ]
    cond = Conditioning({})

    def program(fabric):
        samplers[fabric.rank](torch.zeros(1, 1, patches, 1), cond, scheduler)
        return fabric.close()[2]

    return world, world.run(program)


@pytest.mark.parametrize(
    ("devices", "patches", "steps"), [(8, 16, 20), (3, 4, 5), (4, 2, 5), (1, 3, 2), (128, 128, 2)]
)
def test_micro_steps_of_an_ideal_pipeline(devices, patches, steps):
    """M*S + N - 1 micro-steps while M >= N (section 3.1); with fewer patches every step waits for the last stage."""
    _, times = ideal_pipeline(devices, patches, steps)
    ideal = patches * steps + devices - 1 if patches >= devices else devices * steps + patches - 1
    assert max(times) == ideal


def test_the_next_receive_is_posted_before_a_job_computes():
    """So that a message travels under the computation of the one before it."""
    world, _ = ideal_pipeline(3, 4, 5)
    for fabric in world.fabrics[1:]:
        posted = [entry.start_s for entry in fabric.ledger.entries if entry.op == "recv"]
        computed = [span.start_s for span in fabric.ledger.spans if span.kind == "compute"]
        assert len(posted) == 4 * 5
        assert all(post <= start for post, start in zip(posted[1:], computed, strict=False))
