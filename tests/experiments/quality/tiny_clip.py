"""A CLIP small enough to make in a test, in the hub's folder layout; nothing is read."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer


def save_tiny_clip(folder: Path) -> Path:
    """A random CLIP of 16 tokens and 32 px, with a tokenizer of letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    sizes["initializer_factor"] = 5.0  # large weights, so that the prompts are told apart
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    torch.manual_seed(2)
    model = CLIPModel(
        CLIPConfig(
            text_config={"vocab_size": len(words), "max_position_embeddings": 16, **sizes, **ends},
            vision_config={"image_size": 32, "patch_size": 8, **sizes},
            projection_dim=16,
        )
    )
    model.save_pretrained(folder)
    CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
    return folder
