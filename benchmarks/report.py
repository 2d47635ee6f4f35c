"""The table and the record of a run. Takes numbers and gives text; measures nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

_MIB = 1 << 20
_PACKAGES = ("connectome-dagster", "pyarrow", "pandas", "arro3-io", "urllib3", "requests")


@dataclass(frozen=True)
class Run:
    """One run of one side, as its process tells it; see `benchmarks.cost.Cost` for the rest.

    Attributes:
        rows: documents that went through.
        digest: of every document, None if it was not asked for.
    """

    seconds: float
    cpu_seconds: float
    baseline_bytes: int
    peak_bytes: int
    rows: int
    digest: str | None

    @property
    def over_bytes(self) -> int:
        return self.peak_bytes - self.baseline_bytes


@dataclass(frozen=True)
class Comparison:
    """A row of the table: the runs of both sides, in the order in which they were made.

    Attributes:
        name: of the row, as for `--only`.
        bytes: of the documents as JSON.
        product: runs of the package.
        alternative: runs of what a user would write, or of what `beside` says.
        beside: what the alternative is called.
    """

    name: str
    bytes: int
    product: Sequence[Run]
    alternative: Sequence[Run]
    beside: str = "by hand"

    @property
    def times_faster(self) -> float:
        return _median(self.alternative, "seconds") / _median(self.product, "seconds")

    @property
    def memory_share(self) -> float:
        return _median(self.product, "peak_bytes") / _median(self.alternative, "peak_bytes")


def _median(runs: Sequence[Run], name: str) -> float:
    return median(float(getattr(run, name)) for run in runs)


def table(comparisons: Sequence[Comparison]) -> str:
    """Write the comparisons as a Markdown table, two lines for each."""
    lines = [
        "| what | side | s, median | s, best | CPU s | MB/s | rows/s | peak MiB | over its start"
        " | speed | peak |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in comparisons:
        ratios = f"**{each.times_faster:.1f} x** | {each.memory_share:.2f} x"
        lines.append(_line(each, "package", each.product, ratios))
        lines.append(_line(each, each.beside, each.alternative, "1 | 1"))
    return "\n".join(lines)


def _line(each: Comparison, side: str, runs: Sequence[Run], ratios: str) -> str:
    seconds = _median(runs, "seconds")
    cells = [
        each.name,
        side,
        f"{seconds:.3f}",
        f"{min(run.seconds for run in runs):.3f}",
        f"{_median(runs, 'cpu_seconds'):.3f}",
        f"{each.bytes / seconds / 1e6:.0f}",
        f"{runs[0].rows / seconds:,.0f}",
        f"{_median(runs, 'peak_bytes') / _MIB:.0f}",
        f"{_median(runs, 'over_bytes') / _MIB:.0f}",
        ratios,
    ]
    return f"| {' | '.join(cells)} |"


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def record(comparisons: Sequence[Comparison], before: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for a file; `before` is `machine()` at the start."""
    return {
        "machine": {**before, "load_average_after": os.getloadavg()[0]},
        "rows": [
            {
                **asdict(each),
                "times_faster": each.times_faster,
                "memory_share": each.memory_share,
            }
            for each in comparisons
        ],
    }
