"""The tables and the record of a run. Takes numbers and gives text; measures nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

_MB = 1e6
_PACKAGES = ("connectome-dagster", "pyarrow", "pandas", "arro3-io", "urllib3", "requests")


@dataclass(frozen=True)
class Run:
    """One run of one side, as its process tells it.

    See `benchmarks.cost.Cost` and `benchmarks.side.Did` for the rest.

    Attributes:
        digest: of every document, None if it was not asked for.
    """

    seconds: float
    cpu_seconds: float
    baseline_bytes: int
    peak_bytes: int
    rows: int
    requests: int | None
    sent_share: float | None
    guarantee: str | None
    written: int | None
    digest: str | None

    @property
    def over_bytes(self) -> int:
        return self.peak_bytes - self.baseline_bytes

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_seconds_per_row(self) -> float:
        return self.cpu_seconds / self.rows

    @property
    def requests_per_row(self) -> float:
        assert self.requests is not None
        return self.requests / self.rows


@dataclass(frozen=True)
class Measured:
    """What was measured of one side.

    Attributes:
        runs: in the order in which they were made.
        row_bytes: of a document as JSON, in the mean.
    """

    runs: Sequence[Run]
    row_bytes: float

    def median(self, name: str) -> float:
        return median(float(getattr(run, name)) for run in self.runs)


class Measure(NamedTuple):
    """Something that has a target.

    Attributes:
        text: what follows its number; `{beside}` is what the alternative is called.
        of: takes it of a comparison.
        at_most: whether less of it is better.
        alone: whether the package is looked at alone.
    """

    text: str
    of: Callable[[Comparison], float]
    at_most: bool
    alone: bool = False


class Target(NamedTuple):
    """What a row should reach: a measure and its bound."""

    measure: Measure
    bound: float

    def met(self, value: float) -> bool:
        return value <= self.bound if self.measure.at_most else value >= self.bound

    def text(self, beside: str) -> str:
        bound = "at most" if self.measure.at_most else "at least"
        return f"{bound} {self.bound:.3g} {self.measure.text.format(beside=beside)}"


@dataclass(frozen=True)
class Comparison:
    """A row of the table.

    Attributes:
        name: of the row, as for `--only`.
        product: of the package.
        alternative: of what a user would write, or of what `beside` says; None if there is none.
        beside: what the alternative is called.
        targets: what should be reached.
        missing: why there is no alternative where there should be one.
    """

    name: str
    product: Measured
    alternative: Measured | None
    beside: str = "by hand"
    targets: Sequence[Target] = ()
    missing: str = ""

    @property
    def times_faster(self) -> float:
        """Of rows per second: a side that takes long may have handled fewer."""
        return self._ratio("rows_per_second")

    @property
    def cpu_share(self) -> float:
        """For as many rows; on a busy machine it says more than the speed."""
        return self._ratio("cpu_seconds_per_row")

    @property
    def memory_share(self) -> float:
        return self._ratio("peak_bytes")

    @property
    def requests_share(self) -> float:
        """For as many rows."""
        return self._ratio("requests_per_row")

    @property
    def growth(self) -> float:
        """Of the memory over the imports; a few documents may take none that is seen."""
        assert self.alternative is not None
        before = max(1.0, self.alternative.median("over_bytes"))
        return self.product.median("over_bytes") / before - 1

    def _ratio(self, name: str) -> float:
        assert self.alternative is not None
        return self.product.median(name) / self.alternative.median(name)

    def reached(self) -> list[tuple[Target, float | None]]:
        """Every target with what was measured; None where there was nothing to compare with."""
        return [
            (
                target,
                target.measure.of(self) if self.alternative or target.measure.alone else None,
            )
            for target in self.targets
        ]


SPEED = Measure("x the rows/s of {beside}", lambda it: it.times_faster, at_most=False)
GROWTH = Measure(
    "% more memory than {beside}", lambda it: (it.memory_share - 1) * 100, at_most=True
)
GROWTH_OVER_START = Measure(
    "% more memory over its imports than {beside}", lambda it: it.growth * 100, at_most=True
)
OVER_START = Measure(
    "MB over its imports",
    lambda it: it.product.median("over_bytes") / _MB,
    at_most=True,
    alone=True,
)
REQUESTS = Measure(
    "% of the requests of {beside}, for as many rows",
    lambda it: it.requests_share * 100,
    at_most=True,
)
SENT = Measure(
    "% of the bytes sent when the first batch is out",
    lambda it: it.product.median("sent_share") * 100,
    at_most=True,
    alone=True,
)


def table(comparisons: Sequence[Comparison]) -> str:
    """Write what was measured as a Markdown table, a line for each side.

    An alternative that is there already, for an earlier row, is not written again.
    """
    lines = [
        "| what | side | s, median | s, best | CPU s | MB/s | rows/s | peak MB | over imports"
        " | speed | CPU | peak |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    written: list[Sequence[Run]] = []
    for each in comparisons:
        if each.alternative is None:
            lines.append(_line(each.name, "package", each.product, " |  | "))
            if each.missing:
                lines.append(f"| {each.name} | {each.beside}: {each.missing} |{' |' * 10}")
            continue
        shares = f"{each.cpu_share:.2f} x | {each.memory_share:.2f} x"
        ratios = f"**{each.times_faster:.2f} x** | {shares}"
        lines.append(_line(each.name, "package", each.product, ratios))
        if each.alternative.runs not in written:
            written.append(each.alternative.runs)
            lines.append(_line(each.name, each.beside, each.alternative, "1 | 1 | 1"))
    return "\n".join(lines)


def _line(name: str, side: str, measured: Measured, ratios: str) -> str:
    rate = measured.median("rows_per_second")
    cells = [
        name,
        side,
        f"{measured.median('seconds'):.3f}",
        f"{min(run.seconds for run in measured.runs):.3f}",
        f"{measured.median('cpu_seconds'):.3f}",
        f"{rate * measured.row_bytes / _MB:.0f}",
        f"{rate:,.0f}",
        f"{measured.median('peak_bytes') / _MB:.0f}",
        f"{measured.median('over_bytes') / _MB:.1f}",
        ratios,
    ]
    return f"| {' | '.join(cells)} |"


def targets_table(comparisons: Sequence[Comparison]) -> str:
    """Write what should be reached and what was, as a Markdown table."""
    lines = ["| what | target | measured | met |", "|---|---|--:|---|"]
    for each in comparisons:
        for target, value in each.reached():
            measured = "not measured" if value is None else f"{value:.3g}"
            met = "?" if value is None else "yes" if target.met(value) else "**no**"
            lines.append(f"| {each.name} | {target.text(each.beside)} | {measured} | {met} |")
    return "\n".join(lines)


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
        "rows": [_recorded(each) for each in comparisons],
    }


def _recorded(each: Comparison) -> dict[str, Any]:
    compared = each.alternative is not None
    return {
        "name": each.name,
        "product": [asdict(run) for run in each.product.runs],
        "alternative": [asdict(run) for run in each.alternative.runs] if each.alternative else [],
        "beside": each.beside,
        "missing": each.missing,
        "row_bytes": each.product.row_bytes,
        "times_faster": each.times_faster if compared else None,
        "cpu_share": each.cpu_share if compared else None,
        "memory_share": each.memory_share if compared else None,
        "targets": [
            {
                "target": target.text(each.beside),
                "bound": target.bound,
                "measured": value,
                "met": None if value is None else target.met(value),
            }
            for target, value in each.reached()
        ],
    }
