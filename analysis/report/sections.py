"""The page's sections, in order, and which exhibits each shows. None is left out: what no section names comes last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from analysis.report.exhibits import Exhibit


@dataclass(frozen=True)
class Section:
    """A heading, a line or two below it, and the beginnings of the names of its exhibits."""

    name: str
    title: str
    text: str
    begins: str


SECTIONS = (
    Section(
        "devices",
        "What one device holds",
        "The question this project came from: how can each of N devices hold only 1/N of the parameters? PipeFusion "
        "cuts the layers, not the picture: a device holds the blocks of its own stage and K, V of those layers only, "
        "for all image tokens, and works on one patch after another. What no stage can do without (AdaLN, embeddings) "
        "is held more than once and counted.",
        "quickstart_pipefusion params quickstart_memory quickstart_fullest quickstart_devices accounting",
    ),
    Section(
        "verdicts",
        "Claims and verdicts",
        "Every claim of the paper that we found, and what our records say of it. The verdict is computed: confirmed, "
        "not confirmed, undecided where our interval reaches both sides, or not testable here, with the reason.",
        "claims_summary claims",
    ),
    Section(
        "sources",
        "Where the sources contradict themselves",
        "Found by computation in the published rows alone.",
        "contradictions",
    ),
    Section(
        "paper",
        "Figures and tables of the paper",
        "Which of ours stands for which of the paper's, wherever on this page it is; then those that are nothing else. "
        "What is predicted says so.",
        "paper_table paper_latency scaling paper_published paper_memory paper_communication "
        "paper_overlap paper_patches paper_warmup paper",
    ),
    Section(
        "schedule",
        "Who works on which patch of which step",
        "One lane a device.",
        "paper_schedule schedule timeline",
    ),
    Section(
        "pictures",
        "The methods side by side",
        "The same noise and the same prompts by every method on the shipped model. Seconds on a CPU rank nothing.",
        "quickstart quality_pictures",
    ),
    Section(
        "staleness",
        "How old K, V are, and what that does",
        "Measured on the shipped small model: the direction in which a setting acts, not its size on a large one.",
        "staleness",
    ),
    Section(
        "quality",
        "Quality",
        "Measured on the shipped small model, with the number of pictures and an interval for each. No distance here "
        "is the FID of the paper: the network is named with each.",
        "quality",
    ),
    Section(
        "published",
        "Every published number and ours",
        "What was measured, predicted or used for calibration, and why the rest cannot be tested here.",
        "published_vs_ours published",
    ),
    Section("further", "Further measurements", "", ""),
)


def placed(exhibits: Sequence[Exhibit]) -> list[tuple[Section, list[Exhibit]]]:
    """Each section that has something to show, with its exhibits in the order it names them."""
    found = groupby(sorted(exhibits, key=lambda one: rank(one.name)), key=lambda one: rank(one.name)[0])
    return [(SECTIONS[at], list(members)) for at, members in found]


def rank(name: str) -> tuple[int, int]:
    """The section with the longest beginning that fits, or the last, and the place of that beginning in it."""
    fits = [
        (len(start), -at, -place)
        for at, one in enumerate(SECTIONS)
        for place, start in enumerate(one.begins.split())
        if name.startswith(start)
    ]
    _, at, place = max(fits, default=(0, 1 - len(SECTIONS), 0))
    return -at, -place
