"""Sensors and observable assets: they notice that a collection moved, by its greatest cursor.

Knows Dagster's ticks and what they keep. One small request a tick; what is done about what moved
is the job's that is run.
"""

# Without `from __future__ import annotations`: Dagster compares what a context is annotated with,
# and does not know its text.

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import dagster as dg

from connectome_dagster.errors import (
    ConfigurationError,
    ReadInterrupted,
    ServiceUnavailable,
)
from connectome_dagster.resource import ConnectomeResource
from connectome_dagster.transfer.compare import canonical, text_of
from connectome_dagster.transfer.search import Search

__all__ = ["build_connectome_observable", "build_connectome_sensor", "build_reconcile_sensor"]

TIES = 100  # documents that share the greatest cursor and are told apart in a data version
_SHOWN = 200  # characters of a cursor in a message, a tag or a run key: more than any instant has


def build_connectome_sensor(
    name: str,
    *,
    collection: str,
    cursor: str,
    query: Mapping[str, Any] | None = None,
    job: Any = None,
    target: Any = None,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    minimum_interval_seconds: int | None = None,
    time_box_seconds: float = 30.0,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    description: str | None = None,
    connectome: str = "connectome",
) -> dg.SensorDefinition:
    """Build a sensor that requests a run when a collection has moved.

    It has moved when its greatest cursor is greater than at the last tick, or as great with a
    greater `_id`. That takes one request for one document. The first tick requests a run if there
    is a document at all. No two ticks request a run for the same cursor: the run key is made of
    collection and cursor, and Dagster requests no run twice for one, after a restart neither.
    Documents that come late, with a cursor below the greatest, are not noticed.

    A tick skips, and says why, where nothing is new, where the service does not answer in time, and
    where the cursor went back (the collection was emptied or made anew): from there on it goes by
    what there is now. A wrong credential, query or collection id is a tick that fails.

    Args:
        name: the sensor's name.
        collection: the collection id.
        cursor: a field that grows with every new document: an instant, a number, or text whose
            order is that of time. All values should be of one kind; the greatest in MongoDB's order
            counts.
        query: a MongoDB filter for the documents that count; None for all.
        job: the job to run, or:
        target: the assets to materialize.
        run_config: of the runs.
        tags: of the runs, beside `connectome/collection` and `connectome/cursor`.
        minimum_interval_seconds: between ticks; Dagster's default is 30.
        time_box_seconds: how long a tick waits for the service at most; it asks once, since the
            next tick asks again.
        default_status: whether it runs without being switched on.
        description: for the UI.
        connectome: the key of the `ConnectomeResource`.

    Raises:
        ConfigurationError: something that cannot work. Nothing is sent.

    Example:
        >>> import dagster as dg
        >>> sensor = build_connectome_sensor(
        ...     "quakes_moved",
        ...     collection="quakes",
        ...     cursor="time",
        ...     target=dg.AssetSelection.assets("earthquakes"),
        ...     minimum_interval_seconds=60,
        ... )
        >>> sensor.name
        'quakes_moved'
    """
    look = _Look(collection, cursor, dict(query or {}))
    look.check()
    if (job is None) == (target is None):
        raise ConfigurationError(f"sensor {name!r}: give job or target, one of them")
    if isinstance(time_box_seconds, bool) or not 0 < time_box_seconds <= threading.TIMEOUT_MAX:
        raise ConfigurationError(
            f"sensor {name!r}: time_box_seconds is {time_box_seconds!r}: give seconds, more than 0"
        )

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resource = getattr(context.resources, connectome)
        now, reason = look.in_time(resource, time_box_seconds)
        if reason is not None:
            return dg.SkipReason(reason)
        before = look.kept(context.cursor)
        after, request, why = look.compare(before, now)
        if not request:
            return dg.SensorResult(skip_reason=resource.redact(why), cursor=after.text)
        shown = resource.redact(look.shown(now))[:_SHOWN]
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=after.run_key(look),
                    run_config=None if run_config is None else dict(run_config),
                    tags={
                        **(tags or {}),
                        "connectome/collection": collection,
                        "connectome/cursor": shown,
                    },
                )
            ],
            cursor=after.text,
        )

    return dg.sensor(
        name=name,
        job=job,
        target=target,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=description or f"Runs when {cursor} of collection {collection} has grown.",
        required_resource_keys={connectome},
    )(evaluate)


