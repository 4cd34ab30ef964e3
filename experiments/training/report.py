"""What a training run leaves to look at: loss curve, sample sheets, W&B. None of it may end the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analysis.files import write_text
from experiments.training.checkpoint import Progress
from experiments.training.recipe import StageConfig
from experiments.training.sampling import default_scheduler, draw_noise, sample, save_sheet

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

    from experiments.training.loop import Corpus, TrainConfig

log = logging.getLogger(__name__)
COLUMNS = ("step", "samples", "resolution", "loss", "lr_factor", "seconds")


class Report:
    """Collects the mean loss of every `log_steps` steps; rows live in the checkpoint, so a resumed curve is whole."""

    def __init__(self, cfg: TrainConfig, out: Path, captions: list[str]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.cfg, self.out = cfg, out
        self.recent: list[torch.Tensor] = []
        self.last: float | None = None  # the loss of the last row
        every = max(1, len(captions) // max(1, cfg.sheet_prompts))
        self.shown = list(range(0, len(captions), every))[: cfg.sheet_prompts]
        self.captions = [captions[k] for k in self.shown]
        self.wandb = self._start_wandb()

    def step(self, at: Progress, stage: StageConfig, loss: torch.Tensor, factor: float) -> None:
        """After every optimiser step; `loss` [] is read once a row, since reading waits for the device."""
        self.recent.append(loss)
        if at.step % self.cfg.log_steps:
            return
        self.last = mean = float(torch.stack(self.recent).mean())
        self.recent.clear()
        row = [at.step, at.seen, stage.resolution, mean, factor, round(at.seconds, 1)]
        at.losses.append(row)
        lines = [",".join(f"{value:.7g}" for value in values) for values in at.losses]
        write_text(self.out / "loss.csv", "\n".join([",".join(COLUMNS), *lines]) + "\n")
        self._send(dict(zip(COLUMNS, row, strict=True)))

    def sheet(self, at: Progress, model: PixArtTransformer2DModel, corpus: Corpus, resolution: int) -> None:
        """Samples of the averaged weights, fixed prompts and noise, beside the real pictures."""
        text, keep = corpus.embeds[self.shown], corpus.mask[self.shown]
        noise = draw_noise(len(text), resolution, self.cfg.seed)
        device = next(model.parameters()).device.type
        with torch.autocast(device, getattr(torch, self.cfg.dtype), enabled=self.cfg.dtype != "float32"):
            made = sample(
                model,
                default_scheduler(),
                noise,
                text,
                keep,
                corpus.embeds[-1:],
                corpus.mask[-1:],
                steps=20,
                guidance=self.cfg.guidance_scale,
            )
        path = self.out / "sheets" / f"samples_{at.seen:07d}.png"
        path.parent.mkdir(exist_ok=True)
        real = corpus.pictures[self.shown].cpu() / 2 + 0.5
        save_sheet(list(zip(self.captions, made, real, strict=True)), path)
        if self.wandb is not None:
            import wandb

            self._send({"samples": at.seen, "sheet": wandb.Image(str(path))})

    def close(self, at: Progress) -> None:
        """Draw the loss curve and end the W&B run."""
        plot_loss(at.losses, self.out / "loss.png")
        if self.wandb is not None:
            self.wandb.finish()

    def _start_wandb(self) -> Any:
        if self.cfg.wandb_mode == "disabled":
            return None
        try:
            import wandb
            from omegaconf import OmegaConf

            options: dict[str, Any] = {
                "project": "pipefusion-lab",
                "dir": str(self.out),
                "mode": self.cfg.wandb_mode,
                "config": OmegaConf.to_container(OmegaConf.structured(self.cfg)),
            }
            return wandb.init(**options, settings=wandb.Settings(console="off", silent=True))
        except Exception as error:  # a sink that fails must not fail the run
            log.warning("no W&B: %s", error)
            return None

    def _send(self, row: dict[str, Any]) -> None:
        if self.wandb is not None:
            try:
                self.wandb.log(row)
            except Exception as error:
                log.warning("W&B stopped: %s", error)
                self.wandb = None


def plot_loss(rows: list[list[float]], path: Path) -> None:
    """Loss over pictures seen, one colour per resolution, logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for resolution in sorted({row[2] for row in rows}):
        part = [row for row in rows if row[2] == resolution]
        axes.plot([r[1] for r in part], [r[3] for r in part], label=f"{resolution:.0f} px", linewidth=1)
    axes.set(xlabel="pictures seen", ylabel="velocity loss (mean squared error)", yscale="log")
    if rows:
        axes.legend()
    figure.savefig(path, dpi=110)
