from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.local.query import compile_filter
from connectome_dagster.partitions import OutsidePartition, PartitionSelection, select_partitions

UTC = timezone.utc
DAYS = dg.DailyPartitionsDefinition("2018-01-01", end_date="2018-04-01")
HOURS = dg.HourlyPartitionsDefinition("2018-01-01-00:00")
COLOURS = dg.StaticPartitionsDefinition(["red", "green", "blue"])


def found(selection: PartitionSelection, values: list[Any]) -> list[Any]:
    """The values that a service with MongoDB's semantics finds with the selection's filter."""
    matches = compile_filter(selection.filter())
    return [value for value in values if matches({"at": value})]


def count(selection: PartitionSelection, column: pa.Array) -> list[int]:
    return selection.count(pa.record_batch({"at": column})).tolist()


# ---- filters


def test_one_static_partition_is_an_equality() -> None:
    assert select_partitions(COLOURS, ["red"], "colour").filter() == {"colour": "red"}


def test_several_static_partitions_are_a_list_of_their_keys() -> None:
    selection = select_partitions(COLOURS, ["red", "blue"], "colour")
    assert selection.filter() == {"colour": {"$in": ["red", "blue"]}}


def test_dynamic_partitions_are_told_apart_by_their_key() -> None:
    customers = dg.DynamicPartitionsDefinition(name="customers")
    assert select_partitions(customers, ["acme"], "customer").filter() == {"customer": "acme"}


def test_a_day_is_half_open_as_text_and_as_milliseconds() -> None:
    assert select_partitions(DAYS, ["2018-02-01"], "at").filter() == {
        "$or": [
            {"at": {"$gte": "2018-02-01", "$lt": "2018-02-02"}},
            {"at": {"$gte": 1517443200000, "$lt": 1517529600000}},
        ]
    }


def test_windows_that_touch_are_one_and_gaps_stay_gaps() -> None:
    days = ["2018-02-05", "2018-02-01", "2018-02-02"]
    arms = select_partitions(DAYS, days, "at").filter()["$or"]
    assert [arm["at"] for arm in arms if isinstance(arm["at"]["$gte"], str)] == [
        {"$gte": "2018-02-01", "$lt": "2018-02-03"},
        {"$gte": "2018-02-05", "$lt": "2018-02-06"},
    ]


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2018-01-31T23:59:59.999Z", "2018-01-31"),
        ("2018-01-31T23:59:59.999999", "2018-01-31"),
        ("2018-01-31T23:59Z", "2018-01-31"),
        ("2018-02-01", "2018-02-01"),
        ("2018-02-01T00:00", "2018-02-01"),
        ("2018-02-01T00:00Z", "2018-02-01"),
        ("2018-02-01T00:00:00.000Z", "2018-02-01"),
        ("2018-02-01T00:00:00+00:00", "2018-02-01"),
        (1517443199999, "2018-01-31"),
        (1517443199999.5, "2018-01-31"),
        (1517443200000, "2018-02-01"),
    ],
)
def test_every_writing_of_an_instant_is_found_in_its_own_day_alone(at: Any, day: str) -> None:
    for key in ("2018-01-31", "2018-02-01", "2018-02-02"):
        selection = select_partitions(DAYS, [key], "at")
        assert found(selection, [at]) == ([at] if key == day else [])


def test_a_window_of_another_zone_is_asked_for_in_utc() -> None:
    new_york = dg.DailyPartitionsDefinition("2018-01-01", timezone="America/New_York")
    selection = select_partitions(new_york, ["2018-02-01"], "at")
    inside = ["2018-02-01T05:00:00.000Z", "2018-02-02T04:59:59.999Z"]
    outside = ["2018-02-01", "2018-02-01T04:59:59.999Z", "2018-02-02T05:00:00.000Z"]
    assert found(selection, inside + outside) == inside


def test_the_day_that_the_clocks_change_has_23_hours() -> None:
    new_york = dg.DailyPartitionsDefinition("2018-01-01", timezone="America/New_York")
    selection = select_partitions(new_york, ["2018-03-11"], "at")
    assert selection.filter()["$or"][0] == {"at": {"$gte": "2018-03-11T05", "$lt": "2018-03-12T04"}}


def test_the_format_key_compares_with_the_key_text() -> None:
    selection = select_partitions(DAYS, ["2018-02-01", "2018-02-02"], "at", "key")
    assert selection.filter() == {"at": {"$in": ["2018-02-01", "2018-02-02"]}}
    assert count(selection, pa.array([date(2018, 2, 2), date(2018, 2, 2)])) == [0, 2]


def test_no_key_is_never_an_unfiltered_query() -> None:
    with pytest.raises(ConfigurationError, match="whole collection"):
        select_partitions(DAYS, [], "at").filter()


# ---- several dimensions

BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "colour": COLOURS})


def both(*pairs: tuple[str, str]) -> PartitionSelection:
    keys = [dg.MultiPartitionKey({"day": day, "colour": colour}) for day, colour in pairs]
    return select_partitions(BOTH, keys, {"day": "at", "colour": "colour"})


