"""The feature networks: what the default gives, and how one that is not there is refused."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from experiments.errors import ConfigError
from experiments.features import features
from experiments.quality.networks import open_network


class StandIn(nn.Module):
    """In place of torch-fidelity's network: mean colours, of bytes only, with a file of weights that must be there."""

    def __init__(self, name: str, features_list: list[str], weights: str):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        torch.load(weights, weights_only=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.dtype == torch.uint8
        colours = x.double().mean((2, 3))
        return colours.mean(1, keepdim=True).expand(-1, 2048), colours


def test_the_default_network_and_its_classifier() -> None:
    network = open_network()
    pictures = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    both = network.run(pictures)
    assert network.name == "efficientnet_lite0"
    assert both[0].shape == (3, network.dim)
    assert both[1].shape == (3, 1000)
    assert both[0].dtype == both[1].dtype == torch.float32
    assert torch.equal(network.features(pictures), features(pictures))


def test_features_do_not_depend_on_the_batch() -> None:
    pictures = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = features(pictures)
    assert torch.equal(whole, features(pictures))
    for batch in (1, 3):
        torch.testing.assert_close(features(pictures, batch), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg", r"vgg is unknown; allowed: efficientnet_lite0, inception, inception:FILE \(its weights\)$"),
        ("inception", "inception needs .*metrics-inception.*allowed:"),
    ],
)
def test_a_network_that_is_not_there_is_one_line(name: str, message: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match=f"^measure.network={message}") as error:
        open_network(name)
    assert "\n" not in str(error.value)


def test_inception_with_and_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.__dict__["FeatureExtractorInceptionV3"] = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(
        ConfigError, match=r"^measure.network=inception:nowhere.pth has no weights .*allowed:"
    ) as error:
        open_network("inception:nowhere.pth")
    assert "\n" not in str(error.value)
    torch.save({}, tmp_path / "weights.pth")
    network = open_network(f"inception:{tmp_path / 'weights.pth'}")
    pooled, logits = network.run(torch.full((40, 3, 8, 8), 0.2))
    assert pooled.shape == (40, network.dim)
    assert pooled.dtype == logits.dtype == torch.float32
    assert logits.unique().tolist() == [51]
