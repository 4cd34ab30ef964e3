"""What a run is: dataclasses that Hydra composes from `conf/`, so that an unknown key is an error."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from analysis.records.files import read_text
from experiments.errors import CONF as CONF
from experiments.errors import ConfigError, check_domains, first_line
from pipefusion.core.domain import (
    AnyText,
    Count,
    Devices,
    Domain,
    Finite,
    Guidance,
    Natural,
    Pixels,
    Seed,
    Seeds,
    Steps,
    Threads,
)
from pipefusion.core.parallel import Parallel
from pipefusion.sim.hardware import DeviceConfig, HostConfig
from pipefusion.sim.network import TopologyConfig

NAMED = ("model", "method", "cluster", "measure")
"""Groups whose files say what they are called."""


@dataclass
class ModelConfig:
    """Which transformer, on what picture size. Without `weights`, random ones of `architecture` from `seed`."""

    name: str = MISSING
    weights: str | None = None  # a folder in diffusers' layout, or a hub id; safetensors only
    variant: str | None = None  # of the weights' files: fp16 for diffusion_pytorch_model.fp16.safetensors
    resolution: Pixels | None = None  # pixels of a square's side; null: what the model was made for
    height: Pixels | None = None  # null: as resolution
    width: Pixels | None = None
    frames: Annotated[int, Domain(1, 4096)] | None = None  # of a video; null: what the model was made for
    dtype: str = "float32"  # float32 | bfloat16 | float16
    text: str = (
        "auto"  # own (the weights' encoders) | minilm | random (seeded numbers) | auto: own, or random
    )
    seed: Seed = 0  # of random weights
    experts: str = "both"  # of two transformers: both, or the one in use, on predicted hardware
    tiled: bool = False  # decode latents tile by tile: less memory, faint seams
    share_decoding: bool = False  # with tiled, on cluster=local: every rank decodes its part of the tiles
    # Only for random weights: class and its constructor's arguments.
    architecture: dict[str, Finite] | None = None


@dataclass
class ClusterConfig:
    """Where the ranks run.

    `world`: local (one process a rank, wall clock), sim (one process, virtual time, real tensors) or plan (one
    process, predicted time of `hardware`, no data). `host`: own (as `hardware` and the links say) or a name of `hosts`.
    """

    name: str = "local"
    world: str = "local"  # local | sim | plan
    device: str = "auto"  # auto | cpu | cuda; sim: where pictures are sampled, its seconds are a CPU's
    backend: str = "auto"  # local: auto | gloo | nccl
    # local: a communication that takes longer is an error.
    timeout_s: Annotated[float, Domain(1, 1e6)] = 600.0
    topology: TopologyConfig = field(default_factory=TopologyConfig)  # sim and plan: the links
    hardware: DeviceConfig | None = None  # plan: the device
    host: str = "own"  # plan: eager | compiled, whose numbers replace the device's and the links'; own: these
    hosts: dict[str, HostConfig] = field(default_factory=dict)


@dataclass
class LatencyConfig:
    """`measure=latency`: untimed warm-up images, then timed ones, each repeat kept."""

    name: str = "latency"
    repeats: Count = 3
    warmup_runs: Natural = 1
    memory: bool = True
    ledger: bool = True  # write ledger.parquet
    images: bool = True  # write images/ if the model's latents are pixels


@dataclass
class WandbConfig:
    """Weights & Biases; `offline` keeps its files under `wandb/` in the run directory."""

    mode: str = "offline"  # disabled | offline | online
    project: str = "pipefusion-lab"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class LogConfig:
    """What a run tells besides its record."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    progress: bool = True


@dataclass
class RunConfig:
    """One run of one method."""

    seed: Seeds = 0  # of the noise: one for the batch, or a list, one a picture
    devices: Devices = 4  # ranks, one each; serial has one whatever is asked for
    steps: Steps = 20
    guidance_scale: Guidance | None = None  # up to 1 is none; null: the model's shipped value
    scheduler: str = "shipped"  # shipped | dpmsolver++ | ddim | flow_euler
    prompt: Annotated[Any, AnyText()] = "green apple"  # one prompt, or a list: a batch
    prompt_file: str | None = None  # a text file with a prompt a line, in place of `prompt`
    images_per_prompt: Annotated[int, Domain(1, 4096)] = 1
    negative_prompt: Annotated[str, AnyText()] = ""
    threads: Threads = 1  # per rank
    bundle: str | None = None  # of experiment=conformance: the folder to judge
    resume: bool = True  # in a sweep, leave a run alone that is already done with this very configuration
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: Parallel = field(default_factory=Parallel)  # degrees; the method's own axis has what is left
    method: Any = MISSING
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    measure: Any = MISSING
    log: LogConfig = field(default_factory=LogConfig)


def read_prompts(cfg: RunConfig) -> list[str]:
    """The prompt of each picture of the batch: pictures of one prompt follow each other.

    Raises OSError, and ValueError for a file that is no text.
    """
    if cfg.prompt_file is not None:
        lines = read_text(Path(cfg.prompt_file).expanduser()).split("\n")  # U+2028 ends no line of a file
        prompts = [line.strip() for line in lines if line.strip()]
    else:
        given = cfg.prompt if isinstance(cfg.prompt, list) else [cfg.prompt]
        prompts = [str(prompt) for prompt in given]  # a class may be given by its number
    return [prompt for prompt in prompts for _ in range(cfg.images_per_prompt)]


def as_dict(cfg: RunConfig) -> dict[str, Any]:
    """The resolved configuration in plain Python, as `config.yaml` stores it and ranks receive it."""
    content = OmegaConf.to_container(OmegaConf.structured(cfg), resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def from_hydra(cfg: DictConfig) -> RunConfig:
    """The composed configuration as dataclasses, without Hydra's own node.

    Raises ConfigError for what is missing, cannot be resolved or lies outside of its domain.
    """
    plain = deepcopy(cfg)
    with read_write(plain), open_dict(plain):
        hydra = plain.pop("hydra", None)
    try:
        run = OmegaConf.to_object(plain)
    except MissingMandatoryValue as error:
        raise ConfigError(dotted(error.full_key), "??? has to be given; allowed: a value") from None
    except OmegaConfBaseException as error:
        raise ConfigError(
            dotted(error.full_key), f"{first_line(error)}; allowed: a value of its type"
        ) from None
    assert isinstance(run, RunConfig)
    for group in NAMED if hydra is not None else ():
        name, chosen = part_name(getattr(run, group)), hydra.runtime.choices[group]
        if name is not None and name != chosen:
            text = f"{name} is set by its group; allowed: {group}=NAME instead"
            raise ConfigError(f"{group}.name", text)
    check_domains(run)
    if part_name(run.method) == "serial":
        run.devices = run.parallel.world  # no axis is its own: `devices` is meant for the methods beside it
    return run


def part_name(part: Any) -> Any:
    """The name of a method or a measure, whose dataclass may not be imported yet."""
    return part.get("name") if isinstance(part, dict) else getattr(part, "name", None)


def dotted(key: Any) -> str:
    """OmegaConf's name of a place in a list, `a[0].b`, as `a.0.b`."""
    return str(key).replace("[", ".").replace("]", "")
