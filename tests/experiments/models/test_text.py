"""Prompts become token sequences: shapes, padding, the empty prompt, and no mixing within a batch."""

import pytest
import torch

from experiments.models.text import encode_prompts, encoder_folder


def test_shapes_and_padding() -> None:
    embeds, mask = encode_prompts(["red apple", "", "a very long prompt " * 20])
    assert embeds.shape == (3, 12, 384)
    assert embeds.dtype == mask.dtype == torch.float32
    # Start, "red", "apple", end; the empty prompt keeps start and end; a long one is cut.
    assert mask.sum(1).tolist() == [4, 2, 12]
    assert embeds[mask == 0].abs().max() == 0
    assert not embeds.requires_grad


def test_a_prompt_does_not_depend_on_its_neighbours() -> None:
    together, _ = encode_prompts(["rocket", "red apple"])
    alone, _ = encode_prompts(["rocket"])
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="minilm"):
        encoder_folder("clip")
    with pytest.raises(TypeError, match="sequence"):
        encode_prompts("red apple")
    with pytest.raises(ValueError, match="no prompts"):
        encode_prompts([])