def build_connectome_observable(
    key: Any,
    *,
    collection: str,
    cursor: str = "_id",
    query: Mapping[str, Any] | None = None,
    description: str | None = None,
    group_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    connectome: str = "connectome",
) -> dg.SourceAsset:
    """Build a source asset for a collection, with a data version that is new when it has moved.

    The version is a digest of the greatest cursor and of the `_id` of the documents that have it,
    of up to 100 of them. Observing takes one request for at most so many documents of two fields.
    What changes below the greatest cursor (documents that come late, are updated or removed) makes
    no new version: choose a field that every change sets, such as `updated_at`.

    Dagster calls observable source assets beta, and warns of it.

    Assets downstream are stale when the version has changed, and `AutomationCondition.eager()`
    materializes them. A policy on one of those says how old it may be:
    `dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24))`; the collection itself is held
    to it by the check `fresh` of `build_connectome_checks`.

    Args:
        key: the asset key.
        collection: the collection id.
        cursor: the field that grows; `_id` grows with each new document that the service names.
        query: a MongoDB filter for the documents that count; None for all.
        description: for the UI.
        group_name: for the UI.
        tags: of the asset.
        metadata: of the asset.
        automation_condition: when to observe it by itself, such as
            `dg.AutomationCondition.on_cron("@hourly")`.
        connectome: the key of the `ConnectomeResource`.

    Raises:
        ConfigurationError: something that cannot work. Nothing is sent.

    Example:
        >>> quakes = build_connectome_observable("quakes", collection="quakes", cursor="updated")
        >>> quakes.is_observable
        True
    """
    look = _Look(collection, cursor, dict(query or {}))
    look.check()

    def observe(context: dg.OpExecutionContext) -> dg.ObserveResult:
        resource = getattr(context.resources, connectome)
        documents = look.greatest(resource, TIES)
        greatest = documents[0] if documents else None
        ties = [each for each in documents if greatest and each.value == greatest.value]
        shown = "" if greatest is None else resource.redact(_cut(greatest.value))
        return dg.ObserveResult(
            data_version=dg.DataVersion(_digest([each.parts for each in ties])),
            metadata={
                "connectome/cursor_field": cursor,
                "connectome/cursor": shown,
                "connectome/ties": len(ties),
                "dagster/table_name": collection,
            },
        )

    made = dg.observable_source_asset(
        key=key,
        description=description,
        group_name=group_name,
        tags=tags,
        metadata={**(metadata or {}), "connectome/collection": collection},
        automation_condition=automation_condition,
        required_resource_keys={connectome},
    )(observe)
    if not isinstance(made, dg.SourceAsset):
        raise TypeError(f"Dagster made a {type(made).__name__}")  # of a function without resources
    return made


