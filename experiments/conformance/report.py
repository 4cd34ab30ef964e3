"""`experiment=conformance`: is it what was asked for? Equal, or where it parts and which known deviation explains it.

All deviations are run in any case. Where the results are equal, they say what the bundle could have shown: a deviation
that is within the tolerance of what was asked for, in this bundle, is one that it cannot rule out.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from analysis.presentation.looks import label
from analysis.presentation.terminal import make_console, rich_table
from experiments.config import RunConfig, as_dict
from experiments.conformance.bundle import Bundle, on_device, read_bundle
from experiments.conformance.compare import HiddenStates, Parting, errors, latents_part
from experiments.conformance.deviations import HYPOTHESES, Hypothesis
from experiments.conformance.fields import FIELDS, OWN, BundleError
from experiments.conformance.loops import denoise
from experiments.difference import NotFinite, require_finite
from experiments.environment import provenance
from experiments.errors import ConfigError, first_line
from experiments.records import display, write_json
from experiments.runs.device import choose_device
from pipefusion.core.dit import DiT
from pipefusion.core.domain import Share

COLUMNS = ["hypothesis", "error of the bundle", "distance to what was asked for", "verdict"]
EXPLAINS, NOT_SEEN, NO, NOT_FINITE = "explains it", "not visible here", "no", "not finite"


@dataclass
class ConformanceConfig:
    """`tolerance`: largest difference over largest value; null: the bundle's, or 1e-4, or 2e-2 in 16 bits."""

    name: str = "conformance"
    tolerance: Share | None = None


@dataclass(frozen=True)
class Trial:
    """One hypothesis: how far the bundle is from it, and how far it is from what was asked for."""

    hypothesis: Hypothesis
    error: float
    distance: float
    verdict: str


@dataclass(frozen=True)
class Judgement:
    """`errors` of each step (or of the last latents alone); the bundle is equal where nothing parts."""

    errors: list[float]
    latents: Parting | None
    hidden: Parting | None
    compared: int
    trials: list[Trial]

    @property
    def equal(self) -> bool:
        return self.latents is None and self.hidden is None

    def named(self, verdict: str) -> list[str]:
        """The hypotheses with a verdict, the nearest first."""
        return [trial.hypothesis.name for trial in self.trials if trial.verdict == verdict]


def check_conformance(cfg: RunConfig) -> None:
    """Raises ConfigError for a bundle that cannot be judged."""
    tolerance = cfg.measure.tolerance
    if cfg.bundle is None:
        raise ConfigError("bundle", "null has nothing to judge; allowed: a folder as in docs/conformance.md")
    try:
        read_bundle(Path(cfg.bundle).expanduser(), tolerance)
    except BundleError as error:
        raise ConfigError("bundle", f"{cfg.bundle}: {error}") from None
    try:
        choose_device(cfg.cluster.device)
    except RuntimeError as error:
        text = f"{cfg.cluster.device}: {first_line(error)}; allowed: cpu"
        raise ConfigError("cluster.device", text) from None


def conformance(cfg: RunConfig, out: Path) -> str:
    """Judge the bundle, print the answer, write `conformance.json` into `out`; the run's status."""
    assert cfg.bundle is not None
    torch.set_num_threads(cfg.threads)
    bundle = read_bundle(Path(cfg.bundle).expanduser(), cfg.measure.tolerance)
    try:
        judgement = judge(bundle, on_device(bundle, choose_device(cfg.cluster.device)))
        record = judgement_record(bundle, judgement) | {"message": message(bundle, judgement)}
    except NotFinite as error:
        judgement = None
        record = {"equal": False, "message": f"not finite, so neither equal nor different: {error}"}
    record |= {"bundle": cfg.bundle, "asked": bundle.settings} | provenance() | {"config": as_dict(cfg)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "conformance.json", record)
    if judgement is None:
        print(record["message"], file=sys.stderr)
        return "not finite"
    show(judgement, bundle, out)
    return "ok" if judgement.equal else "different"


def judge(bundle: Bundle, dit: DiT) -> Judgement:
    """Run what was asked for and every deviation that the request allows. Raises NotFinite."""
    request, shape, states = bundle.request, dit.shape, HiddenStates(bundle)
    ours = denoise(dit, request, see=states.see)
    for step, latents in enumerate(ours):
        require_finite(latents, f"the reference after step {step}")
    parting = latents_part(bundle.latents, ours, request.bands, shape, bundle.tolerance, request.whole_steps)
    possible = [hypothesis for hypothesis in HYPOTHESES if hypothesis.possible(request, shape)]
    trials = []
    for hypothesis in track(possible, "deviations", transient=True, disable=not sys.stderr.isatty()):
        latents = denoise(dit, request, hypothesis.deviation)[-len(bundle.latents) :]
        trials.append(judge_hypothesis(hypothesis, bundle, latents, ours, parting is None))
    trials.sort(key=lambda trial: trial.error)
    return Judgement(errors(bundle.latents, ours), parting, states.first, states.compared, trials)


