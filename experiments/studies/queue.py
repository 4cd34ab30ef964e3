"""Requests at replicas in virtual time: when each arrives, waits and is done. Service takes the same time for all."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.records.files import read_text
from experiments.errors import ConfigError

Times = np.ndarray
"""Seconds [requests], float64."""


def poisson(requests: int, seed: int) -> Times:
    """When requests arrive at a rate of one a second; divided by a rate they have that one."""
    return np.cumsum(np.random.default_rng(seed).exponential(size=requests))


def latencies(arrivals: Sequence[float] | Times, service_s: float, replicas: int) -> Times:
    """Seconds from arrival to result, the requests in order of arrival.

    Each joins the queue that will be empty first; a replica serves its queue first come, first served. Since service
    takes the same time for all, this is one queue in front of all replicas: M/D/c where arrivals are Poisson's.
    """
    free, found = [0.0] * replicas, np.empty(len(arrivals))
    for number, arrival in enumerate(arrivals):
        done = max(arrival, free[0]) + service_s
        heapq.heapreplace(free, done)
        found[number] = done - arrival
    return found


def read_trace(path: str) -> list[float]:
    """Arrival seconds of a CSV with a column `arrival_s`, in order and from 0 on. Raises ConfigError."""
    allowed = "allowed: a CSV file with a column arrival_s of numbers, 0 or more"
    try:
        header, *lines = read_text(Path(path).expanduser()).splitlines() or [""]
        names = [name.strip() for name in header.split(",")]
        if "arrival_s" not in names:
            raise ConfigError("measure.trace", f"{path!r} has no column arrival_s; {allowed}")
        at = names.index("arrival_s")
        found = sorted(float(line.split(",")[at]) for line in lines if line.strip())
    except OSError as error:
        raise ConfigError("measure.trace", f"{path!r} cannot be read ({error.strerror}); {allowed}") from None
    except ConfigError:
        raise
    except (ValueError, IndexError, RuntimeError) as error:
        raise ConfigError("measure.trace", f"{path!r} is no such file ({error}); {allowed}") from None
    if not found or not np.isfinite(found).all() or found[0] < 0:
        raise ConfigError("measure.trace", f"{path!r} has no such arrivals; {allowed}")
    return found
