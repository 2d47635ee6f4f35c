"""Asset checks on what a collection really holds: counts, keys, nulls, types, age, surplus copies.

Knows what each check looks for and how it is told in Dagster. Reads documents as the service sends
them, a bounded number at a time; how they are read completely is not known here.
"""

# Without `from __future__ import annotations`: Dagster compares what a check's context is annotated
# with, and does not know its text.

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, Protocol, TypeAlias

import dagster as dg
import numpy as np
import pyarrow as pa

# Not exported elsewhere; Dagster's own integrations import it from here.
from dagster._core.definitions.metadata.metadata_set import NamespacedMetadataSet

from connectome_dagster.errors import ConfigurationError, SchemaConflict
from connectome_dagster.metadata import arrow_schema, preview, read_metadata, table_schema
from connectome_dagster.partitions import PartitionFormat, select_partitions
from connectome_dagster.transfer.collection import Collection
from connectome_dagster.transfer.compare import canonical, said, text_of, value_digests
from connectome_dagster.transfer.cursor import both
from connectome_dagster.transfer.identity import DigestSet
from connectome_dagster.transfer.report import ReadReport
from connectome_dagster.transfer.search import Search

__all__ = ["CheckMetadataSet", "build_connectome_checks"]

EXAMPLES = 5  # offending documents that are shown: enough to find the cause, and kept for ever
_HELD_TEXT = 4096  # characters of a value of an example, which can be megabytes
_NAMED_LOADS = 10_000  # loads with surplus copies whose counts are held: one of each day of a life

Document: TypeAlias = Mapping[str, Any]
DeclaredSchema: TypeAlias = pa.Schema | dg.TableSchema | Literal["materialized"]


class CheckMetadataSet(NamespacedMetadataSet):
    """What a check has found, beside what its read cost.

    Args:
        fields: the fields that were looked at.
        found: how many documents are not as they should be.
        examples: the first of them as a Markdown table: their `_id`, and what is in the fields.
        uncompared: documents with a null in a key, which is then compared with none.
        least: documents that there must be at least.
        most: documents that there may be at most.
        newest: the newest instant.
        age_seconds: how old that is.
        allowed_seconds: how old it may be.
        declared: the columns that documents were compared with.
        unchecked: declared columns whose types say nothing, so that they were compared with none.
        conflict: the first document that does not fit, and why.
        loads: loads with surplus copies and how many they have, the worst first.
    """

    fields: str | None = None
    found: int | None = None
    examples: dg.MarkdownMetadataValue | None = None
    uncompared: int | None = None
    least: int | None = None
    most: int | None = None
    newest: str | None = None
    age_seconds: float | None = None
    allowed_seconds: float | None = None
    declared: dg.TableSchemaMetadataValue | None = None
    unchecked: str | None = None
    conflict: str | None = None
    loads: str | None = None

    @classmethod
    def namespace(cls) -> str:
        """The part of the keys before the slash."""
        return "connectome"


def build_connectome_checks(
    *,
    asset: Any,
    collection: str,
    query: Mapping[str, Any] | None = None,
    row_count: tuple[int | None, int | None] | None = None,
    unique: Sequence[Sequence[str] | str] = (),
    not_null: Sequence[str] = (),
    schema: DeclaredSchema | None = None,
    extra_fields: Literal["error", "drop"] = "error",
    fresh: tuple[str, timedelta] | None = None,
    surplus_copies: bool = False,
    cursor: str | None = None,
    partitions_def: dg.PartitionsDefinition[Any] | None = None,
    partition_expr: str | Mapping[str, str] | None = None,
    partition_format: PartitionFormat = "instant",
    blocking: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    connectome: str = "connectome",
    pool: str | None = None,
) -> list[dg.AssetChecksDefinition]:
    """Build the checks of an asset whose data is in a collection; one check for each thing asked.

    They run as one step, each of them by itself too where only some are selected. Row counts, keys,
    nulls and surplus copies are found in one read of the fields that they need; the schema takes a
    read of its own, freshness one document. Memory holds 8 bytes for each key that must be unique,
    and nothing else that grows with the collection. A check that finds nothing wrong passes only if
    it was proved that the read had come to its end (`docs/reading.md`).

    A field that is missing, null or NaN is null. Names with dots are paths; where an array is on
    the way, the field holds the list of what its items hold.

    Args:
        asset: the asset, its key, or its definition.
        collection: the collection id.
        query: a MongoDB filter for the documents that are looked at; None for all.
        row_count: check `row_count`: documents that there are at least and at most, either of
            which may be None.
        unique: checks `unique_<field>`: fields, or lists of fields, that no two documents have in
            common. 1 is 1.0, but `"1"` is not; a document with a null in the key is compared with
            none. Keys are compared by 64 bits: in ten million of them, two that differ are taken
            for the same once in 370,000 runs.
        not_null: checks `not_null_<field>`: fields that are never null.
        schema: check `schema`: what each document has to fit, as with `Collection.find`, and which
            of its columns may not be null. `"materialized"` takes what the asset's latest
            materialization says (`dagster/column_schema`).
        extra_fields: `"error"` refuses a field that `schema` does not have, `"drop"` lets it be.
        fresh: check `fresh`: a field that holds an instant, and how old the newest may be. The
            instants are dates, ISO text in UTC, or milliseconds since 1970, but of one kind.
        surplus_copies: check `surplus_copies`: no row that this package wrote is there twice;
            `Collection.reconcile` removes what it finds.
        cursor: the field to read by, where documents cannot be found by their `_id`.
        partitions_def: the asset's, to check each partition by itself when it is materialized.
            Dagster calls that a preview, and warns of it.
        partition_expr: with `partitions_def`, the field that tells partitions apart, as for
            `ConnectomeIOManager`.
        partition_format: `"instant"` or `"key"`, as there.
        blocking: whether assets downstream wait for these checks, and do not run if one fails.
        severity: `ERROR`, or `WARN` for checks that tell without failing.
        connectome: the key of the `ConnectomeResource`.
        pool: Dagster's pool that limits how many of these run at a time.

    Returns:
        What `dg.Definitions(asset_checks=…)` takes.

    Raises:
        ConfigurationError: nothing is asked, or something that cannot work. Nothing is sent.

    Example:
        >>> import dagster as dg
        >>> checks = build_connectome_checks(
        ...     asset="earthquakes",
        ...     collection="quakes",
        ...     row_count=(1, None),
        ...     unique=["id", ["time", "place"]],
        ...     not_null=["mag"],
        ...     fresh=("time", timedelta(hours=2)),
        ... )
        >>> [spec.name for spec in checks[0].check_specs]
        ['row_count', 'unique_id', 'unique_time__place', 'not_null_mag', 'fresh']
    """
    Search(collection, {} if query is None else query).call()  # tells what is wrong with either
    checks = [
        *_row_counts(row_count),
        *(_unique(key) for key in unique),
        *map(_not_null, not_null),
        *([] if schema is None else [_fits(schema, extra_fields)]),
        *([] if fresh is None else [_fresh(fresh)]),
        *([_SURPLUS_COPIES] if surplus_copies else []),
    ]
    _check_checks(checks, collection, blocking=blocking, severity=severity)
    select = _selection(partitions_def, partition_expr, partition_format)
    specs = [
        dg.AssetCheckSpec(
            name=each.name,
            asset=asset,
            description=each.description,
            blocking=blocking,
            partitions_def=partitions_def,
        )
        for each in checks
    ]

    @dg.multi_asset_check(
        specs=specs, can_subset=True, required_resource_keys={connectome}, pool=pool
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        resource = getattr(context.resources, connectome)
        reading = _Reading(
            resource.collection(collection),
            both(dict(query or {}), select(context)),
            cursor,
            context.instance,
        )
        selected = {key.name: key.asset_key for key in context.selected_asset_check_keys}
        chosen = [each for each in checks if each.name in selected]
        for each, finding in _findings(chosen, reading, resource.bookkeeping, selected):
            yield dg.AssetCheckResult(
                passed=finding.passed,
                asset_key=selected[each.name],
                check_name=each.name,
                severity=severity,
                description=resource.redact(finding.text),
                metadata=finding.metadata(resource.redact),
            )

    return [check]


@dataclass(frozen=True)
class _Reading:
    """Where checks read, and what."""

    collection: Collection
    query: dict[str, Any]
    cursor: str | None
    instance: dg.DagsterInstance


@dataclass(frozen=True)
class _Finding:
    """What a check has found.

    Attributes:
        passed: whether that is as it should be.
        text: what was found, in a sentence.
        numbers: of `CheckMetadataSet`.
        examples: the first documents that are not as they should be.
        report: what the read did.
        needs_end: whether what passes does so only because nothing else is there.
    """

    passed: bool
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, str]] = ()
    report: ReadReport | None = None
    needs_end: bool = True

    def after(self, report: ReadReport | None) -> "_Finding":
        """The same, if what was read is enough to say so."""
        found = replace(self, report=report)
        if report is None or report.proved or not (self.passed and self.needs_end):
            return found
        return replace(
            found,
            passed=False,
            text=f"{self.text}; but it is not proved that all documents were read: give cursor, a "
            "field that every document has and of which no two have the same value",
        )

    def metadata(self, redact: Callable[[str], str]) -> dict[str, Any]:
        """What Dagster shows of it."""
        told: dict[str, Any] = {
            name: redact(value) if isinstance(value, str) else value
            for name, value in self.numbers.items()
        }
        if self.examples:
            table = pa.Table.from_pylist(list(self.examples))
            told["examples"] = dg.MetadataValue.md(preview(table, redact=redact))
        cost = {} if self.report is None else read_metadata(self.report)
        return {**cost, **CheckMetadataSet(**told)}


class _Scan(Protocol):
    """A check that looks at every document, together with others."""

    @property
    def paths(self) -> Sequence[str]:
        """The fields that it looks at."""

    def see(self, documents: Sequence[Document]) -> None:
        """Look at some documents."""

    def finding(self) -> _Finding:
        """What has been found in all of them."""


@dataclass(frozen=True)
class _Check:
    """One check that is asked for: in the read of all (`scan`), or with requests of its own."""

    name: str
    description: str
    scan: Callable[[str], _Scan] | None = None
    alone: Callable[[_Reading, dg.AssetKey], _Finding] | None = None


def _findings(
    checks: Sequence[_Check],
    reading: _Reading,
    bookkeeping: str,
    assets: Mapping[str, dg.AssetKey],
) -> Iterator[tuple[_Check, _Finding]]:
    scans = {each.name: each.scan(bookkeeping) for each in checks if each.scan is not None}
    report = _read(reading, list(scans.values())) if scans else None
    for each in checks:
        if each.alone is not None:
            yield each, each.alone(reading, assets[each.name])
        else:
            yield each, scans[each.name].finding().after(report)


def _read(reading: _Reading, scans: Sequence[_Scan]) -> ReadReport | None:
    """Show every document to the checks, in one read of the fields that any of them looks at."""
    project = _projection([path for scan in scans for path in scan.paths])
    documents = reading.collection.find(reading.query, project=project, cursor=reading.cursor)
    with closing(documents.plain_batches()) as batches:
        for batch in batches:
            for scan in scans:
                scan.see(batch)
    return documents.report


def _projection(paths: Iterable[str]) -> dict[str, int]:
    """Shows these fields; of one and a part of it the whole, since both are refused together."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.count(".")):
        if not any(path.startswith(f"{whole}.") for whole in kept):
            kept.append(path)
    return dict.fromkeys(kept or ["_id"], 1)


def _value(document: Any, parts: Sequence[str]) -> Any:
    """What stands at a path; where an array is on the way, the list of what its items have."""
    for at, part in enumerate(parts):
        if isinstance(document, list):
            return [_value(item, parts[at:]) for item in document]
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _is_null(value: Any) -> bool:
    if isinstance(value, Mapping) and len(value) == 1:
        return "NaN" in (value.get("$numberDouble"), value.get("$numberDecimal"))
    return value is None


def _example(document: Document, paths: Sequence[str]) -> dict[str, str]:
    shown = {path: _value(document, path.split(".")) for path in dict.fromkeys(["_id", *paths])}
    return {
        path: "" if value is None else _text(value)[:_HELD_TEXT] for path, value in shown.items()
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else text_of(value).decode()


# ---- row_count


def _row_counts(bounds: tuple[int | None, int | None] | None) -> list[_Check]:
    if bounds is None:
        return []
    least, most = _bounds(bounds)
    told = f"at least {least}" if most is None else f"{least} to {most}"
    told = f"at most {most}" if most is not None and not least else told
    return [_Check("row_count", f"There are {told} documents.", lambda _: _RowCount(least, most))]


def _bounds(bounds: Any) -> tuple[int, int | None]:
    wanted = isinstance(bounds, Sequence) and len(bounds) == 2
    least, most = bounds if wanted else (None, None)
    whole = all(each is None or (type(each) is int and each >= 0) for each in (least, most))
    if (least is None and most is None) or not whole or (most is not None and most < (least or 0)):
        raise ConfigurationError(
            f"row_count is {bounds!r}: give the least and the most, such as (1, 1000); one of them "
            "may be None"
        )
    return least or 0, most


class _RowCount:
    paths: Sequence[str] = ()

    def __init__(self, least: int, most: int | None) -> None:
        self._least, self._most = least, most
        self._rows = 0

    def see(self, documents: Sequence[Document]) -> None:
        self._rows += len(documents)

    def finding(self) -> _Finding:
        few, many = self._rows < self._least, self._most is not None and self._rows > self._most
        told = ""
        if few:
            told = f", fewer than {self._least}"
        elif many:
            told = f", more than {self._most}"
        return _Finding(
            not (few or many),
            f"{_counted(self._rows, 'document')}{told}",
            {"least": self._least, "most": self._most},
            needs_end=self._most is not None,
        )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# ---- unique, not_null


def _path(value: object, setting: str) -> str:
    if not isinstance(value, str) or not all(value.split(".")) or value.startswith("$"):
        raise ConfigurationError(f"{setting} has {value!r}: give the name of a field")
    return value


def _slug(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", path)  # Dagster's names have no other characters


def _unique(key: Sequence[str] | str) -> _Check:
    given = [key] if isinstance(key, str) else list(key)
    paths = tuple(dict.fromkeys(_path(each, "unique") for each in given))
    if not paths:
        raise ConfigurationError("unique has an empty key: give the names of fields")
    told = ", ".join(paths)
    return _Check(
        f"unique_{'__'.join(map(_slug, paths))}",
        f"No two documents have the same {told}.",
        lambda _: _Unique(paths),
    )


class _Unique:
    """Finds documents with a key that one before them has."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.found = 0
        self._parts = [path.split(".") for path in paths]
        self._seen = DigestSet()
        self._uncompared = 0
        self._examples: list[dict[str, str]] = []

    def see(self, documents: Sequence[Document]) -> None:
        """Look at some documents."""
        self.again(documents)

    def again(self, documents: Sequence[Document]) -> list[Document]:
        """Look at some documents; which of them have a key that was there before."""
        keys = [[_value(document, parts) for parts in self._parts] for document in documents]
        whole = [at for at, key in enumerate(keys) if not any(map(_is_null, key))]
        self._uncompared += len(documents) - len(whole)
        if not whole:
            return []
        columns = [
            value_digests([keys[at][column] for at in whole]) for column in range(len(self.paths))
        ]
        again = [documents[whole[at]] for at in np.flatnonzero(self._seen.add(said(columns)))]
        self.found += len(again)
        for document in again[: EXAMPLES - len(self._examples)]:
            self._examples.append(_example(document, self.paths))
        return again

    def finding(self) -> _Finding:
        """What has been found in all of them."""
        told = ", ".join(self.paths)
        text = (
            f"{_counted(self.found, 'document')} with the {told} of another one"
            if self.found
            else f"no two documents with the same {told}"
        )
        numbers = {"fields": told, "found": self.found, "uncompared": self._uncompared}
        return _Finding(not self.found, text, numbers, self._examples)


def _not_null(given: str) -> _Check:
    path = _path(given, "not_null")
    return _Check(
        f"not_null_{_slug(path)}", f"Every document has a {path}.", lambda _: _NotNull(path)
    )


class _NotNull:
    """Finds documents in which a field is null: itself, or in an item of an array on the way."""

    def __init__(self, path: str) -> None:
        self.paths: Sequence[str] = [path]
        self._parts = path.split(".")
        self._found = 0
        self._examples: list[dict[str, str]] = []

    def see(self, documents: Sequence[Document]) -> None:
        for document in documents:
            if self._lacks(document, self._parts):
                self._found += 1
                if len(self._examples) < EXAMPLES:
                    self._examples.append(_example(document, self.paths))

    def _lacks(self, value: Any, parts: Sequence[str]) -> bool:
        for at, part in enumerate(parts):
            if isinstance(value, list):
                return not value or any(self._lacks(item, parts[at:]) for item in value)
            value = value.get(part) if isinstance(value, Mapping) else None
        return _is_null(value)

    def finding(self) -> _Finding:
        path = self.paths[0]
        text = f"no document without {path}"
        if self._found:
            text = f"{_counted(self._found, 'document')} without {path}"
        return _Finding(
            not self._found, text, {"fields": path, "found": self._found}, self._examples
        )


# ---- surplus_copies


class _Copies:
    """Finds documents of a row that another document was written for, and in which loads."""

    def __init__(self, bookkeeping: str) -> None:
        self._load = f"{bookkeeping}.load"
        self._rows = _Unique([self._load, f"{bookkeeping}.key"])
        self._loads: Counter[str] = Counter()

    @property
    def paths(self) -> Sequence[str]:
        return self._rows.paths

    def see(self, documents: Sequence[Document]) -> None:
        for document in self._rows.again(documents):
            load = _text(_value(document, self._load.split(".")))
            if load in self._loads or len(self._loads) < _NAMED_LOADS:
                self._loads[load] += 1

    def finding(self) -> _Finding:
        rows = self._rows.finding()
        loads = ", ".join(f"{load} ({n})" for load, n in self._loads.most_common(EXAMPLES))
        text = "every row that was written is there once"
        if self._rows.found:
            text = (
                f"{_counted(self._rows.found, 'document')} beside another one of the same row: "
                f"Collection.reconcile(load_id=…) removes those of a load; loads {loads}"
            )
        numbers = {"found": self._rows.found, "loads": loads or None}
        return _Finding(rows.passed, text, numbers, rows.examples)


_SURPLUS_COPIES = _Check("surplus_copies", "No row that was written is there twice.", _Copies)


# ---- schema


def _fits(schema: DeclaredSchema, extra_fields: Literal["error", "drop"]) -> _Check:
    if not isinstance(schema, pa.Schema | dg.TableSchema) and schema != "materialized":
        raise ConfigurationError(
            f"schema is a {type(schema).__name__}: give a pyarrow.Schema, a dagster.TableSchema, "
            "or 'materialized'"
        )
    if extra_fields not in ("error", "drop"):
        raise ConfigurationError(f"extra_fields is {extra_fields!r}: give 'error' or 'drop'")

    def alone(reading: _Reading, asset: dg.AssetKey) -> _Finding:
        declared = _materialized(reading.instance, asset) if schema == "materialized" else schema
        if declared is None:
            return _Finding(False, "no materialization of the asset says what its columns are")
        arrow = declared if isinstance(declared, pa.Schema) else _nullable(declared)
        return _schema_finding(reading, arrow, extra_fields)

    return _Check("schema", "Every document fits the declared columns.", alone=alone)


def _materialized(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dg.TableSchema | None:
    event = instance.get_latest_materialization_event(asset)
    materialization = None if event is None else event.asset_materialization
    if materialization is None:
        return None
    value = materialization.metadata.get("dagster/column_schema")
    return value.schema if isinstance(value, dg.TableSchemaMetadataValue) else None


def _nullable(declared: dg.TableSchema) -> pa.Schema:
    columns = zip(arrow_schema(declared), declared.columns, strict=True)
    return pa.schema([column.with_nullable(it.constraints.nullable) for column, it in columns])


def _schema_finding(
    reading: _Reading, declared: pa.Schema, extra_fields: Literal["error", "drop"]
) -> _Finding:
    # A type that Dagster's schema has no exact name for, or of a column that held nothing yet.
    unchecked = [column.name for column in declared if pa.types.is_null(column.type)]
    schema = pa.schema([column for column in declared if column.name not in unchecked])
    hidden = [*unchecked, *([] if "_id" in declared.names else ["_id"])]
    documents = reading.collection.find(
        reading.query,
        project=dict.fromkeys(hidden, 0) or None,
        cursor=reading.cursor,
        schema=schema,
        extra_fields=extra_fields,
    )
    numbers = {
        "declared": dg.MetadataValue.table_schema(table_schema(declared)),
        "unchecked": ", ".join(unchecked) or None,
    }
    rows = 0
    required = [column.name for column in schema if not column.nullable]
    try:
        for batch in documents:
            lacking = [name for name in required if batch.column(name).null_count]
            if lacking:
                text = f"a document lacks {', '.join(lacking)}, which may not be null"
                return _Finding(False, text, {**numbers, "conflict": text})
            rows += batch.num_rows
    except SchemaConflict as error:
        conflict = str(error)
        return _Finding(False, conflict, {**numbers, "conflict": conflict})
    text = f"{_counted(rows, 'document')}, all of which fit"
    return _Finding(True, text, numbers).after(documents.report)


# ---- fresh


def _fresh(asked: tuple[str, timedelta]) -> _Check:
    if not (isinstance(asked, tuple) and len(asked) == 2 and isinstance(asked[1], timedelta)):
        raise ConfigurationError(
            "fresh wants a field and how old its newest instant may be, such as "
            f"('time', timedelta(hours=2)), not {asked!r}"
        )
    path, allowed = _path(asked[0], "fresh"), asked[1]

    def alone(reading: _Reading, _: dg.AssetKey) -> _Finding:
        documents = reading.collection.find(
            reading.query, project={path: 1}, sort={path: -1}, limit=1
        )
        found = documents.to_pylist()
        newest = _value(found[0], path.split(".")) if found else None
        return replace(
            _fresh_finding(path, newest, allowed, datetime.now(timezone.utc)),
            report=documents.report,
        )

    return _Check("fresh", f"The newest {path} is at most {allowed} old.", alone=alone)


def _fresh_finding(path: str, newest: Any, allowed: timedelta, now: datetime) -> _Finding:
    if _is_null(newest):
        return _Finding(False, f"no document has a {path}")
    moment = _instant(newest)
    if moment is None:
        shown = _text(newest)[:_HELD_TEXT]
        return _Finding(False, f"the greatest {path} is no instant", {"newest": shown})
    age = now - moment
    numbers = {
        "newest": moment.isoformat(),
        "age_seconds": age.total_seconds(),
        "allowed_seconds": allowed.total_seconds(),
    }
    text = f"the newest {path} is {age} old" if age >= timedelta(0) else f"{path} is in the future"
    return _Finding(age <= allowed, text, numbers)


_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(:\d\d)?(?:\.(\d{1,6})\d*)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


def _instant(value: Any) -> datetime | None:
    """The instant that a value stands for; without a zone it is UTC, a number is milliseconds."""
    value = canonical(value)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, timezone.utc)
        parts = _INSTANT.fullmatch(value) if isinstance(value, str) else None
        if parts is None:
            return None
        day, minutes, seconds, below, zone = parts.groups()
        text = f"{day}T{minutes or '00:00'}{seconds or ':00'}.{(below or '0').ljust(6, '0')}"
        offset = "+00:00" if zone in (None, "Z") else zone
        return datetime.fromisoformat(text + offset)
    except (ValueError, OverflowError, OSError):
        return None


# ---- what is asked


def _check_checks(
    checks: Sequence[_Check],
    collection: str,
    *,
    blocking: bool,
    severity: dg.AssetCheckSeverity,
) -> None:
    place = f"checks of collection {collection!r}"
    if not checks:
        raise ConfigurationError(
            f"{place}: nothing is asked; give row_count, unique, not_null, schema, fresh or "
            "surplus_copies"
        )
    [(name, times)] = Counter(each.name for each in checks).most_common(1)
    if times > 1:
        raise ConfigurationError(f"{place}: two of them have the name {name}; leave one out")
    if blocking and severity != dg.AssetCheckSeverity.ERROR:
        raise ConfigurationError(
            f"{place}: blocking=True stops nothing where severity is WARN; leave one of them out"
        )


def _selection(
    partitions_def: dg.PartitionsDefinition[Any] | None,
    partition_expr: str | Mapping[str, str] | None,
    partition_format: PartitionFormat,
) -> Callable[[dg.AssetCheckExecutionContext], dict[str, Any]]:
    """What gives the filter for the partitions of a run; what cannot work is found out at once."""
    if partitions_def is None:
        if partition_expr is not None:
            raise ConfigurationError(
                "partition_expr says nothing without partitions_def: give the asset's"
            )
        return lambda _: {}
    known = partitions_def
    select_partitions(known, [], partition_expr, partition_format)

    def select(context: dg.AssetCheckExecutionContext) -> dict[str, Any]:
        keys = context.partition_keys
        return select_partitions(known, keys, partition_expr, partition_format).filter()

    return select
