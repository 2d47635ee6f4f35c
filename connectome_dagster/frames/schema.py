"""The types of a stream of batches: merged as documents show more, and batches made to fit.

Pure type arithmetic and casts that keep every value. What cannot be widened without loss is
reported by its path, never cast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import SchemaConflict

# A field by the names that lead to it; ITEM stands for the items of a list.
Path = tuple[str, ...]
ITEM = "[]"

# Up to here floats hold every integer (IEEE 754 double precision).
EXACT_FLOAT = 2**53

MAX_DIGITS = 38  # of decimal128
INT64_DIGITS = 19

# MongoDB takes a hundred levels of nesting, and Extended JSON says some values in a few more; what
# walks over types here calls itself a few times per level, and Python allows a thousand calls.
MAX_NESTING = 120


def show_path(path: Path) -> str:
    """Write a path as people do: `properties.tags[].name`."""
    shown = ""
    for name in path:
        shown += name if name == ITEM or not shown else f".{name}"
    return shown


class Unmergeable(Exception):  # asks for another reading, never seen outside
    """Types that no type holds without loss; `kinds` tells them by path."""

    def __init__(self, kinds: dict[Path, tuple[str, ...]]) -> None:
        super().__init__(", ".join(show_path(path) for path in kinds))
        self.kinds = kinds


def merge_schemas(left: pa.Schema, right: pa.Schema) -> pa.Schema:
    """Find the schema that holds both without loss; fields in the order of first appearance.

    Raises:
        Unmergeable: with every path whose types cannot be held by one.
    """
    conflicts: dict[Path, tuple[str, ...]] = {}
    merged = _merge(pa.struct(list(left)), pa.struct(list(right)), (), conflicts)
    if conflicts:
        raise Unmergeable(conflicts)
    return pa.schema(list(merged))


def _merge(
    left: pa.DataType, right: pa.DataType, path: Path, conflicts: dict[Path, tuple[str, ...]]
) -> pa.DataType:
    if left.equals(right) or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return _merge_structs(left, right, path, conflicts)
    if pa.types.is_list(left) and pa.types.is_list(right):
        return pa.list_(_merge(left.value_type, right.value_type, (*path, ITEM), conflicts))
    if {left, right} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if _is_whole_or_decimal(left) and _is_whole_or_decimal(right):
        return _merge_decimals(left, right)
    conflicts[path] = (kind_of(left), kind_of(right))
    return pa.string()


def _merge_structs(
    left: pa.StructType,
    right: pa.StructType,
    path: Path,
    conflicts: dict[Path, tuple[str, ...]],
) -> pa.DataType:
    theirs = {field.name: field for field in right}
    fields = []
    for ours in left:
        other = theirs.pop(ours.name, None)
        if other is not None:
            merged = _merge(ours.type, other.type, (*path, ours.name), conflicts)
            ours = ours.with_type(merged)  # pa.field would end a name at a NUL
        fields.append(ours)
    return pa.struct([*fields, *theirs.values()])


def _is_whole_or_decimal(type_: pa.DataType) -> bool:
    return type_.equals(pa.int64()) or bool(pa.types.is_decimal128(type_))


def _merge_decimals(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    # Columns rarely use all the digits of their type, and the cast is checked: all are offered.
    scales = [0 if type_.equals(pa.int64()) else type_.scale for type_ in (left, right)]
    return pa.decimal128(MAX_DIGITS, max(scales))


def kind_of(type_: pa.DataType) -> str:
    """Name a type as documents do."""
    if pa.types.is_struct(type_):
        return "object"
    if pa.types.is_list(type_):
        return "array"
    return str(type_)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give the batch this schema, which holds the batch's own: no value changes.

    Raises:
        Unmergeable: a value does not survive, such as an integer beyond 2**53 among floats.
    """
    if batch.schema.equals(schema):
        return batch
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            columns.append(_conform(batch.column(at), field.type, (field.name,)))
    return _batch(columns, schema, batch.num_rows)


