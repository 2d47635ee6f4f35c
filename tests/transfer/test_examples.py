from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("batches", "collection", "contents", "identity", "load", "marks", "report")


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"connectome_dagster.transfer.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
