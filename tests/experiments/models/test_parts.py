"""Sizes of text encoders and VAEs: those of the libraries' own classes."""

from __future__ import annotations

import importlib

import pytest
import torch

from experiments.errors import config_names
from experiments.models.parts import KINDS, part_bytes, read_parts

BUILT = [name for name, part in read_parts().items() if part["parameters"]]


@pytest.mark.parametrize("name", BUILT)
def test_a_part_has_the_parameters_of_its_class(name):
    part = read_parts()[name]
    library, _, kind = part["class"].rpartition(".")
    stock = getattr(importlib.import_module(library), kind)
    with torch.device("meta"):
        transformers = library == "transformers"
        model = (
            stock(stock.config_class(**part["config"])) if transformers else stock.from_config(part["config"])
        )
    assert sum(p.numel() for p in model.parameters()) == part["parameters"]


def test_parts_belong_to_models_that_are_there():
    for part in read_parts().values():
        assert part["kind"] in KINDS and set(part["models"]) <= set(config_names("model"))


def test_bytes_of_all_encoders_of_a_model():
    t5, clip = (read_parts()[name]["parameters"] for name in ("t5_xxl", "clip_l"))
    assert part_bytes("flux_dev", "text_encoder", 2) == 2 * (t5 + clip)
    assert part_bytes("dit_xl_2", "text_encoder", 2) == 0
    assert part_bytes("emoji64", "text_encoder", 2) is None
