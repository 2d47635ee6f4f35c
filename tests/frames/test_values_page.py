"""What docs/values.md says is run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from connectome_dagster.frames.decode import Hints, decode

PAGE = Path(__file__).parents[2] / "docs" / "values.md"
_CODE = re.compile(r"`([^`]+)`")

TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
pytestmark = pytest.mark.skipif(not TEXT, reason="docs/ is not here, as in the source package")

ROWS = [
    (_CODE.findall(values), _CODE.findall(type_)[0])
    for values, type_ in re.findall(r"^\| (`.*?) \| (`.*?`) \|", TEXT, re.MULTILINE)
]


def test_the_page_has_its_table() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("values", "type_"), ROWS, ids=lambda value: str(value)[:40])
def test_values_become_what_the_table_says_in_any_order(values: list[str], type_: str) -> None:
    for texts in (values, values[::-1]):
        batch = decode(",".join(f'{{"a":{text}}}' for text in texts).encode(), Hints()).batch
        if type_.startswith("struct<") and texts is not values:
            assert batch.schema.field("a").type.num_fields == type_.count(":")
        else:
            assert str(batch.schema.field("a").type) == type_


def test_the_examples_run() -> None:
    ran = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert ran.attempted > 10
    assert not ran.failed
