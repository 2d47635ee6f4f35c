from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from connectome_dagster.api import client, credentials, endpoints, pace, retry, verdict, wire


@pytest.mark.parametrize("module", [client, credentials, endpoints, pace, retry, verdict, wire])
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
