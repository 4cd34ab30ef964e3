"""Tiny random text encoders, and tokenizers that are built of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.experiments.tiny_transformers import WIDTH

WORDS = ["red", "apple", "green", "dragon", "blurry"]
LETTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
LANGUAGE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": WIDTH, "head_dim": 8,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
}  # fmt: skip


def t5() -> transformers.T5EncoderModel:
    """T5 v1.1: gated, one layer."""
    config = transformers.T5Config(
        vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.T5EncoderModel(config)


def clip(kind: Any) -> Any:
    """The text part of CLIP, two layers: Stable Diffusion 3 reads the last but one."""
    config = transformers.CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2, hidden_size=8, intermediate_size=8, projection_dim=8,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77,
        bos_token_id=2 * len(LETTERS), eos_token_id=2 * len(LETTERS) + 1,
    )  # fmt: skip
    return kind(config)


def t5_tokenizer(folder: Path) -> tuple[str, str]:
    """A tokenizer.json as it is on the hub beside spiece.model: Unigram pieces, padding first, `</s>` at the end."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz,."]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    # The hub's have 100 more tokens, of T5's training task.
    write_tokenizer_config(folder, "T5Tokenizer", extra_ids=0, model_max_length=512)
    return "transformers", "T5TokenizerFast"


def clip_tokenizer(folder: Path) -> tuple[str, str]:
    """vocab.json and merges.txt, where nothing is merged: a letter a token."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    write_tokenizer_config(folder, "CLIPTokenizer", model_max_length=77)
    return "transformers", "CLIPTokenizer"


def byte_tokenizer(folder: Path, kind: str, template: str) -> None:
    """A tokenizer.json with a byte a token, and a chat template."""
    alphabet = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template)
    end = "<|endoftext|>"
    write_tokenizer_config(folder, kind, bos_token=end, eos_token=end, pad_token=end, model_max_length=1024)


def write_tokenizer_config(folder: Path, kind: str, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **config}))
