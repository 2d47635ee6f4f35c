"""Connectome collections as Arrow and pandas frames, in Dagster and without it.

Names are imported when they are first used, so that the command line, the pytest plugin and the
engine do not pay for Dagster, nor Dagster's code server for pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster_shared.libraries import DagsterLibraryRegistry

if TYPE_CHECKING:
    from connectome_dagster.checks import build_connectome_checks as build_connectome_checks
    from connectome_dagster.errors import ConnectomeError as ConnectomeError
    from connectome_dagster.frames.encoding import Encoding as Encoding
    from connectome_dagster.io_manager import ConnectomeIOManager as ConnectomeIOManager
    from connectome_dagster.resource import ConnectomeResource as ConnectomeResource
    from connectome_dagster.sensors import (
        build_connectome_observable as build_connectome_observable,
    )
    from connectome_dagster.sensors import build_connectome_sensor as build_connectome_sensor
    from connectome_dagster.sensors import build_reconcile_sensor as build_reconcile_sensor
    from connectome_dagster.transfer.collection import Collection as Collection
    from connectome_dagster.transfer.collection import Connectome as Connectome
    from connectome_dagster.transfer.read import Documents as Documents
    from connectome_dagster.transfer.report import ReadReport as ReadReport
    from connectome_dagster.transfer.report import WriteReport as WriteReport

__version__ = "0.1.0"

_HOMES = {
    "Collection": "transfer.collection",
    "Connectome": "transfer.collection",
    "ConnectomeError": "errors",
    "ConnectomeIOManager": "io_manager",
    "ConnectomeResource": "resource",
    "Documents": "transfer.read",
    "Encoding": "frames.encoding",
    "ReadReport": "transfer.report",
    "WriteReport": "transfer.report",
    "build_connectome_checks": "checks",
    "build_connectome_observable": "sensors",
    "build_connectome_sensor": "sensors",
    "build_reconcile_sensor": "sensors",
}

__all__ = [*_HOMES, "__version__"]

DagsterLibraryRegistry.register("connectome-dagster", __version__, is_dagster_package=False)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
