"""What a training run leaves to look at: loss curve, sample sheets, W&B. None of it may end the run."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers.models import ModelMixin

from analysis.records.files import write_text
from experiments.clips import unpack
from experiments.recipes.checkpoint import Progress
from experiments.recipes.config import Corpus, TrainConfig
from experiments.recipes.network import StageConfig
from experiments.recipes.sampling import default_scheduler, draw_noise, sample, save_films, save_sheet
from experiments.recipes.seeds import seeded
from experiments.spaced import spaced

log = logging.getLogger(__name__)
COLUMNS = ["step", "samples", "resolution", "loss", "lr_factor", "seconds"]


class Report:
    """Collects the mean loss of every `log_steps` steps; rows live in the checkpoint, so a resumed curve is whole."""

    def __init__(self, cfg: TrainConfig, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.cfg, self.out = cfg, out
        self.recent: list[torch.Tensor] = []
        self.last = ""  # the loss of the last row
        self.wandb = self._start_wandb()

    def step(self, at: Progress, resolution: int, loss: torch.Tensor, factor: float) -> None:
        """After every optimiser step; `loss` [] is read once a row, since reading waits for the device."""
        self.recent.append(loss)
        if at.step % self.cfg.log_steps:
            return
        mean = float(torch.stack(self.recent).mean())
        self.last = f", loss {mean:.3f}"
        self.recent.clear()
        at.losses.append([at.step, at.seen, resolution, mean, factor, round(at.seconds, 1)])
        write_text(self.out / "loss.csv", curve(at).to_csv(index=False, float_format="%.7g"))
        self._send(dict(zip(COLUMNS, at.losses[-1], strict=True)))

    def sheet(self, at: Progress, model: ModelMixin, corpus: Corpus, stage: StageConfig) -> None:
        """Samples of the averaged weights, fixed prompts and noise, beside real ones."""
        shown = spaced(range(len(corpus.samples)), self.cfg.sheet_prompts)
        text = [*shown, -1]
        device = corpus.embeds.device
        places = torch.tensor(shown, device=device)
        real = corpus.samples.draw(places, stage, seeded(self.cfg.seed, 3, device=device)).cpu() / 2 + 0.5
        noise = draw_noise(len(shown), real.shape[1:], self.cfg.seed)
        with torch.autocast(model.device.type, getattr(torch, self.cfg.dtype), self.cfg.dtype != "float32"):
            made = sample(
                model,
                default_scheduler(),
                noise,
                corpus.embeds[text],
                corpus.mask[text],
                steps=20,
                guidance=self.cfg.guidance_scale,
            )
        path = self.out / "sheets" / f"samples_{at.seen:07d}.png"
        path.parent.mkdir(exist_ok=True)
        captions = [corpus.prompts["train"][k] for k in shown]
        if real.ndim == 5:
            made, real = (unpack(clips, self.cfg.network.frame_factor) for clips in (made, real))
            save_films(list(zip(captions, made, real, strict=True)), path)
        else:
            save_sheet(list(zip(captions, made, real, strict=True)), path)
        if self.wandb is not None:
            import wandb

            self._send({"samples": at.seen, "sheet": wandb.Image(str(path))})

    def close(self, at: Progress) -> None:
        """Draw the loss curve, over pictures seen, a colour per resolution; end the W&B run."""
        # Here and not above: it takes a second, and most commands train nothing.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for resolution, part in curve(at).groupby("resolution"):
            axes.plot(part["samples"], part["loss"], label=f"{resolution} px", linewidth=1)
        axes.set(xlabel="pictures seen", ylabel="velocity loss (mean squared error)", yscale="log")
        if at.losses:
            axes.legend()
        figure.savefig(self.out / "loss.png", dpi=110)
        if self.wandb is not None:
            self.wandb.finish()

    def _start_wandb(self) -> Any:
        if self.cfg.wandb_mode == "disabled":
            return None
        try:
            import wandb

            return wandb.init(
                project="pipefusion-lab",
                dir=str(self.out),
                mode=self.cfg.wandb_mode,  # type: ignore[arg-type]
                config=asdict(self.cfg),
                settings=wandb.Settings(console="off", silent=True),
            )
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


def curve(at: Progress) -> pd.DataFrame:
    """The loss curve so far."""
    return pd.DataFrame(at.losses, columns=COLUMNS)