def test_a_full_rectangle_of_two_dimensions_is_one_condition_for_each() -> None:
    days, colours = ("2018-02-01", "2018-02-02"), ("red", "blue")
    selection = both(*[(day, colour) for day in days for colour in colours])
    colour, at = selection.filter()["$and"]
    assert colour == {"colour": {"$in": ["red", "blue"]}}
    assert at["$or"][0] == {"at": {"$gte": "2018-02-01", "$lt": "2018-02-03"}}


def test_pairs_that_are_no_rectangle_select_no_other_pairs() -> None:
    selection = both(("2018-02-01", "red"), ("2018-02-02", "blue"))
    matches = compile_filter(selection.filter())
    cells = [(d, c) for d in ("2018-02-01", "2018-02-02") for c in ("red", "blue")]
    assert [(d, c) for d, c in cells if matches({"at": d, "colour": c})] == [
        ("2018-02-01", "red"),
        ("2018-02-02", "blue"),
    ]
    rows = pa.record_batch({"at": ["2018-02-02", "2018-02-02"], "colour": ["blue", "blue"]})
    assert selection.count(rows).tolist() == [0, 2]


def test_a_row_of_a_pair_that_is_not_written_is_refused() -> None:
    rows = pa.record_batch({"at": ["2018-02-01", "2018-02-01"], "colour": ["red", "blue"]})
    with pytest.raises(OutsidePartition, match=r"Row 1: .*'blue'") as refused:
        both(("2018-02-01", "red"), ("2018-02-02", "blue")).count(rows)
    assert refused.value.row == 1


# ---- rows

