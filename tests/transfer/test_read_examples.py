from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from connectome_dagster.frames import plain
from connectome_dagster.transfer import cursor, fields, ranges, report


@pytest.mark.parametrize("module", [cursor, fields, plain, ranges, report])
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
