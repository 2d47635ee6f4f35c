"""What an update makes of a document: the forms that `data` may have (U6).

Pure, and never changes what it is given. Knows no storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connectome_dagster.local.collection import Document
from connectome_dagster.local.operators import apply_operators, upsert_operators
from connectome_dagster.local.query import equality_parts
from connectome_dagster.local.update import apply_set, build_upsert


@dataclass(frozen=True)
class Change:
    """One form of `data`.

    Attributes:
        apply: given a document and the data, the document as it is then.
        create: given the query and the data, the document that an upsert inserts.
    """

    apply: Callable[[Document, Document], Document]
    create: Callable[[Document, Document], Document]


def _replacement(document: Document, data: Document) -> Document:
    # Through $set on a document of nothing else, which refuses operators and another `_id`; a
    # dotted name makes the documents that it needs.
    return apply_set({"_id": document["_id"]}, data)


def _created(query: Document, data: Document) -> Document:
    ids = [value for path, value in equality_parts(query) if path == "_id"]
    return build_upsert({"_id": ids[0]} if ids else {}, data)


SET = Change(apply_set, build_upsert)
REPLACE = Change(_replacement, _created)
OPERATE = Change(apply_operators, upsert_operators)
