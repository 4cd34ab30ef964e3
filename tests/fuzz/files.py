"""What a command reads, in its place what is none: cut, swapped, foreign, of another kind, without an end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from analysis.__main__ import main as analysis
from experiments import replay
from experiments.command import cli
from experiments.conformance.bundle import read_bundle
from experiments.conformance.fields import BundleError
from experiments.errors import ConfigError
from pipefusion.core.weights import NAME
from tests.fuzz.configurations import BASE, ESCAPE
from tests.fuzz.verdict import ACCEPTED, SILENT, Verdict, tried

RESULTS = Path(__file__).resolve().parents[2] / "results"
RUN = RESULTS / "records/quickstart/pipefusion"
Change = Callable[[Path, bytes], Any]
"""Puts something in the place of a file, which held these bytes and is gone."""


def twice(path: Path, content: bytes) -> None:
    """The folder's file of the same ending that is not this one, or the content two times."""
    others = [other for other in sorted(path.parent.glob(f"*{path.suffix}")) if other != path]
    path.write_bytes(others[0].read_bytes() if others else content * 2)


CHANGES: dict[str, Change] = {
    "absent": lambda path, content: None,
    "directory": lambda path, content: path.mkdir(),
    "pipe": lambda path, content: os.mkfifo(path),
    "device": lambda path, content: path.symlink_to("/dev/zero"),
    "loop": lambda path, content: path.symlink_to(path.name),
    "dangling": lambda path, content: path.symlink_to("nowhere"),
    "empty": lambda path, content: path.touch(),
    "binary": lambda path, content: path.write_bytes(bytes(range(256))),
    "zeros": lambda path, content: path.write_bytes(bytes(len(content) or 1)),
    "half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "less a byte": lambda path, content: path.write_bytes(content.rstrip()[:-1]),
    "deep": lambda path, content: path.write_text("[" * 100_000),
    "list": lambda path, content: path.write_text("[]"),
    "number": lambda path, content: path.write_text("7"),
    "mapping": lambda path, content: path.write_text("{}"),
    "foreign": lambda path, content: path.write_text(json.dumps({"status": [ESCAPE], "_class_name": {}})),
    "endless header": lambda path, content: path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}"),
    "latin-1": lambda path, content: path.write_bytes(b"\xe9" + content),
    "swapped": twice,
}
"""What no command may take for the file that was there."""
VALUES: tuple[Any, ...] = (
    None,
    [],
    {},
    "x",
    ESCAPE,
    -1,
    1e308,
    True,
    [None],
    {"a": ["b"]},
    1 << 70,
    float("nan"),
)
"""What may stand in place of a key's value in a JSON file."""


@dataclass(frozen=True)
class Subject:
    """A folder that is copied, the files in it that a command cannot do without, and the command."""

    source: Path
    files: tuple[str, ...]
    attempt: Callable[[Path], str | None]
    keys: tuple[str, ...] | None = None
    """Of its JSON files: those whose values are changed, None for all."""


def refused(command: list[str]) -> str | None:
    """The line that refuses a run, or None."""
    try:
        cli.checked(cli.arguments([*BASE, *command]))
    except ConfigError as error:
        return str(error)
    return None


def bundle(folder: Path) -> str | None:
    """The line that refuses a bundle, or None."""
    try:
        read_bundle(folder)
    except BundleError as error:
        return str(error)
    return None


def printed(main: Callable[[list[str]], int], *arguments: str) -> str | None:
    """What a command says when it fails, as if it named what is allowed, which not all of them do; else None."""
    errors = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(errors):
        code = main([*arguments])
    line = errors.getvalue().removesuffix("\n")
    return f"{line} allowed: " if code == 2 or (code and line) else None


SUBJECTS: dict[str, Subject] = {
    "model": Subject(
        RESULTS / "models/emoji64",
        ("transformer/config.json", f"transformer/{NAME}", "scheduler/scheduler_config.json"),
        lambda folder: refused([f"model.weights={folder}"]),
    ),
    "facts": Subject(
        RESULTS / "models/emoji64", ("pipefusion_lab.json",), lambda folder: refused([f"model.weights={folder}"])
    ),
    "prompts": Subject(RUN, ("run.json",), lambda folder: refused([f"prompt_file={folder / 'run.json'}"]), ()),
    "compare": Subject(
        RUN,
        ("run.json", "config.yaml", "ranks.csv"),
        lambda folder: printed(analysis, "compare", str(RUN), str(folder)),
    ),
    "timeline": Subject(
        RUN, ("run.json", "config.yaml", "timeline.parquet"), lambda folder: printed(analysis, "timeline", str(folder))
    ),
    "replay": Subject(
        RUN,
        ("run.json", "config.yaml", "inputs.safetensors", "latents.safetensors"),
        lambda folder: printed(replay.main, str(folder)),
        ("status", "method", "method_config", "scheduler", "steps", "dtype", "weights", "guidance_scale"),
    ),
    "bundle": Subject(RUN, ("run.json", "config.yaml", "inputs.safetensors", "latents.safetensors"), bundle),
    "study": Subject(
        RESULTS / "records/scaling",
        ("record.json", "rows.parquet"),
        lambda folder: printed(analysis, "compare", str(RESULTS / "records/scaling"), str(folder)),
    ),
}  # fmt: skip
NOT_THERE = {"absent", "dangling", "loop"}
WITHOUT_DEGREES = {*NOT_THERE, "swapped", "half", "less a byte", "mapping", "foreign"}
FITS = {
    "prompts: run.json": {"half", "less a byte", "deep", "list", "number", "mapping", "foreign", "swapped"},  # any text
    "facts: pipefusion_lab.json": {*NOT_THERE, "mapping"},
    "compare: config.yaml": WITHOUT_DEGREES,
    "compare: ranks.csv": NOT_THERE,
    "timeline: config.yaml": WITHOUT_DEGREES,
    "replay: config.yaml": {"swapped", "less a byte"},  # of which the model alone is read
    "bundle: config.yaml": {"swapped", "less a byte"},
    "study: rows.parquet": {"swapped"},  # two times the same, of which the last is read
}  # fmt: skip
"""Changes after which a file is still one that its command may take, or need not have."""


@dataclass(frozen=True)
class Case:
    """One file of a subject, changed; with a `key` that of its JSON content has another value."""

    subject: str
    file: str
    change: str
    key: str = ""
    value: Any = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.file} {self.change or f'{self.key}={self.value!r}'}"


def cases(values: int = 2) -> Iterator[Case]:
    """All files with all changes; all keys of JSON files with some values, which differ from key to key."""
    for name, subject in SUBJECTS.items():
        for file in subject.files:
            for change in CHANGES:
                yield Case(name, file, change)
            if not file.endswith(".json"):
                continue
            content = json.loads((subject.source / file).read_text())
            for place, key in enumerate(content if subject.keys is None else subject.keys):
                for step in range(values):
                    yield Case(name, file, "", key, VALUES[(place * 5 + step * 4) % len(VALUES)])


def verdict(case: Case) -> Verdict:
    """What the command comes to with the changed file; none but a change that fits may be accepted."""
    subject = SUBJECTS[case.subject]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "it"
        shutil.copytree(subject.source, place)
        path = place / case.file
        content = path.read_bytes()
        path.unlink()
        if case.change:
            CHANGES[case.change](path, content)
        else:
            path.write_text(json.dumps(json.loads(content) | {case.key: case.value}))
        found = tried(lambda: subject.attempt(place))
    fits = not case.change or case.change in FITS.get(f"{case.subject}: {case.file}", ())
    return Verdict(SILENT) if found.kind == ACCEPTED and not fits else found
