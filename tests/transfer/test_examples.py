"""The examples in the docstrings of everything that needs no server to run them."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import connectome_dagster

HOME = Path(connectome_dagster.__file__).parent

MODULES = [
    f"{folder}.{path.stem}"
    for folder in ("frames", "transfer")
    for path in sorted((HOME / folder).glob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"connectome_dagster.{module}"))
    assert found.failed == 0


def test_there_are_examples() -> None:
    assert len(MODULES) > 20