def judge_hypothesis(
    hypothesis: Hypothesis, bundle: Bundle, latents: Tensor, ours: Tensor, equal: bool
) -> Trial:
    """A verdict on one hypothesis, whose latents are those of the steps that the bundle has."""
    if not bool(torch.isfinite(latents).all()):
        return Trial(hypothesis, inf, inf, NOT_FINITE)
    error, distance = max(errors(bundle.latents, latents)), max(errors(latents, ours))
    verdict = NO
    if not distance > bundle.tolerance:
        verdict = NOT_SEEN
    elif error <= bundle.tolerance and not equal:
        verdict = EXPLAINS
    return Trial(hypothesis, error, distance, verdict)


def message(bundle: Bundle, judgement: Judgement) -> str:
    """The answer in one line."""
    tolerance, hidden = f"tolerance {bundle.tolerance:.0e}", judgement.named(NOT_SEEN)
    steps = f"all {bundle.request.steps} steps" if bundle.every_step else "the last latents"
    if judgement.equal:
        states = f" and {judgement.compared} hidden states" if judgement.compared else ""
        text = f"equal: {steps}{states} agree to {max(judgement.errors):.1e} ({tolerance})"
        ruled = len(judgement.trials) - len(hidden)
        text += f"; {ruled} of {len(judgement.trials)} known deviations are ruled out"
        return text + (f", not visible in this bundle: {', '.join(hidden)}" if hidden else "")
    places = [f"latents at {judgement.latents}"] if judgement.latents else []
    places += [f"hidden states at {judgement.hidden}"] if judgement.hidden else []
    text = f"not equal: they part in {', '.join(places)}, {tolerance}"
    explained = [trial for trial in judgement.trials if trial.verdict == EXPLAINS]
    if explained:
        reasons = (f"{trial.hypothesis.name} ({trial.hypothesis.sentence})" for trial in explained)
        return f"{text}; explained by {' or '.join(reasons)}"
    nearest = judgement.trials[:1] if judgement.latents else []
    near = "".join(f", nearest: {trial.hypothesis.name}, off by {trial.error:.1e}" for trial in nearest)
    return f"{text}; no known deviation explains it{near}"


def judgement_record(bundle: Bundle, judgement: Judgement) -> dict[str, Any]:
    """What is stored."""
    parting = {name: getattr(judgement, name) for name in ("latents", "hidden")}
    return {
        "equal": judgement.equal,
        "tolerance": bundle.tolerance,
        "errors": judgement.errors,
        "parting": {name: None if place is None else asdict(place) for name, place in parting.items()},
        "hidden_states_compared": judgement.compared,
        "explained_by": judgement.named(EXPLAINS),
        "not_visible": judgement.named(NOT_SEEN),
        "deviations": [
            {
                "name": trial.hypothesis.name,
                "sentence": trial.hypothesis.sentence,
                "error": trial.error if isfinite(trial.error) else None,
                "distance": trial.distance if isfinite(trial.distance) else None,
                "verdict": trial.verdict,
            }
            for trial in judgement.trials
        ],
    }


def show(judgement: Judgement, bundle: Bundle, out: Path) -> None:
    """The table, and the answer: on stderr where it is no."""
    verdict = "equal" if judgement.equal else NO
    first = (label(bundle.settings["method"]), f"{max(judgement.errors):.1e}", "0", verdict)
    rows = [
        (trial.hypothesis.name, f"{trial.error:.1e}", f"{trial.distance:.1e}", trial.verdict)
        for trial in judgement.trials
    ]
    table = pd.DataFrame([first, *rows], columns=COLUMNS)
    settings = bundle.settings
    numbers = "N={devices} M={patches} W={warmup} S={steps} text={text}".format(**settings)
    request = " ".join(
        [numbers, *(f"{key}={settings[key]}" for key in OWN if settings[key] != FIELDS[key].default)]
    )
    console = make_console()
    console.print(rich_table(table, f"{bundle.model.class_name} {request}"))
    print(message(bundle, judgement), file=sys.stdout if judgement.equal else sys.stderr)
    console.print(display(out / "conformance.json"), highlight=False, soft_wrap=True)
