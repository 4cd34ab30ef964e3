"""How well pictures fit their prompts: one interface, a scorer that ships and CLIPScore of a CLIP that is given.

The shipped one puts features of EfficientNet-Lite0 and of MiniLM into one space with two small heads, trained on emoji
(experiments/recipes/train_scorer.py). It is no CLIP, and its numbers are never called so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.errors import ConfigError, first_line
from experiments.features import WIDTH, features
from experiments.models.contents import hash_files, hash_json
from experiments.models.text import encode_prompts, quiet
from experiments.quality.networks import to_bytes
from experiments.tensors import network_sha256

FOLDER = Path(__file__).resolve().parents[2] / "results" / "models" / "emoji_scorer"
HEADS_FILE = "heads.safetensors"
TEXT_WIDTH = 384  # of MiniLM
TOKENS = 24  # the longest emoji name has fewer
CLIP_ALLOWED = "null (the shipped scorer), or a folder or hub id of a CLIP model in safetensors"


@dataclass(frozen=True)
class TextScorer:
    """`score` takes pictures [n, 3, h, w] in 0..1 and n prompts and gives cosines x 100, [n] float32.

    `score_features` does the same from EfficientNet-Lite0's features [n, 1280], for who has them already; None where
    the scorer does not use these.
    """

    name: str
    score: Callable[[Tensor, Sequence[str]], Tensor]
    score_features: Callable[[Tensor, Sequence[str]], Tensor] | None = None
    weights: str = ""  # SHA-256 over what is its own


@lru_cache
def open_scorer(clip: str | None = None, folder: Path = FOLDER) -> TextScorer:
    """CLIPScore of the model `measure.clip`, or the shipped scorer where that is null. Raises ConfigError."""
    return emoji_scorer(folder) if clip is None else clip_scorer(clip)


class Heads(nn.Module):
    """Two small networks from frozen features into one space of `width` channels, and the scale they are trained at."""

    def __init__(self, width: int = 256, hidden: int = 512, dropout: float = 0.0):
        super().__init__()
        self.image = head(WIDTH, hidden, width, dropout)
        self.text = head(TEXT_WIDTH, hidden, width, dropout)
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Image features [n, 1280], text features [m, 384] -> unit vectors [n, width], [m, width]."""
        return F.normalize(self.image(image), dim=1), F.normalize(self.text(text), dim=1)


def head(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(inputs),
        nn.Dropout(dropout),
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


def load_heads(folder: Path) -> Heads:
    """Trained heads of a folder; their sizes are those of the file. Raises OSError."""
    state = load_file(folder / HEADS_FILE)
    hidden, width = state["image.2.weight"].shape[0], state["image.5.weight"].shape[0]
    heads = Heads(width, hidden)
    heads.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return heads.eval().requires_grad_(False)


@torch.no_grad()
def text_features(prompts: Sequence[str], batch: int = 256) -> Tensor:
    """MiniLM's token states averaged over each prompt's tokens: [n, 384] float32."""
    found = []
    for start in range(0, len(prompts), batch):
        states, mask = encode_prompts(prompts[start : start + batch], "minilm", TOKENS)
        found.append(states.sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(found)


def emoji_scorer(folder: Path = FOLDER) -> TextScorer:
    """The shipped scorer. Raises ConfigError when its heads are not there."""
    try:
        heads = load_heads(folder)
    except OSError as error:
        text = f"null needs {folder / HEADS_FILE} ({first_line(error)}); allowed: {CLIP_ALLOWED}"
        raise ConfigError("measure.clip", text) from None

    def score_features(image: Tensor, prompts: Sequence[str]) -> Tensor:
        check(image, prompts)
        image, text = heads(image, text_features(prompts))
        return 100 * (image * text).sum(1)

    def score(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        check(pictures, prompts)
        return score_features(features(pictures.clamp(0, 1)), prompts)

    heads_file = hash_files(folder / HEADS_FILE)
    return TextScorer("emoji scorer (EfficientNet-Lite0 + MiniLM)", score, score_features, heads_file)


def clip_scorer(source: str) -> TextScorer:
    """torchmetrics' CLIPScore (100 x cosine, no less than 0) of a CLIP in a folder or on the hub.

    Raises ConfigError when it cannot be opened.
    """
    # Here and not above: importing transformers and torchmetrics takes seconds, and most commands score nothing.
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    try:
        with quiet():
            model = CLIPModel.from_pretrained(source, use_safetensors=True).eval().requires_grad_(False)
            # The processor of Pillow by name: the other one needs torchvision, and gives slightly other pixels.
            pixels, tokenizer = (
                kind.from_pretrained(source) for kind in (CLIPImageProcessorPil, CLIPTokenizer)
            )
    except Exception as error:  # whatever the hub, a file system or a foreign folder has to say
        text = f"{source} cannot be opened ({first_line(error)}); allowed: {CLIP_ALLOWED}"
        raise ConfigError("measure.clip", text) from None
    processor = CLIPProcessor(pixels, tokenizer)
    longest = model.config.text_config.max_position_embeddings

    def process(text: Any = None, images: Any = None, **options: Any) -> Any:
        # torchmetrics cuts long prompts after their tokens are made, and their end token with them.
        cut = {} if text is None else {"truncation": True, "max_length": longest}
        return processor(text=text, images=images, **options, **cut)

    metric = CLIPScore(lambda: (Pooled(model), process))

    @torch.no_grad()
    def score(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        check(pictures, prompts)
        found = []
        for picture, prompt in zip(to_bytes(pictures), prompts, strict=True):
            metric.reset()  # one by one, because the metric keeps sums only
            metric.update(picture, prompt)
            found.append(metric.compute())
        return torch.stack(found)

    found = hash_json([network_sha256(model), pixels.to_dict(), tokenizer.get_vocab()])
    return TextScorer(f"CLIPScore ({source})", score, weights=found)


class Pooled(nn.Module):
    """A CLIP whose features are tensors, as torchmetrics expects; transformers wraps them since its version 5."""

    def __init__(self, model: Any):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model.get_text_features(tokens, mask).pooler_output


def check(pictures: Tensor, prompts: Sequence[str]) -> None:
    """Raises ValueError unless there is a prompt for every picture."""
    if isinstance(prompts, str) or len(pictures) != len(prompts):
        raise ValueError(
            f"{len(pictures)} pictures need as many prompts, in a list; there are {len(prompts)}"
        )