ONE_DAY = select_partitions(DAYS, ["2018-02-01"], "at")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime(2018, 2, 1, 5, tzinfo=UTC)], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([datetime(2018, 2, 1, 23, 59, 59)], pa.timestamp("s")),
        pa.array([date(2018, 2, 1)], pa.date32()),
        pa.array([1517443200000], pa.int64()),
        pa.array([1517443200000], pa.uint64()),
        pa.array([1517529599999.9], pa.float64()),
        pa.array(["2018-02-01T05:30Z"], pa.large_string()),
        pa.array(["2018-02-01", "2018-02-01T00:00:00.000000001Z"]),
        pa.array(["2018-02-01"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_that_hold_instants_of_the_day_are_accepted(column: pa.Array) -> None:
    assert count(ONE_DAY, column) == [len(column)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime(2018, 2, 2, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array([date(2018, 1, 31)]),
        pa.array([1517443200]),  # seconds
        pa.array([float("nan")]),
        pa.array([1e300]),
        pa.array([None], pa.timestamp("ms")),
        pa.array([None]),
        pa.array(["2018-02-01 05:30"]),
        pa.array(["2018-02-01T05:30+01:00"]),
        pa.array(["2018-02-30"]),
        pa.array(["Thursday"]),
        pa.array([""]),
    ],
    ids=lambda column: f"{column[0]}",
)
def test_a_row_outside_of_its_partition_is_named(column: pa.Array) -> None:
    inside = ONE_DAY.keys[0] if pa.types.is_string(column.type) else None
    rows = pa.concat_arrays([pa.array([inside]), column]) if inside else column
    with pytest.raises(OutsidePartition) as refused:
        ONE_DAY.count(pa.record_batch({"at": rows}), first_row=100)
    row = 100 + len(rows) - 1
    assert (refused.value.column, refused.value.row) == ("at", row)
    assert f'"at", row {row}: ' in str(refused.value)
    assert "epoch milliseconds" in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_a_date_is_midnight_utc_also_for_windows_of_another_zone() -> None:
    new_york = dg.DailyPartitionsDefinition("2018-01-01", timezone="America/New_York")
    selection = select_partitions(new_york, ["2018-02-01"], "at")
    with pytest.raises(OutsidePartition, match="2018-02-01T05"):
        count(selection, pa.array([date(2018, 2, 1)]))
    assert count(selection, pa.array([date(2018, 2, 2)])) == [1]


@pytest.mark.parametrize("column", [pa.array([True]), pa.array([b"x"]), pa.array([["a"]])])
def test_a_type_that_cannot_tell_the_partition_is_refused(column: pa.Array) -> None:
    with pytest.raises(OutsidePartition, match=r"its type .* cannot"):
        count(ONE_DAY, column)


def test_a_number_is_no_static_partition_key_because_mongodb_keeps_types_apart() -> None:
    years = dg.StaticPartitionsDefinition(["2018"])
    with pytest.raises(OutsidePartition, match="int64"):
        count(select_partitions(years, ["2018"], "at"), pa.array([2018]))


def test_rows_of_static_partitions_are_counted_by_key_and_others_refused() -> None:
    selection = select_partitions(COLOURS, ["blue", "red"], "at")
    assert count(selection, pa.array(["red", "red", "blue"])) == [1, 2]
    with pytest.raises(OutsidePartition, match="row 1: 'green'"):
        count(selection, pa.array(["red", "green"]))


def test_counts_come_in_the_order_of_the_keys() -> None:
    selection = select_partitions(DAYS, ["2018-02-05", "2018-02-01"], "at")
    assert selection.keys == ("2018-02-05", "2018-02-01")
    assert count(selection, pa.array(["2018-02-05", "2018-02-05", "2018-02-01"])) == [2, 1]


def test_a_row_in_a_gap_is_refused() -> None:
    selection = select_partitions(DAYS, ["2018-02-05", "2018-02-01"], "at")
    with pytest.raises(OutsidePartition, match="row 0"):
        count(selection, pa.array(["2018-02-03"]))


def test_a_dotted_path_walks_through_structs() -> None:
    selection = select_partitions(COLOURS, ["red"], "paint.colour")
    rows = pa.record_batch({"paint": [{"colour": "red"}, {"colour": "red"}]})
    assert selection.count(rows).tolist() == [2]
    with pytest.raises(OutsidePartition, match='"paint" has no field "colour"'):
        selection.count(pa.record_batch({"paint": [{"shade": "red"}]}))


def test_a_missing_column_is_named_beside_those_that_are_there() -> None:
    with pytest.raises(OutsidePartition, match=r'no column "at".*it has mag, place'):
        ONE_DAY.count(pa.record_batch({"mag": [1], "place": ["x"]}))


def test_a_frame_without_rows_needs_no_columns() -> None:
    assert ONE_DAY.count(pa.RecordBatch.from_pylist([], pa.schema([]))).tolist() == [0]


# ---- laws

instants = st.datetimes(datetime(2018, 1, 1), datetime(2018, 1, 4), timezones=st.just(UTC))
hour_keys = st.lists(st.integers(0, 71), min_size=1, max_size=5, unique=True).map(
    lambda hours: [f"{datetime(2018, 1, 1) + timedelta(hours=h):%Y-%m-%d-%H:%M}" for h in hours]
)


def _writings(at: datetime) -> list[Any]:
    """Every form that stands for this instant, or for its start where the form is coarse."""
    whole = at.replace(microsecond=0)
    return [
        f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        at.replace(tzinfo=None).isoformat(),
        whole.isoformat(),
        f"{at:%Y-%m-%dT%H:%MZ}",
        int(at.timestamp() * 1000),
    ]


@given(at=instants, keys=hour_keys)
def test_what_the_filter_finds_is_what_is_accepted_for_writing(
    at: datetime, keys: list[str]
) -> None:
    selection = select_partitions(HOURS, keys, "at")
    belongs = f"{at:%Y-%m-%d-%H:00}" in keys
    for value in _writings(at):
        assert bool(found(selection, [value])) == belongs
        try:
            counted = sum(count(selection, pa.array([value])))
        except OutsidePartition:
            counted = 0
        assert counted == belongs


@given(at=instants, keys=hour_keys)
def test_a_row_is_counted_for_the_partition_whose_own_filter_finds_it(
    at: datetime, keys: list[str]
) -> None:
    key = f"{at:%Y-%m-%d-%H:00}"
    selection = select_partitions(HOURS, [*keys, key], "at")
    counted = dict(
        zip(
            selection.keys, count(selection, pa.array([at], pa.timestamp("us", "UTC"))), strict=True
        )
    )
    assert counted == {k: int(k == key) for k in selection.keys}


@given(
    at=instants,
    keys=hour_keys,
    kind=st.sampled_from(
        [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")]
        + [pa.timestamp("us", "America/New_York"), pa.date32(), pa.date64()]
    ),
)
def test_an_accepted_row_is_found_as_it_is_written(
    at: datetime, keys: list[str], kind: pa.DataType
) -> None:
    column = pa.array([at], pa.timestamp("us", "UTC"))
    naive = column.cast(pa.timestamp("us"))
    is_zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    rows = pa.record_batch({"at": (column if is_zoned else naive).cast(kind, safe=False)})
    selection = select_partitions(HOURS, keys, "at")
    [line] = encode_rows(rows)
    try:
        counted = int(selection.count(rows).sum())
    except OutsidePartition:
        counted = 0
    assert counted == len(found(selection, [json.loads(line)["at"]]))


# ---- settings


@pytest.mark.parametrize("path", ["", ".", "a.", "$where", "a.$b", 3, ["a"]])
def test_a_field_that_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="partition_expr"):
        select_partitions(DAYS, ["2018-02-01"], path)


def test_a_partitioned_asset_without_partition_expr_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'metadata=\{"partition_expr"'):
        select_partitions(DAYS, ["2018-02-01"], None)


@pytest.mark.parametrize("expression", ["at", {"day": "at"}, {"day": "at", "colours": "c"}, None])
def test_each_dimension_needs_its_field(expression: Any) -> None:
    with pytest.raises(ConfigurationError, match="colour, day"):
        select_partitions(BOTH, ["red|2018-02-01"], expression)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='"instant" or "key"'):
        select_partitions(DAYS, ["2018-02-01"], "at", "iso")  # type: ignore[arg-type]
