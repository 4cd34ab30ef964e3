"""What the system says of this process: resident memory, its most, and bytes read from disk."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path


def resident_bytes() -> tuple[int, int]:
    """This process's memory in bytes, now and at most; where only the most is known, that twice."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        return peak, peak
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def forget_peak() -> None:
    """Let the most of `resident_bytes` begin anew. Where that cannot be done a peak is too high, never too low."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def disk_bytes() -> int | None:
    """Bytes this process has read from disks, page cache not counted; None where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def drop_cache(folder: Path) -> None:
    """Ask the system to forget the weight files, so that loading reads the disk; not all systems can be asked."""
    if hasattr(os, "posix_fadvise"):
        for path in (folder / "transformer").glob("*.safetensors"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())  # what is not written yet stays
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
