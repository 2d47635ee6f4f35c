"""Rows of a frame as batches of a load: encoded, each with its key.

Knows what a row may not have beside its key, and nothing of how a batch is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from connectome_dagster.errors import ConfigurationError, EncodeError
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.batches import RowBatch, gather
from connectome_dagster.transfer.contents import contents
from connectome_dagster.transfer.identity import PlaceKeys, RowKeys, attempt
from connectome_dagster.transfer.rows import Frame, batches_of, count_of, encoded, has_field
from connectome_dagster.transfer.target import Target


@dataclass(frozen=True)
class Form:
    """How rows become documents.

    Attributes:
        load: the load id, None for documents as they are.
        key: the columns that make a row what it is, None for all.
        encoding: the forms of values.
        own_ids: whether rows may have an `_id`.
    """

    load: str | None
    key: tuple[str, ...] | None = None
    encoding: Encoding = DEFAULT_ENCODING
    own_ids: bool = True


def batches_for(
    target: Target, frame: Frame, form: Form, keys: RowKeys | PlaceKeys | None
) -> Iterator[RowBatch]:
    """Give the rows of a frame as batches for a load.

    Args:
        target: bounds the batches.
        frame: the rows.
        form: how they become documents.
        keys: gives each row its key, and remembers it; None for documents as they are.

    Raises:
        ConfigurationError: not a frame, no key column of that name, or an `_id` where none may be.
        EncodeError: a value that JSON cannot say, or the field that is kept for notes.
    """
    beside = 0
    if form.load is not None:
        longest = attempt("0" * 16, 1)
        as_ids = as_ids_of(target, form)
        beside = target.marks.bytes_beside(form.load, longest, 24, as_ids=as_ids)
    rows = _encoded(target, frame, form, keys)
    return gather(rows, target.batch_rows, target.batch_bytes, beside)


def as_ids_of(target: Target, form: Form) -> bool:
    """Whether keys are `_id`s as well: where these are to be unique, and rows have none."""
    return target.idempotency == "id" and form.key != ("_id",)


def _encoded(
    target: Target, frame: Frame, form: Form, keys: RowKeys | PlaceKeys | None
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    row = 0
    for batch in batches_of(frame):
        if has_field(batch, target.marks.field):
            raise _reserved(target.marks.field, row)
        if has_field(batch, "_id"):
            _check_own_ids(target, form)
        lines = encoded(batch, row, form.encoding)
        taken: list[bytes] = []
        if isinstance(keys, PlaceKeys):
            taken = keys.take(lines)
        elif keys is not None:
            taken = keys.take(contents(batch, lines, row, form.encoding, form.key))
        row += count_of(batch)
        yield [line[:-1] for line in lines], taken


def _reserved(name: str, row: int) -> EncodeError:
    return EncodeError(
        f"row {row}: the field {name!r} is kept for this package's own notes, and readers hide it;"
        " rename it, or set bookkeeping to another name",
        column=name,
        row=row,
    )


def _check_own_ids(target: Target, form: Form) -> None:
    if not form.own_ids:
        raise ConfigurationError(
            "the rows to replace by have an _id, and while they are inserted the documents "
            "that they replace are still there: drop the column '_id', and they get new ones"
        )
    if as_ids_of(target, form):
        raise ConfigurationError(
            "the rows have an _id, and idempotency='id' gives each row one of its own: drop the "
            "column '_id', or name it as the key with key=['_id'], or set idempotency='field'"
        )
