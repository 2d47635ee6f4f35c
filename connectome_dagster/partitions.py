"""What the partitions of an asset select in a collection: a MongoDB filter, and the proof of it.

The same value writes the filter that is sent and checks the rows of a frame against its meaning, so
that what is stored as a partition is what is loaded as it. Knows partitions definitions and Arrow
arrays; opens nothing, sends nothing, does not know which asset or collection it works for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, Protocol, TypeAlias

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import ConfigurationError, ConnectomeError

__all__ = ["OutsidePartition", "PartitionFormat", "PartitionSelection", "select_partitions"]

PartitionFormat = Literal["instant", "key"]
Positions: TypeAlias = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NOWHERE = -1  # position of a row that is in none of the selected partitions

# Texts whose alphabetical order is the order of time: no zone but UTC, a "T" in the middle.
_INSTANT_TEXT = r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|\+00:00)?)?$"
_BELOW_SECONDS = r"(\.\d+)?(Z|\+00:00)?$"

_TICKS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_SHOWN_VALUE = 60  # characters of a row's value in a message: enough for any instant or key
_SHOWN_KEYS = 3  # partition keys named in a message; a range can have thousands


class OutsidePartition(ConnectomeError):
    """A row of a frame does not belong to the partitions that it would be stored as.

    Attributes:
        column: the column that `partition_expr` names.
        row: position of the row in what was handed in, from 0; None if the whole column is meant.
    """

    def __init__(self, message: str, *, column: str, row: int | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.row = row


class _Dimension(Protocol):
    """One axis of the partitions: the field that tells them apart, and their keys in order."""

    @property
    def field(self) -> str: ...
    @property
    def keys(self) -> tuple[str, ...]: ...
    def conditions(self, keys: Sequence[str]) -> list[dict[str, Any]]: ...
    def positions(self, column: pa.Array) -> Positions: ...
    def accepted(self) -> str: ...


@dataclass(frozen=True)
class _Keys:
    """Partitions told apart by a field that holds the partition key itself."""

    field: str
    keys: tuple[str, ...]

    def conditions(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Filters of which one must match for a document to be in one of `keys`."""
        return [{self.field: keys[0] if len(keys) == 1 else {"$in": list(keys)}}]

    def positions(self, column: pa.Array) -> Positions:
        """For each row the position of its key in `keys`, -1 where it has another value."""
        if pa.types.is_date(column.type):
            column = column.cast(pa.string())  # as a date is written: 2018-02-01
        if not (_is_text(column.type) or pa.types.is_null(column.type)):
            raise _WrongType(column.type)
        found = pc.index_in(column.cast(pa.large_string()), pa.array(self.keys, pa.large_string()))
        return np.asarray(found.fill_null(_NOWHERE), dtype=np.int64)

    def accepted(self) -> str:
        """What a row must hold, as part of a sentence."""
        return f"the partition key as a string ({_some(self.keys)})"


