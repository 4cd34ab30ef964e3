"""Scores of pictures against prompts: the interface, a real CLIP in small, and refusals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from experiments.errors import ConfigError
from experiments.features import features
from experiments.quality.text_score import Heads, load_heads, open_scorer, text_features
from tests.experiments.quality.tiny_clip import save_tiny_clip

PROMPTS = ["red apple", "flat red apple", "a very long story " * 9]


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path)


@torch.no_grad()
def test_clip_score_is_that_of_the_model(clip: Path, pictures: torch.Tensor) -> None:
    scorer = open_scorer(str(clip))
    assert scorer.name == f"CLIPScore ({clip})"
    found = scorer.score(pictures, PROMPTS)
    model = CLIPModel.from_pretrained(clip).eval()
    text = CLIPTokenizer.from_pretrained(clip)(
        PROMPTS, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    whole = (pictures * 255).round().to(torch.uint8)
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(list(whole), return_tensors="pt")
    output = model(**text, **pixels)
    expected = 100 * F.cosine_similarity(output.text_embeds, output.image_embeds)
    torch.testing.assert_close(found, expected.clamp(min=0), rtol=1e-4, atol=1e-3)
    assert (found > 0).any()
    assert not torch.allclose(found, scorer.score(pictures, PROMPTS[::-1]), atol=0.1)


def test_a_clip_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            ConfigError, match=r"^measure.clip=.* cannot be opened .*; allowed: null"
        ) as error:
            open_scorer(str(source))
        assert "\n" not in str(error.value)


def test_the_scorer_of_two_heads(tmp_path: Path, pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    heads = Heads(width=8, hidden=16, dropout=0.5).eval()
    save_file(heads.state_dict(), tmp_path / "heads.safetensors")
    scorer = open_scorer(folder=tmp_path)
    assert "clip" not in scorer.name.lower()
    found = scorer.score(pictures, PROMPTS)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    image, text = load_heads(tmp_path)(features(pictures), text_features(PROMPTS))
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found, 100 * (image @ text.T).diagonal())
    torch.testing.assert_close(image, heads(features(pictures), text_features(PROMPTS))[0])


def test_no_scorer_and_wrong_numbers_of_prompts_are_refused(tmp_path: Path, pictures: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"^measure.clip=null needs .*heads.safetensors.*; allowed: "):
        open_scorer(folder=tmp_path)
    save_file(Heads(8, 16).state_dict(), tmp_path / "heads.safetensors")
    for prompts in (PROMPTS[:2], "red apple"):
        with pytest.raises(ValueError, match="3 pictures need as many prompts"):
            open_scorer(folder=tmp_path).score(pictures, prompts)


def test_text_features_are_means_over_a_prompts_own_tokens() -> None:
    found = text_features(["dog", "a red apple on a table", "dog"], batch=2)
    assert found.shape == (3, 384)
    torch.testing.assert_close(found[0], found[2])  # padding and the batch count for nothing
    assert F.cosine_similarity(*text_features(["dog", "puppy"]), dim=0) > F.cosine_similarity(
        *text_features(["dog", "bus"]), dim=0
    )
