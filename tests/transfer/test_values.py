"""Values over the wire: what was written in any form is read back equal, from a real server."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from connectome_dagster.frames.encoding import Encoding
from tests.frames.batches import ENCODINGS
from tests.transfer.conftest import Local

INSTANTS = [0, None, -62_000_000_000_000, 1_517_443_200_001]
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "n": (pa.int64(), [0, 1, 2, 3]),
    "int8": (pa.int8(), [1, None, -128, 127]),
    "uint64": (pa.uint64(), [2**63 - 1, None, 0, 1]),
    "float64": (pa.float64(), [1.5, None, -0.0, 5e-324]),
    "bool": (pa.bool_(), [True, None, False, True]),
    "string": (pa.string(), ["a", None, "", "2018-02-01T00:00:00.000Z"]),
    "category": (pa.dictionary(pa.int32(), pa.string()), ["a", None, "b", "a"]),
    "instant": (pa.timestamp("ms", "UTC"), INSTANTS),
    "zoned": (pa.timestamp("ms", "Europe/Zurich"), INSTANTS),
    "naive": (pa.timestamp("ms"), INSTANTS),
    "date": (pa.date32(), [date(2018, 2, 1), None, date(1, 1, 1), date(9999, 12, 31)]),
    "time": (pa.time64("us"), [time(1, 2, 3, 4), None, time(0), time(23, 59, 59, 999_999)]),
    "decimal": (pa.decimal128(34, 2), [Decimal("1.50"), None, Decimal(0), Decimal("9" * 32)]),
    "binary": (pa.binary(), [b"", None, b"\0\1\xff", b"x" * 300]),
    "uuid": (pa.binary(16), [bytes(16), None, bytes(range(16)), b"\xff" * 16]),
    "list": (pa.list_(pa.decimal128(9, 1)), [[Decimal("1.5"), None], None, [], [Decimal(2)]]),
    "struct": (
        pa.struct({"a.b": pa.timestamp("ms"), "": pa.binary()}),
        [{"a.b": 5, "": b"x"}, None, {"a.b": None, "": None}, {"a.b": -1, "": b""}],
    ),
    "map": (
        pa.map_(pa.string(), pa.timestamp("ms", "UTC")),
        [[("k", 1), ("l", None)], None, [], [("m", 2)]],
    ),
}
FRAME = pa.table({name: pa.array(values, type_) for name, (type_, values) in VALUES.items()})


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: "-".join(vars(each).values()))
def test_a_frame_in_any_form_is_equal_when_it_is_read_with_its_schema(
    local: Local, encoding: Encoding
) -> None:
    things = local.collection()
    things.append(FRAME, encoding=encoding)
    found = things.find(project={"_id": 0}, sort={"n": 1}, schema=FRAME.schema)
    back = found.to_arrow()
    assert back.combine_chunks().equals(FRAME.combine_chunks())
    assert repr(back.column("float64").to_pylist()) == repr(FRAME.column("float64").to_pylist())
