"""What is read of diffusers' source is what its classes are, once they are imported."""

from __future__ import annotations

import inspect
import re
from typing import get_type_hints

import diffusers
import pytest

from pipefusion.constructors import constructor
from pipefusion.deferred import Deferred
from pipefusion.families import VIEWS
from pipefusion.schedulers import SCHEDULERS
from pipefusion.views import z_image


@pytest.mark.parametrize("name", [*VIEWS, *SCHEDULERS.values(), "UniPCMultistepScheduler"])
def test_a_constructor_is_read_as_its_class_has_it(name: str) -> None:
    stock, read = getattr(diffusers, name).__init__, constructor(name)
    assert facts(stock) == facts(read)


def facts(function: object) -> tuple[list[object], dict[str, str]]:
    """Names and defaults of a function's arguments, and their types by name."""
    taken = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    hints = {
        key: re.sub(r"[\w.]+\.(?=SchedulerMixin)", "", str(hint))
        for key, hint in get_type_hints(function).items()
    }
    return [(each.name, each.default) for each in taken], hints


@pytest.mark.parametrize("name", ["", "Karras", "AutoencoderKL", "SchedulerMixin", "PixArtAlphaPipeline"])
def test_other_classes_have_none(name: str) -> None:
    with pytest.raises(ValueError, match="is no transformer or scheduler of diffusers"):
        constructor(name)


def test_constants_of_z_image_are_those_of_its_module() -> None:
    stock = Deferred("diffusers.models.transformers.transformer_z_image")
    assert (stock.ADALN_EMBED_DIM, stock.SEQ_MULTI_OF) == (z_image.ADALN_EMBED_DIM, z_image.SEQ_MULTI_OF)