def check_wholes(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    """Check the casts of `conform` that depend on values, without making the others.

    Raises:
        Unmergeable: as `conform`.
    """
    for field, column in zip(batch.schema, batch.columns, strict=True):
        wanted = schema.field(field.name).type
        if not field.type.equals(wanted) and _holds_wholes(field.type):
            _conform(column, wanted, (field.name,))


def _holds_wholes(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(_holds_wholes(field.type) for field in type_)
    if pa.types.is_list(type_):
        return _holds_wholes(type_.value_type)
    return _is_whole_or_decimal(type_)


def _batch(columns: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if columns:
        return pa.RecordBatch.from_arrays(columns, schema=schema)
    # Documents without any field still are rows.
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _conform(array: pa.Array, type_: pa.DataType, path: Path) -> pa.Array:
    if array.type.equals(type_):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
    if pa.types.is_struct(array.type) and pa.types.is_struct(type_):
        return _conform_struct(array, type_, path)
    if pa.types.is_struct(array.type) and not array.type.num_fields:
        return pc.if_else(array.is_valid(), "{}", pa.scalar(None, type_))
    if pa.types.is_list(array.type) and pa.types.is_list(type_):
        return _conform_list(array, type_, path)
    try:
        if array.type.equals(pa.int64()) and pa.types.is_decimal(type_):
            # In one step the cast asks for room for 19 digits, whatever the values are.
            array = pc.cast(array, pa.decimal128(INT64_DIGITS, 0))
        return pc.cast(array, type_, safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        kinds = (kind_of(array.type), kind_of(type_))
    raise Unmergeable({path: kinds})


def _conform_list(array: pa.ListArray, type_: pa.ListType, path: Path) -> pa.Array:
    # A slice keeps the offsets of the whole, and from_arrays takes none of those beside a mask.
    begin, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
    items = _conform(array.values.slice(begin, end - begin), type_.value_type, (*path, ITEM))
    return pa.ListArray.from_arrays(
        pc.subtract(array.offsets, begin),
        items,
        type=type_,
        mask=array.is_null() if array.null_count else None,
    )


def _conform_struct(array: pa.Array, type_: pa.StructType, path: Path) -> pa.Array:
    children = []
    for field in type_:
        at = array.type.get_field_index(field.name)
        if at < 0:
            children.append(pa.nulls(len(array), field.type))
        else:
            children.append(_conform(array.field(at), field.type, (*path, field.name)))
    return pa.StructArray.from_arrays(
        children, fields=list(type_), mask=array.is_null() if array.null_count else None
    )


def drifted(first: pa.Schema, later: pa.Schema) -> Iterator[str]:
    """Tell, field by field, in what the later schema goes beyond the first."""
    fields = {field.name: field.type for field in first}
    for field in later:
        if field.name not in fields:
            yield f"{field.name} (new, {kind_of(field.type)})"
        elif not fields[field.name].equals(field.type):
            yield f"{field.name} ({_brief(fields[field.name])}, later {_brief(field.type)})"


def _brief(type_: pa.DataType) -> str:
    text = str(type_)
    return text if len(text) <= 80 else text[:77] + "..."


def check_names(names: Iterable[str]) -> None:
    """Refuse names that occur twice.

    Raises:
        SchemaConflict: naming the first of them.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SchemaConflict(
                f"two columns are called {name!r}; a document has each field once, so rename one",
                field=name,
            )
        seen.add(name)


def check_c_names(schema: pa.Schema) -> None:
    """Refuse a name that Arrow's C interface would end too early: it ends names at a NUL.

    MongoDB has no such names, but JSON does.

    Raises:
        SchemaConflict: naming the first of them.
    """
    for path in _paths(pa.struct(list(schema)), ()):
        if "\0" in path[-1]:
            raise SchemaConflict(
                f"the field {show_path(path)!r} has the character NUL in its name, where Arrow's C "
                "interface would cut it off; leave it out with project, or use to_arrow or "
                "to_pylist",
                field=show_path(path),
            )


def _paths(type_: pa.DataType, path: Path) -> Iterator[Path]:
    if pa.types.is_struct(type_):
        for field in type_:
            yield (*path, field.name)
            yield from _paths(field.type, (*path, field.name))
    elif pa.types.is_list(type_):
        yield from _paths(type_.value_type, (*path, ITEM))
