"""The view against the stock model, whole and band by band."""

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from experiments.config import ModelConfig
from experiments.models import open_model
from pipefusion.core.attention import local
from pipefusion.core.dit import Conditioning, parameter_parts
from pipefusion.core.split import split_rows
from tests.cases import TINY

VARIANTS = {
    "plain": {},
    "learned variance": {"out_channels": 6},
    "told the picture's size": {"use_additional_conditions": True},
    "other size than trained": {"sample_size": 24},
    "stretched positions": {"interpolation_scale": 2},
}


def both(variant):
    model = open_model(ModelConfig(name="tiny", architecture=TINY | VARIANTS[variant], resolution=48))
    view = model.view()
    view.load(model.tensors(), torch.device("cpu"))
    torch.manual_seed(0)
    return view, PixArtTransformer2DModel.from_config(model.config).eval()


@pytest.fixture(params=VARIANTS)
def pair(request):
    return both(request.param)


@torch.inference_mode()
def test_view_is_bitwise_the_stock_model(pair):
    view, stock = pair
    latent, embeds = torch.randn(2, 3, 48, 48), torch.randn(2, 7, 16)
    mask = torch.tensor([[1.0] * 7, [1.0] * 3 + [0.0] * 4])
    time = torch.tensor(321.0)
    sizes = {"resolution": torch.tensor([[48.0, 48.0]] * 2), "aspect_ratio": torch.tensor([[1.0]] * 2)}
    want = stock(
        latent,
        encoder_hidden_states=embeds,
        encoder_attention_mask=mask,
        timestep=time.expand(2),
        added_cond_kwargs=sizes if view.shape.size_conditions else None,
        return_dict=False,
    )[0][:, :3]
    rows = range(view.shape.token_rows)
    modulation, text = view.modulation(time, 2), view.text(Conditioning(embeds, mask))
    hidden = view.embed(latent, rows)
    for layer in view.layers:
        hidden = view.block(layer, hidden, modulation, text, local)
    assert torch.equal(view.unembed(hidden, modulation, rows), want)


@torch.inference_mode()
def test_bands_are_slices_of_the_whole(pair):
    """Positions above all: a band is embedded where it lies in the image, not at its top."""
    view, _ = pair
    latent = torch.randn(1, 3, 48, 48)
    whole_rows = range(view.shape.token_rows)
    whole = view.embed(latent, whole_rows)
    modulation = view.modulation(torch.tensor(10.0), 1)
    picture = view.unembed(whole, modulation, whole_rows)
    for rows in split_rows(view.shape.token_rows, 5):
        band = view.embed(latent[:, :, view.shape.band_latent(rows)], rows)
        torch.testing.assert_close(band, whole[:, view.shape.band_tokens(rows)])
        part = view.unembed(band, modulation, rows)
        torch.testing.assert_close(part, picture[:, :, view.shape.band_latent(rows)])


def test_a_stage_holds_its_parts_only():
    view, _ = both("plain")
    view.keep(range(2, 4), embed=False, unembed=True)
    assert set(parameter_parts(view)) == {"block 2", "block 3", "unembed", "conditioning"}