@dataclass(frozen=True)
class _Windows:
    """Partitions told apart by a field that holds an instant; `bounds` are seconds since 1970."""

    field: str
    keys: tuple[str, ...]
    bounds: tuple[tuple[int, int], ...]

    def conditions(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Filters of which one must match for a document to be in one of `keys`."""
        wanted = set(keys)
        selected = [b for k, b in zip(self.keys, self.bounds, strict=True) if k in wanted]
        return [
            {self.field: {"$gte": low, "$lt": high}}
            for start, end in _merged(selected)
            for low, high in (
                (_instant_text(start), _instant_text(end)),
                (start * 1000, end * 1000),
            )
        ]

    def positions(self, column: pa.Array) -> Positions:
        """For each row the position of its window in `keys`, -1 where no window holds it."""
        seconds, known = _seconds(column)
        starts = np.array([start for start, _ in self.bounds], dtype=np.int64)
        ends = np.array([end for _, end in self.bounds], dtype=np.int64)
        found: Positions = np.searchsorted(starts, seconds, side="right").astype(np.int64) - 1
        inside = known & (found >= 0) & (seconds < ends[found])
        return np.where(inside, found, _NOWHERE)

    def accepted(self) -> str:
        """What a row must hold, as part of a sentence."""
        spans = [
            f"{_instant_text(start)} up to but not {_instant_text(end)}"
            for start, end in _merged(self.bounds)
        ]
        return (
            f"an instant in UTC from {_some(spans)}, as a timestamp, a date (its midnight), ISO "
            'text with "Z" or no zone, or epoch milliseconds'
        )


@dataclass(frozen=True)
class PartitionSelection:
    """The documents of some partitions of an asset.

    Made by `select_partitions`. `keys` are the partition keys, in the order of `count`.
    """

    keys: tuple[str, ...]
    _dimensions: tuple[_Dimension, ...] = field(repr=False)
    # position of each key in each dimension, shape (keys, dimensions)
    _coordinates: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of the document fields that tell the partitions apart."""
        return tuple(dimension.field for dimension in self._dimensions)

    def filter(self) -> dict[str, Any]:
        """The MongoDB filter that matches the documents of these partitions, and no others.

        Raises:
            ConfigurationError: there is no partition: a filter would mean the whole collection.

        Example:
            >>> import dagster as dg
            >>> colours = dg.StaticPartitionsDefinition(["red", "green", "blue"])
            >>> select_partitions(colours, ["red", "blue"], "colour").filter()
            {'colour': {'$in': ['red', 'blue']}}
            >>> days = dg.DailyPartitionsDefinition("2018-01-01")
            >>> select_partitions(days, ["2018-02-01"], "at").filter()["$or"][0]
            {'at': {'$gte': '2018-02-01', '$lt': '2018-02-02'}}
        """
        if not self.keys:
            raise ConfigurationError(
                "No partition is selected, and a query without one would mean the whole "
                "collection. Select at least one partition key."
            )
        return _any_of([_all_of(box) for box in self._boxes()])

    def _boxes(self) -> list[list[dict[str, Any]]]:
        """Conditions per dimension, once for each set of keys that is a full rectangle."""
        if len(self._dimensions) == 1:
            return [[_any_of(self._dimensions[0].conditions(self.keys))]]
        first, second = self._dimensions
        columns: dict[int, list[int]] = {}
        for position, other in self._coordinates:
            columns.setdefault(position, []).append(other)
        rectangles: dict[tuple[int, ...], list[int]] = {}
        for position, others in columns.items():
            rectangles.setdefault(tuple(sorted(others)), []).append(position)
        return [
            [
                _any_of(first.conditions([first.keys[i] for i in rows])),
                _any_of(second.conditions([second.keys[i] for i in others])),
            ]
            for others, rows in rectangles.items()
        ]

    def count(self, batch: pa.RecordBatch, *, first_row: int = 0) -> Positions:
        """Rows of `batch` per partition, in the order of `keys`; proof that `filter` finds them.

        Args:
            batch: rows that are to be stored as these partitions.
            first_row: position of the first of them in the whole frame, for messages.

        Raises:
            OutsidePartition: a row that the filter would not find, or a column that is not there
                or of a type that cannot tell.
        """
        if batch.num_rows == 0:
            return np.zeros(len(self.keys), dtype=np.int64)
        per_dimension = [_located(dimension, batch, first_row) for dimension in self._dimensions]
        if len(per_dimension) == 1:
            order = np.array([c[0] for c in self._coordinates], dtype=np.int64)
            found = np.bincount(per_dimension[0], minlength=len(self.keys))
            return found[order].astype(np.int64)
        return self._count_pairs(per_dimension, batch, first_row)

    def _count_pairs(
        self, located: Sequence[Positions], batch: pa.RecordBatch, first_row: int
    ) -> Positions:
        width = len(self._dimensions[1].keys)
        codes = np.array([a * width + b for a, b in self._coordinates], dtype=np.int64)
        rows = located[0] * width + located[1]
        outside = ~np.isin(rows, codes)
        if outside.any():
            row = int(np.argmax(outside))
            values = [_cut(_column(batch, path, first_row)[row].as_py()) for path in self.fields]
            raise OutsidePartition(
                f"Row {first_row + row}: {' and '.join(self.fields)} hold {' and '.join(values)}, "
                f"which together are none of the partitions that are written ({_some(self.keys)}). "
                "Store only rows of these partitions.",
                column=self.fields[0],
                row=first_row + row,
            )
        sorter = np.argsort(codes)
        at = sorter[np.searchsorted(codes, rows, sorter=sorter)]
        return np.bincount(at, minlength=len(codes)).astype(np.int64)


def select_partitions(
    partitions_def: dg.PartitionsDefinition[Any],
    keys: Sequence[str],
    partition_expr: str | Mapping[str, str] | None,
    partition_format: PartitionFormat = "instant",
) -> PartitionSelection:
    """What some partitions of an asset select in a collection.

    Static and dynamic partitions: the documents whose field *is* the key, a string.

    Time windows with the format `"instant"`: the documents whose field is an instant in one of the
    half-open windows of the keys; windows that touch are one, gaps stay gaps. As the API's JSON
    has no dates, an instant in a document is one of these, and all of them are matched (MongoDB
    compares within a type, so that the two ways of asking do not disturb each other):

    - ISO text in UTC: `2018-02-01T05:30:00.000Z`, with or without seconds and fraction, with
      `Z`, `+00:00` or nothing (a timestamp without zone is taken as UTC);
    - ISO text of a date alone, `2018-02-01`: midnight **UTC** of that day. For partitions in
      another zone this is another day's window; use the format `"key"` for such a field;
    - a number: milliseconds since 1970, as JavaScript counts.

    Not matched: text with another offset or with a blank for the `T` (its alphabetical order is not
    the order of time), seconds as numbers, and dates that the service keeps as a type of its own.
    Writing such a column as a partition is refused by `PartitionSelection.count`.

    Time windows with the format `"key"`: the documents whose field is the partition key's text, as
    with static partitions; a date column does for daily keys.

    Args:
        partitions_def: how the asset is partitioned.
        keys: the partition keys, any number of them, with gaps if need be.
        partition_expr: path of the document field, `"properties.time"` for one; for
            multi-dimensional partitions a mapping from each dimension's name to its field.
        partition_format: `"instant"` or `"key"`, for time windows.

    Raises:
        ConfigurationError: `partition_expr` is missing or of another shape, or the format unknown.
    """
    if partition_format not in ("instant", "key"):
        raise ConfigurationError(
            f"The partition format {_cut(partition_format)} is not known. "
            'Set connectome/partition_format to "instant" or "key".'
        )
    keys = tuple(dict.fromkeys(keys))
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        return _select_multi(partitions_def, keys, partition_expr, partition_format)
    path = _path(partition_expr, "partition_expr")
    dimension = _dimension(partitions_def, keys, path, partition_format)
    at = {key: position for position, key in enumerate(dimension.keys)}
    return PartitionSelection(keys, (dimension,), tuple((at[key],) for key in keys))


def _select_multi(
    partitions_def: dg.MultiPartitionsDefinition,
    keys: tuple[str, ...],
    partition_expr: object,
    partition_format: PartitionFormat,
) -> PartitionSelection:
    names = [part.name for part in partitions_def.partitions_defs]
    if not isinstance(partition_expr, Mapping) or set(partition_expr) != set(names):
        raise ConfigurationError(
            f"The asset has the partition dimensions {_some(names)}, so partition_expr must be a "
            'mapping from each of them to a field of the documents: metadata={"partition_expr": '
            f'{{"{names[0]}": "…", "{names[1]}": "…"}}}}.'
        )
    by_dimension = [
        partitions_def.get_partition_key_from_str(key).keys_by_dimension for key in keys
    ]
    dimensions = tuple(
        _dimension(
            part.partitions_def,
            tuple(dict.fromkeys(parts[part.name] for parts in by_dimension)),
            _path(partition_expr[part.name], f'partition_expr["{part.name}"]'),
            partition_format,
        )
        for part in partitions_def.partitions_defs
    )
    at = [{key: position for position, key in enumerate(d.keys)} for d in dimensions]
    coordinates = tuple(
        tuple(positions[parts[name]] for positions, name in zip(at, names, strict=True))
        for parts in by_dimension
    )
    return PartitionSelection(keys, dimensions, coordinates)


def _dimension(
    partitions_def: dg.PartitionsDefinition[Any],
    keys: tuple[str, ...],
    path: str,
    partition_format: PartitionFormat,
) -> _Dimension:
    if partition_format == "key" or not isinstance(
        partitions_def, dg.TimeWindowPartitionsDefinition
    ):
        return _Keys(path, keys)
    windows = {key: partitions_def.time_window_for_partition_key(key) for key in keys}
    bounds = {
        key: (int(window.start.timestamp()), int(window.end.timestamp()))
        for key, window in windows.items()
    }
    ordered = sorted(keys, key=bounds.__getitem__)
    return _Windows(path, tuple(ordered), tuple(bounds[key] for key in ordered))


def _path(value: object, setting: str) -> str:
    if value is None:
        raise ConfigurationError(
            "The asset is partitioned, but nothing says which field of its documents tells the "
            'partitions apart. Name it: metadata={"partition_expr": "field"}.'
        )
    if (
        not isinstance(value, str)
        or not value
        or any(p == "" or p[0] == "$" for p in _parts(value))
    ):
        raise ConfigurationError(
            f"{setting} must be the path of a document field, like "
            f'"time" or "properties.time", but is {_cut(value)}.'
        )
    return value


def _parts(path: str) -> list[str]:
    return path.split(".")


# ---- filters


def _any_of(conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return conditions[0] if len(conditions) == 1 else {"$or": list(conditions)}


def _all_of(conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return conditions[0] if len(conditions) == 1 else {"$and": list(conditions)}


def _merged(bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(bounds):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _instant_text(seconds: int) -> str:
    """The shortest text that sorts before every writing of this instant and after all earlier.

    Without its trailing zeros an instant is the beginning of each of its longer forms, so
    `"2018-02-01"` bounds dates, minutes and milliseconds alike.
    """
    at = _EPOCH + timedelta(seconds=seconds)
    text = at.isoformat()[:19]
    for zeros in (":00", ":00", "T00"):
        if not text.endswith(zeros):
            break
        text = text[: -len(zeros)]
    return text


# ---- rows


class _WrongType(Exception):
    """The type of a column cannot tell the partition; says nothing yet of where."""

    def __init__(self, found: pa.DataType) -> None:
        super().__init__(str(found))
        self.found = found


class _WrongText(Exception):
    """A text of a column is no instant; says nothing yet of where."""

    def __init__(self, row: int) -> None:
        super().__init__(str(row))
        self.row = row


def _located(dimension: _Dimension, batch: pa.RecordBatch, first_row: int) -> Positions:
    """Position of each row in `dimension.keys`; raises for a row without one."""
    column = _column(batch, dimension.field, first_row)
    wrong: pa.DataType | None = None
    row = None
    try:
        found = dimension.positions(column)
        if (found == _NOWHERE).any():
            row = int(np.argmax(found == _NOWHERE))
    except _WrongType as error:
        wrong = error.found
    except _WrongText as error:
        row = error.row
    if wrong is not None:
        raise OutsidePartition(
            f'Column "{dimension.field}" tells the partitions apart, but its type {wrong} cannot '
            f"be compared with them. It must hold {dimension.accepted()}.",
            column=dimension.field,
        )
    if row is not None:
        raise OutsidePartition(
            f'Column "{dimension.field}", row {first_row + row}: {_cut(column[row].as_py())} is '
            "outside of the partitions that are written, and would not be found as part of them. "
            f"The column must hold {dimension.accepted()}.",
            column=dimension.field,
            row=first_row + row,
        )
    return found


def _column(batch: pa.RecordBatch, path: str, first_row: int) -> pa.Array:
    """The column at a dotted path, structs walked through."""
    name, *rest = _parts(path)
    if batch.schema.get_field_index(name) < 0:
        raise OutsidePartition(
            f'partition_expr names the field "{path}", but the frame has no column "{name}" '
            f"(row {first_row} and on): it has {_some(batch.schema.names)}.",
            column=path,
        )
    column = batch.column(name)
    for part in rest:
        names = [f.name for f in column.type] if pa.types.is_struct(column.type) else []
        if part not in names:
            raise OutsidePartition(
                f'partition_expr names the field "{path}", but "{name}" has no field "{part}".',
                column=path,
            )
        column = pc.struct_field(column, [names.index(part)])
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _seconds(column: pa.Array) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Whole seconds since 1970 of each row, and whether the row holds an instant at all."""
    kind = column.type
    if _is_text(kind):
        return _seconds_of_texts(column)
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif pa.types.is_null(kind):
        column = column.cast(pa.int64())
    if pa.types.is_timestamp(column.type):
        ticks = _TICKS_PER_SECOND[column.type.unit]
        values = np.asarray(column.cast(pa.int64()).fill_null(0))
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        ticks = 1000  # a number of a document counts milliseconds
        values = np.asarray(column.fill_null(0))
    else:
        raise _WrongType(kind)
    known = np.asarray(column.is_valid())
    if values.dtype.kind == "f":
        # Beyond int64 there is no instant either: the cast would be undefined.
        known = known & (np.abs(np.nan_to_num(values, nan=np.inf)) < 2.0**62)
        values = np.where(known, values, 0).astype(np.float64)
    return np.floor_divide(values, ticks).astype(np.int64), known


def _seconds_of_texts(column: pa.Array) -> tuple[Positions, npt.NDArray[np.bool_]]:
    column = column.cast(pa.large_string())
    shaped = pc.match_substring_regex(column, _INSTANT_TEXT).fill_null(True)
    if not pc.all(shaped, min_count=0).as_py():
        raise _WrongText(int(np.argmin(np.asarray(shaped))))
    plain = pc.replace_substring_regex(column, _BELOW_SECONDS, "")
    try:
        instants = plain.cast(pa.timestamp("s"))
    except pa.ArrowInvalid:
        instants = None
    if instants is None:
        raise _WrongText(_first_impossible(plain))
    return np.asarray(instants.cast(pa.int64()).fill_null(0)), np.asarray(instants.is_valid())


def _first_impossible(texts: pa.Array) -> int:
    """The first text that has the shape of an instant and is none, like 30 February."""
    return next(row for row, text in enumerate(texts.to_pylist()) if not _is_instant(text))


def _is_instant(text: str | None) -> bool:
    if text is None:
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


# ---- words


def _cut(value: object) -> str:
    text = repr(value) if isinstance(value, str) or value is None else str(value)
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "…"


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(values[:_SHOWN_KEYS])
    more = len(values) - _SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown
