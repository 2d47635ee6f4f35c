"""What is asked of a collection, and how it is read: as a stream, or in pages of which order.

Decides before anything is sent; knows nothing of how documents arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.transfer.cursor import ID, Filter, Order, both
from connectome_dagster.transfer.fields import Path, widened

Strategy = Literal["auto", "stream", "pages"]
STRATEGIES: tuple[str, ...] = ("auto", "stream", "pages")

# Documents of one page at most: one request per so many is no cost, and a service that sorts
# without an index has to hold no more.
PAGE_ROWS = 20_000


@dataclass(frozen=True)
class Search:
    """What is asked of a collection, as F3 has it."""

    collection: str
    query: Mapping[str, Any] = field(default_factory=dict)
    project: Mapping[str, Any] | None = None
    sort: Mapping[str, int] | None = None
    limit: int | None = None

    def call(self) -> Call:
        return endpoints.read_with_query(
            self.collection,
            query=self.query,
            project=self.project,
            sort=self.sort,
            limit=self.limit,
        )


@dataclass(frozen=True)
class Paging:
    """How a search is read.

    Attributes:
        search: what is asked; in the case of an order, sorted by it and showing its fields.
        strategy: as in `Collection.find`.
        order: the total order to continue in, None if there is none.
        hidden: fields that are shown for the order's sake alone.
        page_rows: documents of a page at most.
        why_not: why there is no order.
        split: how many readers read it at a time.
    """

    search: Search
    strategy: Strategy
    order: Order | None = None
    hidden: frozenset[Path] = frozenset()
    page_rows: int = PAGE_ROWS
    why_not: str = ""
    split: int = 1

    def of(self, part: Filter) -> Paging:
        """The same for a part of what is found."""
        query = both(dict(self.search.query), part)
        return replace(self, search=replace(self.search, query=query))


def paging(
    search: Search,
    strategy: Strategy,
    cursor: str | None,
    page_rows: int = PAGE_ROWS,
    split: int = 1,
) -> Paging:
    """Decide how a search is read.

    Raises:
        ConfigurationError: settings that contradict each other, or a search that cannot be paged
            although pages were asked for.
    """
    if strategy not in STRATEGIES:
        raise ConfigurationError(f"strategy is {strategy!r}: give 'auto', 'stream' or 'pages'")
    _check_cursor(cursor, strategy, search.sort)
    if split != 1 and (strategy == "stream" or search.sort or search.limit is not None):
        raise ConfigurationError(
            "split reads ranges of the cursor at a time, in no order and to the end: leave it out, "
            "or leave out sort, limit and strategy='stream'"
        )
    if strategy == "stream":
        return Paging(search, strategy, page_rows=page_rows)
    order = Order.by(search.sort or {cursor or ID: 1})
    wider = widened(search.project, [name for name, _ in order.fields])
    why_not = ""
    if any(name.startswith("$") for name in order.sort):
        why_not = "the sort is by no field"
    elif wider is None:
        why_not = "the projection computes, or hides a part of the cursor"
    if wider is None or why_not:
        if strategy == "pages" or split != 1:
            asked = "strategy='pages'" if split == 1 else f"split={split}"
            raise ConfigurationError(f"{asked} has no cursor: {why_not}. Nothing was sent")
        return Paging(search, strategy, page_rows=page_rows, why_not=why_not)
    project, hidden = wider
    ordered = replace(search, project=project, sort=order.sort)
    return Paging(ordered, strategy, order, hidden, page_rows, split=split)


def _check_cursor(cursor: str | None, strategy: str, sort: Mapping[str, int] | None) -> None:
    if cursor is None:
        return
    if not isinstance(cursor, str) or not all(cursor.split(".")) or cursor.startswith("$"):
        raise ConfigurationError(f"cursor is {cursor!r}: give the name of a field")
    if strategy == "stream":
        raise ConfigurationError("strategy='stream' takes no cursor: leave one of them out")
    if sort and list(sort)[:1] != [cursor]:
        raise ConfigurationError(
            f"cursor is {cursor!r}, but sort begins with {next(iter(sort))!r}: what is sorted by is"
            " the cursor, so leave cursor out"
        )