def build_reconcile_sensor(
    name: str,
    *,
    asset: Any,
    collection: str,
    check_name: str = "surplus_copies",
    minimum_interval_seconds: int | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    connectome: str = "connectome",
) -> dg.SensorDefinition:
    """Build a sensor that runs `Collection.reconcile` for the loads that a check has found.

    The check is `surplus_copies` of `build_connectome_checks`. Each tick looks at its latest
    result, in Dagster's own storage; where that names loads with surplus copies, a run of the job
    `<name>_job` leaves one document of each row of those. One result requests one run. A check
    names the five worst loads; where there are more, the next check names the next ones.

    Args:
        name: the sensor's name.
        asset: the key of the asset that is checked.
        collection: the collection id that the check looks at.
        check_name: the check's name.
        minimum_interval_seconds: between ticks; Dagster's default is 30.
        default_status: whether it runs without being switched on.
        connectome: the key of the `ConnectomeResource`; reconciling takes both credentials.

    Example:
        >>> build_reconcile_sensor("mend", asset="earthquakes", collection="quakes").job.name
        'mend_job'
    """
    check = dg.AssetCheckKey(dg.AssetKey.from_coercible(asset), check_name)
    told = f"check {check_name} of {check.asset_key.to_user_string()}"
    op_name = f"{name}_reconcile"

    @dg.op(
        name=op_name,
        required_resource_keys={connectome},
        config_schema={"load_ids": [str]},
        out=dg.Out(dg.Nothing),
    )
    def reconcile(context: dg.OpExecutionContext) -> None:
        target = getattr(context.resources, connectome).collection(collection)
        deleted = 0
        for load_id in context.op_config["load_ids"]:
            report = target.reconcile(load_id=load_id)
            context.log.info(f"load {load_id}: {report.deleted} of {report.rows} documents removed")
            deleted += report.deleted or 0
        context.add_output_metadata({"connectome/deleted": deleted})

    @dg.job(name=f"{name}_job")
    def reconciling() -> None:
        reconcile()

    def evaluate(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        records = context.instance.event_log_storage.get_asset_check_execution_history(check, 1)
        event = records[0].event if records else None
        found = None if event is None else event.get_dagster_event().event_specific_data
        if not isinstance(found, dg.AssetCheckEvaluation):
            return dg.SkipReason(f"{told} has no result yet")
        loads = found.metadata.get("connectome/loads")
        ids = _LOAD_ID.findall(str(loads.value)) if loads is not None and not found.passed else []
        if not ids:
            return dg.SkipReason(f"{told} names no load with surplus copies")
        return dg.RunRequest(
            run_key=f"{check_name}/{records[0].run_id}",
            run_config={"ops": {op_name: {"config": {"load_ids": ids}}}},
            tags={"connectome/collection": collection},
        )

    return dg.sensor(
        name=name,
        job=reconciling,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Reconciles the loads of collection {collection} that {told} names.",
    )(evaluate)


_LOAD_ID = re.compile(r"\b[0-9a-f]{24}\b")


@dataclass(frozen=True)
class _Place:
    """Where a document stands: its cursor, and its `_id` if it shows one, as JSON has them."""

    value: Any
    id: Any

    @property
    def parts(self) -> list[Any]:
        return [self.value, self.id]


@dataclass(frozen=True)
class _Kept:
    """What a sensor keeps from tick to tick.

    Attributes:
        field: the cursor's.
        collection: the collection id.
        place: the greatest document, None if there was none.
        resets: how often the cursor has gone back: the same one may come again after that.
    """

    field: str
    collection: str
    place: _Place | None
    resets: int = 0

    @property
    def text(self) -> str:
        place = None if self.place is None else {"value": self.place.value, "id": self.place.id}
        return json.dumps(
            {
                "collection": self.collection,
                "field": self.field,
                "greatest": place,
                "resets": self.resets,
            },
            default=str,  # a number that no float holds
        )

    def run_key(self, look: "_Look") -> str:
        """The same for the same cursor, and for no other: the digest is of all of it."""
        assert self.place is not None  # noqa: S101 - nothing is requested for nothing
        whole = [self.collection, self.field, look.query, self.place.parts, self.resets]
        return f"{self.collection}/{_digest(whole)}"


@dataclass(frozen=True)
class _Look:
    """A look at the greatest cursor of a collection."""

    collection: str
    cursor: str
    query: dict[str, Any]

    def check(self) -> None:
        """Tell what cannot work.

        Raises:
            ConfigurationError: the field, the query or the collection id.
        """
        name = self.cursor
        if not isinstance(name, str) or not all(name.split(".")) or name.startswith("$"):
            raise ConfigurationError(f"cursor is {name!r}: give the name of a field")
        Search(self.collection, self.query).call()

    def in_time(
        self, resource: ConnectomeResource, seconds: float
    ) -> tuple[_Place | None, str | None]:
        """The greatest document, and why it is not known.

        Raises:
            ConnectomeError: what the next tick would find again.
        """
        settings = {name: getattr(resource, name) for name in type(resource).model_fields}
        settings["max_attempts"] = 1
        for name in ("connect_timeout", "read_timeout"):
            settings[name] = min(settings[name], seconds)
        found: list[_Place] = []
        failed: list[Exception] = []

        def ask() -> None:
            try:
                with type(resource)(**settings).get_client() as client:
                    found.extend(self._documents(client.collection(self.collection), 1))
            except Exception as raised:
                failed.append(raised)

        # An answer that trickles in cannot be ended from here: the thread ends with it.
        asking = threading.Thread(target=ask, name="connectome-sensor", daemon=True)
        asking.start()
        asking.join(seconds)
        if asking.is_alive():
            return None, (
                f"collection {self.collection!r} did not answer within {seconds} seconds; the next "
                "tick asks again"
            )
        if not failed:
            return (found[0] if found else None), None
        [error] = failed
        if isinstance(error, ServiceUnavailable | ReadInterrupted):
            return None, f"{error}; the next tick asks again"
        raise error

    def greatest(self, resource: ConnectomeResource, limit: int) -> list[_Place]:
        """The documents with the greatest cursors.

        Raises:
            ConnectomeError: the service refused, or could not be reached.
        """
        return self._documents(resource.collection(self.collection), limit)

    def _documents(self, collection: Any, limit: int) -> list[_Place]:
        documents = collection.find(
            self.query,
            project={self.cursor: 1},
            # Of those with one cursor the last one, so that a further one is seen.
            sort={self.cursor: -1, "_id": -1},
            limit=limit,
            strategy="stream",  # one request: nothing goes on from here
        ).to_pylist()
        places = [_Place(_at(each, self.cursor), each.get("_id")) for each in documents]
        return [place for place in places if place.value is not None]

    def kept(self, text: str | None) -> _Kept | None:
        """What the last tick kept, None if there was none of this collection and field."""
        try:
            kept = json.loads(text or "null")
            if (kept["collection"], kept["field"]) != (self.collection, self.cursor):
                return None
            place = kept["greatest"]
            return _Kept(
                self.cursor,
                self.collection,
                None if place is None else _Place(place["value"], place["id"]),
                int(kept["resets"]),
            )
        except (ValueError, TypeError, KeyError):  # somebody else's, or set by hand
            return None

    def compare(self, before: _Kept | None, now: _Place | None) -> tuple[_Kept, bool, str]:
        """What to keep, whether to request a run, and why not.

        Raises:
            ConfigurationError: the cursor holds values that have no order.
        """
        place = f"collection {self.collection!r}"
        resets = 0 if before is None else before.resets
        after = _Kept(self.cursor, self.collection, now, resets)
        was = None if before is None else before.place
        if now is None:
            if was is None:
                return after, False, f"{place} has no document with a {self.cursor}"
            reset = _Kept(self.cursor, self.collection, None, resets + 1)
            return (
                reset,
                False,
                (
                    f"{place} has no document with a {self.cursor} any more, the last was "
                    f"{self.shown(was)}: reset, the next document counts as new"
                ),
            )
        self._check_order(now)
        if was is None:
            return after, True, ""
        step = _compare(now.value, was.value) or _compare(now.id, was.id)
        if step > 0:
            return after, True, ""
        if _compare(now.value, was.value) < 0:
            reset = _Kept(self.cursor, self.collection, now, resets + 1)
            return (
                reset,
                False,
                (
                    f"{self.cursor} of {place} went back from {self.shown(was)} to "
                    f"{self.shown(now)}: reset, what is greater than that counts as new"
                ),
            )
        return after, False, f"nothing new: {self.cursor} of {place} is still {self.shown(now)}"

    def shown(self, place: _Place | None) -> str:
        """A cursor in a message."""
        return "" if place is None else _cut(place.value)

    def _check_order(self, place: _Place) -> None:
        if _order(place.value)[0] is None:
            raise ConfigurationError(
                f"collection {self.collection!r}: {self.cursor} holds objects or arrays; give a "
                "field of instants, numbers or text as cursor"
            )


def _cut(value: Any) -> str:
    return (value if isinstance(value, str) else text_of(value).decode())[:_SHOWN]


def _digest(value: Any) -> str:
    return hashlib.blake2b(text_of(value), digest_size=16).hexdigest()


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _compare(one: Any, other: Any) -> int:
    """-1, 0 or 1 as MongoDB orders two values; of two without an order, another one is greater."""
    first, second = _order(one), _order(other)
    if first[0] is None or second[0] is None:
        return int(text_of(one) != text_of(other))
    if first[0] != second[0]:
        return 1 if first[0] > second[0] else -1
    return int(first[1] > second[1]) - int(first[1] < second[1])


# MongoDB's order between types ("Comparison/Sort Order" of its manual).
_NUMBER, _TEXT, _OBJECT_ID, _BOOLEAN, _DATE = range(5)
_LEAST = Decimal("-Infinity")  # NaN is below every number there


def _order(value: Any) -> tuple[int | None, Any]:
    """A type's place among types and what orders its values; None where nothing does."""
    if isinstance(value, bool):
        return _BOOLEAN, value
    if isinstance(value, int | float | Decimal):
        return _NUMBER, value
    if isinstance(value, str):
        return _TEXT, value
    if isinstance(value, Mapping) and len(value) == 1:
        [(form, inner)] = value.items()
        if form == "$oid":
            return _OBJECT_ID, str(inner)
        if form == "$date":
            return _DATE, canonical(value)
        if form.startswith("$number"):
            with suppress(InvalidOperation, TypeError, ValueError):
                number = Decimal(inner)
                return _NUMBER, _LEAST if number.is_nan() else number
    return None, None
