"""What running something costs this process: seconds and memory. Knows nothing of what is run."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: of all threads of this process.
        baseline_bytes: resident memory before the run, imports included.
        peak_bytes: the most that was resident during the run, the baseline included.
    """

    seconds: float
    cpu_seconds: float
    baseline_bytes: int
    peak_bytes: int


def measured(run: Callable[[], T]) -> tuple[T, Cost]:
    """Run it once and say what it cost."""
    gc.collect()
    with suppress(OSError):  # elsewhere the peak is that since the process began
        _PEAK_RESET.write_text("5")
    baseline = _resident("VmRSS")
    cpu, start = time.process_time(), time.perf_counter()
    value = run()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    # The kernel counts resident pages a processor at a time, so a small run may seem to end below.
    return value, Cost(seconds, cpu_seconds, baseline, max(baseline, _resident("VmHWM")))


def _resident(name: str) -> int:
    """Resident memory in bytes: now (VmRSS) or at its peak (VmHWM).

    Linux's `ru_maxrss` begins with the peak of the process that started this one, so it is taken
    only where there is nothing better.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    import resource  # not on every platform, and not needed where /proc is

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
