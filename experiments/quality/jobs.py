"""The pictures of one setting that are to be there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from experiments.config import RunConfig
from experiments.quality.settings import Setting
from experiments.quality.store import Store

Failures = dict["Job", tuple[str, str]]
"""Status and reason of what did not end well."""


@dataclass(frozen=True)
class Job:
    """Pictures of one setting that are to be there: picture k has prompt k, round and round, and seed `seed` + k."""

    setting: Setting
    store: Store
    pictures: int
    prompts: tuple[str, ...]
    dtype: str
    seed: int
    texts: Path | None = None  # where the prompts are encoded, None where that is done as they are needed

    @property
    def used_prompts(self) -> tuple[str, ...]:
        """The prompts of these pictures."""
        return self.prompts[: self.pictures]

    @property
    def missing(self) -> list[range]:
        """The batches that are not in the store."""
        return [numbers for numbers in self.store.batches(self.pictures) if not self.store.has(numbers)]

    def configure(self, base: RunConfig, numbers: range) -> RunConfig:
        """The run that makes these pictures, as a command line would have it."""
        prompts = [self.prompts[k % len(self.prompts)] for k in numbers]
        seeds = [self.seed + k for k in numbers]
        run = self.setting.configure(base)
        model = replace(run.model, dtype=self.dtype)
        return replace(run, model=model, prompt=prompts, seed=seeds, prompt_file=None, images_per_prompt=1)
