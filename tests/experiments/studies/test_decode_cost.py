"""Seconds of decoding: those of the VAE's own kernels, and a published row with and without them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from torch import nn

from analysis.evidence.predictions import read_profiles
from experiments.calibration.fit import resolve_target
from experiments.config import ClusterConfig
from experiments.errors import CONF
from experiments.programs import find_program, read_programs
from experiments.published import published_rows, targets
from experiments.session import Session
from experiments.studies.decode_cost import decode_seconds, decoding_seconds, empty_vae, known_vaes
from experiments.studies.predict import fastest
from pipefusion.pipelines.pictures import decode_one
from pipefusion.sim.hardware import DeviceConfig
from tests.experiments.commands import config

FAST = 1e30
IDEAL = DeviceConfig(peak_flops_16=1.0, peak_flops_32=1.0, peak_bandwidth=FAST, asynchronous=False)
"""A device on which nothing but arithmetic takes time, a second each operation."""


def test_seconds_are_those_of_convolutions_linear_layers_and_attention():
    size, found = (16, 6, 4), []

    def count(module, inputs, out):
        weight = module.weight
        found.append(2 * out.numel() * prod(weight.shape[1:]))

    vae, latent = empty_vae("flux_dev", size, torch.float32)
    layers = [one for one in vae.decoder.modules() if isinstance(one, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        layer.register_forward_hook(count)
    with torch.no_grad():
        decode_one(vae, latent)
    assert len(found) == len(layers)
    tokens, width = 6 * 4, 512
    expected = sum(found) + 4 * tokens**2 * width
    assert decode_seconds("flux_dev", size, torch.float32, ClusterConfig(hardware=IDEAL)) == pytest.approx(
        expected
    )


def test_a_larger_picture_takes_longer_and_a_smaller_device_too():
    l40, h100 = (config(f"cluster={name}").cluster for name in ("l40_pcie", "h100_nvlink"))
    small, large = ((4, side, side) for side in (16, 64))
    seconds = [decode_seconds("pixart_alpha", size, torch.float16, l40) for size in (small, large)]
    assert seconds[0] < seconds[1]
    assert decode_seconds("pixart_alpha", large, torch.float16, h100) < seconds[1]
    assert decode_seconds("pixart_alpha", large, torch.float16, replace(l40, host="compiled")) == seconds[1]


SIZES = {"sana_1600m": (32, 2, 2), "cogvideox_5b": (16, 3, 4, 4), "hunyuan_video": (16, 2, 4, 4)}


@pytest.mark.parametrize("model", SIZES)
def test_every_vae_of_a_decoded_row_is_known(model):
    assert model in known_vaes()
    assert decode_seconds(model, SIZES[model], torch.bfloat16, config("cluster=a100_nvlink").cluster) > 0


def test_a_decoded_row_takes_the_seconds_of_its_vae_longer():
    one = next(one for one in targets() if one.decoded and one.model == "flux_dev" and one.devices == 1)
    session, base = Session(), config()
    cfg, _ = resolve_target(one, base)
    decoded, sampled = (
        fastest(replace(cfg, measure=replace(one, decoded=flag)), session) for flag in (True, False)
    )
    assert sampled["decode_s"] == 0 < decoded["decode_s"] == decoding_seconds(cfg, session)
    assert decoded["predicted_s"] == sampled["predicted_s"] + decoded["decode_s"]


def test_what_is_offloaded_leaves_room_while_it_samples():
    """One L20 holds HunyuanVideo's transformer, and not its encoders as well; they are loaded before it is."""
    one = next(one for one in targets() if one.offloaded)
    assert (one.model, one.cluster, one.devices) == ("hunyuan_video", "l20_pcie", 1)
    session, (cfg, _) = Session(), resolve_target(one, config())
    room, held = (
        fastest(replace(cfg, measure=replace(one, offloaded=flag)), session) for flag in (True, False)
    )
    assert room["program_bytes"] == room["peak_bytes"] and room["missing_bytes"] == 0 < room["predicted_s"]
    assert held["program_bytes"] > room["program_bytes"]
    assert held["missing_bytes"] > 0 and held["status"] == "oom"


def test_programs_are_those_of_sources_that_are_there():
    """Each is one of a row, of its hardware; the seconds that profiles were fitted on are those of sampling."""
    rows = published_rows().values()
    for program in read_programs():
        assert program in {find_program(row) for row in rows}, program.source
        assert program.evidence
    decoded = {one.row_id: one for one in targets() if one.decoded}
    assert {one.model for one in decoded.values()} == {*SIZES, "flux_dev"}
    fitted = set().union(*read_profiles(CONF).values())
    assert fitted and not fitted & set(decoded)
