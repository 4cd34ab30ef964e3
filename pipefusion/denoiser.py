"""A diffusion transformer shared over ranks, as a function from noise to latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.checkpoint import Transformer, open_transformer
from pipefusion.core.closed_forms import stages
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.local import LocalFabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.split import Split
from pipefusion.core.stepping import stepping_fault
from pipefusion.families import frame_factor
from pipefusion.methods import Attention, Chosen, choose
from pipefusion.schedulers import SCHEDULERS

SIZES = 16
"""Tables of as many sizes of pictures and lengths of prompts are kept; the parameters are shared."""


def parallelize(
    transformer: nn.Module | str | Path,
    fabric: LocalFabric,
    *,
    height: int,
    width: int,
    frames: int | None = None,
    method: str | Attention = "pipefusion",
    patches: int | None = None,
    warmup: int | str | None = None,
    split: Split | None = None,
    text_tokens: int | None = None,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    **settings: Any,
) -> Denoiser:
    """Keep this rank's part of a transformer. Every rank calls it, with the same arguments.

    Args:
        transformer: a diffusers transformer, whose parameters are used where they are (it must not be quantised,
            offloaded or compiled); or a folder, or a hub id, of which only this rank's part is read (safetensors).
        fabric: what `init` returned. Its axes say what is shared.
        height, width: of the pictures, in pixels. Other sizes may follow in the calls.
        frames: pictures of a video, 1 and a multiple of 4; None for pictures.
        method: `pipefusion`, the name of a module of `baselines`, or a function `attention(run)` that returns what the
            self-attention sites do in a job (`pipefusion/core/run.py`).
        patches: M, the patches that a pipeline works on in turn.
        warmup: W, the synchronous steps at the start; with as many as there are steps nothing is stale. `auto`: until
            the prediction changes by less than `warmup_threshold` in a step.
        split: layers per stage: `even`, `ceil`, `cost`, `bytes`, or a list.
        text_tokens: of a prompt, in an MM-DiT whose prompts have another length than its pipeline's default.
        dtype: None keeps that of the transformer or checkpoint.
        variant: of a folder or hub id, the files to read: `fp16` for `diffusion_pytorch_model.fp16.safetensors`.
        settings: what else the method's `Config` has.

    Arguments that are None are the method's own defaults: of PipeFusion a patch per stage, W = 1, `even`; of an
    attention one patch, all steps synchronous, `even`.

    Returns:
        The function to call with noise, see `Denoiser`.

    Raises:
        ValueError: a transformer without a view or without plain parameters, a size or degrees that it cannot have, an
            unknown method or setting.
        OSError: no such folder, or no configuration or safetensors in it.

    Example:
        >>> denoiser = parallelize(pipe.transformer, fabric, height=1024, width=1024, warmup=1)
    """
    opened = open_transformer(transformer, dtype, variant)
    factor = opened.pixels_per_latent
    if height % factor or width % factor:
        raise ValueError(f"{height} x {width} pixels; allowed: multiples of {factor * opened.patch}")
    size: tuple[int, ...] = (height // factor, width // factor)
    if frames is not None:
        pictures = frame_factor(opened.class_name)
        if frames < 1 or (frames - 1) % pictures:
            raise ValueError(f"frames={frames}; allowed: 1 and a multiple of {pictures}")
        size = ((frames - 1) // pictures + 1, *size)
    if split == "cost":  # which depends on the size, and other sizes have the same layers
        shape = opened.shape(size, text_tokens)
        split = [len(layers) for layers in stages(shape, fabric.axis("pipe").size, split)]
    given = {"patches": patches, "warmup": warmup, "split": split}
    chosen = choose(method, {key: value for key, value in given.items() if value is not None} | settings)
    return Denoiser(opened, fabric, chosen, size, text_tokens)


class Denoiser:
    """This rank's part of a transformer, shared by a method.

    Attributes:
        layers: the blocks that are here.
        parallel: the degree of each axis.
        pixels_per_latent: pixels of a picture's side per latent row.
        size: (frames,) height and width of the latents that it was built for.
    """

    def __init__(
        self,
        transformer: Transformer,
        fabric: LocalFabric,
        method: Chosen,
        size: tuple[int, ...],
        text_tokens: int | None,
    ):
        self.fabric, self.parallel, self.size = fabric, Parallel(**fabric.mesh.axes), size
        self.pixels_per_latent, self.class_name = transformer.pixels_per_latent, transformer.class_name
        self._transformer, self._method = transformer, method
        self._built: dict[tuple[tuple[int, ...], int, int, bool], tuple[DiT, Sampler]] = {}
        self.dit, _ = self._build(size, text_tokens)
        self.layers = self.dit.layers

    def __call__(self, noise: Tensor, conditioning: Conditioning, scheduler: Any) -> Tensor | None:
        """Denoise a batch of images. Every rank calls it, with the same arguments.

        Args:
            noise: [B, C, H, W] latents, of a video [B, C, F, H, W], equal on all ranks; another size builds nothing but
                tables anew.
            conditioning: the prompts' tensors, B rows each, by the names in `denoiser.dit.shape.prompt`; with
                `negative` ones and a scale above 1 there is classifier-free guidance. Prompts of different lengths in
                an MM-DiT, reference pictures, a first frame: see `Conditioning`.
            scheduler: of diffusers, its timesteps set. It is not changed.

        Returns:
            Latents [B, C, H, W] float32 on rank 0, None on the others.

        Raises:
            ValueError: sizes, degrees, settings or a scheduler that do not go together.
            FloatingPointError: latents that are not finite.
            RuntimeError: another rank did not take part, or the process group has ended.

        Example:
            >>> noise = torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
            >>> latents = denoiser(noise, Conditioning(prompt, 4.5, negative), scheduler)
        """
        shape = self.dit.shape
        if noise.ndim != 2 + len(self.size) or noise.shape[1] != shape.in_channels:
            sides = "H, W" if len(self.size) == 2 else "F, H, W"
            raise ValueError(f"noise {[*noise.shape]}; allowed: [B, {shape.in_channels}, {sides}]")
        require_prompts(shape.prompt, conditioning, noise.shape[0])
        check_scheduler(scheduler)
        tokens = conditioning.prompt["prompt_embeds"].shape[1] if shape.joint else shape.text_tokens
        pictures = reference_pictures(conditioning, noise), has_first_frame(conditioning, noise)
        key = (tuple(noise.shape[2:]), tokens, *pictures)
        dit, sampler = self._built.get(key) or self._build(*key)
        require(self._method.check(dit.shape, self.parallel, len(scheduler.timesteps)))
        self.fabric.clear()
        device = self.fabric.device
        with torch.no_grad():
            latents = sampler(noise.to(device, torch.float32), conditioning.to(device), scheduler)
        return latents if self.fabric.rank == 0 else None

    def prediction(self, steps: int, images: int = 1, branches: int = 1) -> Prediction | None:
        """Bytes that this rank should hold and send for a batch of images, of the size that it was built for.

        Args:
            steps: S.
            images: of all ranks.
            branches: 2 with classifier-free guidance, else 1.

        Returns:
            `param_bytes`, `kv_bytes`, `buffer_bytes`, `comm_bytes`, `sent_bytes`, `recv_bytes`, and `axis_bytes` sent
            on each axis; None for an attention of one's own, of which there is no closed form.

        Example:
            >>> denoiser.prediction(steps=20, branches=2).kv_bytes
        """
        if self._method.predict is None:
            return None
        return self._method.predict(self.dit.shape, self.parallel, self.fabric.rank, steps, images, branches)

    def _build(
        self, size: tuple[int, ...], text_tokens: int | None, references: int = 0, first_frame: bool = False
    ) -> tuple[DiT, Sampler]:
        """View and sampler for latents of a size. All sizes share the parameters of the first."""
        dit = self._transformer.view(self._transformer.shape(size, text_tokens, references, first_frame))
        require(self._method.check(dit.shape, self.parallel, self._method.warmup))
        sampler = self._method.build(dit, self.fabric)
        dit.load(self._transformer.tensors, self.fabric.device)
        if not self._built:
            self._transformer = self._transformer.holding(dit)
        if len(self._built) == SIZES:
            self._built.pop(next(iter(self._built)))
        self._built[size, dit.shape.text_tokens, references, first_frame] = dit, sampler
        return dit, sampler


def require(problem: Problem | None) -> None:
    """Raises ValueError where there is a problem."""
    if problem is not None:
        message = problem.message.replace("method.", "")  # its settings are arguments here
        raise ValueError(f"{problem.key.rpartition('.')[2]}={message}")


def reference_pictures(conditioning: Conditioning, noise: Tensor) -> int:
    """How many pictures each image is to be made from. Raises ValueError for any of another size."""
    pictures = conditioning.prompt.get("references")
    if pictures is None:
        return 0
    if pictures.ndim != 5 or (pictures.shape[0], *pictures.shape[2:]) != tuple(noise.shape):
        images, *size = noise.shape
        allowed = f"[{images}, pictures, {', '.join(map(str, size))}], of the size of the noise"
        raise ValueError(f"conditioning has references {[*pictures.shape]}; allowed: {allowed}")
    return pictures.shape[1]


def has_first_frame(conditioning: Conditioning, noise: Tensor) -> bool:
    """Whether each video begins with a frame that is given. Raises ValueError for any of another size."""
    first = conditioning.prompt.get("first_frame")
    if first is None:
        return False
    size = [*noise[:, :, :1].shape]
    if [*first.shape] != size:
        raise ValueError(f"conditioning has first_frame {[*first.shape]}; allowed: {size}, the noise's first")
    return True


def require_prompts(names: Any, conditioning: Conditioning, images: int) -> None:
    """Raises ValueError for prompts that lack a tensor, have not one row an image, or are another model's."""
    sides = [side for side in (conditioning.prompt, conditioning.negative) if side is not None]
    padded = [("padding", (1,))] if any("padding" in side for side in sides) else []
    for side in sides:
        for name, size in (*names, *padded):
            if name not in side or side[name].shape[0] != images:
                found = f"{side[name].shape[0]} rows" if name in side else "nothing"
                raise ValueError(f"conditioning has {found} of {name}; allowed: {images}, one an image")
            shape, free = [*side[name].shape], name in ("prompt_embeds", "prompt_mask", "padding")
            fits = shape[2:] == [*size[1:]] if free else shape[1:] == [*size]  # of any number of tokens
            if len(shape) != 1 + len(size) or not fits:
                raise ValueError(f"conditioning has {name} {shape}; allowed: {[images, *size]}")


def check_scheduler(scheduler: Any) -> None:
    """Raises ValueError for a scheduler that cannot be stepped patch by patch, or has no timesteps."""
    name, known = type(scheduler).__name__, [*SCHEDULERS.values()]
    if name not in known:
        raise ValueError(f"{name} is not supported; allowed: {', '.join(known)}")
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError(f"{name} has no timesteps; allowed: one after set_timesteps")
    fault = stepping_fault(scheduler)
    if fault:
        raise ValueError(
            f"{name} {fault}; allowed: a scheduler whose steps are elementwise and deterministic"
        )
