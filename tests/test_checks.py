# Without `from __future__ import annotations`: Dagster reads the annotations of local functions.

import doctest
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from connectome_dagster import Connectome, ConnectomeResource, build_connectome_checks
from connectome_dagster import checks as module
from connectome_dagster.errors import AuthenticationError, ConfigurationError
from connectome_dagster.testing import ConnectomeServer
from tests.test_resource import everything_kept

DAYS = dg.DailyPartitionsDefinition("2018-02-01", end_date="2018-02-04")
Evaluations = dict[str, dg.AssetCheckEvaluation]


class Checking:
    """Checks of an asset `movies` on the real local server, run by a real Dagster."""

    def __init__(self, server: ConnectomeServer, instance: dg.DagsterInstance) -> None:
        self.server = server
        self.instance = instance

    @property
    def resource(self) -> ConnectomeResource:
        return ConnectomeResource(
            base_url=self.server.base_url,
            read_credential=self.server.read_credential,
            write_credential=self.server.write_credential,
            settle_seconds=0.0,
        )

    def run(
        self, checks: list[dg.AssetChecksDefinition], *assets: Any, **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Execute what is given: the checks alone, or assets with them."""
        selection = dg.AssetSelection.checks(*checks)
        defs = dg.Definitions(
            assets=assets,
            asset_checks=checks,
            resources={"connectome": self.resource},
            jobs=[dg.define_asset_job("all", selection=options.pop("selection", selection))],
        )
        options = {"raise_on_error": False, **options}
        return defs.resolve_job_def("all").execute_in_process(instance=self.instance, **options)

    def found(self, collection: str, **asked: Any) -> Evaluations:
        result = self.run(
            build_connectome_checks(asset="movies", collection=collection, **asked), movies
        )
        assert result.success
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    def only(self, documents: Any, **asked: Any) -> dg.AssetCheckEvaluation:
        """What the one check that is asked for finds in these documents."""
        [evaluation] = self.found(self.server.collection(documents), **asked).values()
        return evaluation


def shown(evaluation: dg.AssetCheckEvaluation, name: str) -> Any:
    return evaluation.metadata[f"connectome/{name}"].value


@dg.asset
def movies() -> None:
    pass


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def checking(connectome_server: ConnectomeServer, instance: dg.DagsterInstance) -> Checking:
    return Checking(connectome_server, instance)


# ---- row_count


@pytest.mark.parametrize(
    ("bounds", "passed", "text"),
    [
        ((3, 3), True, "3 documents"),
        ((0, None), True, "3 documents"),
        ((None, 3), True, "3 documents"),
        ((4, None), False, "3 documents, fewer than 4"),
        ((None, 2), False, "3 documents, more than 2"),
    ],
)
def test_row_counts_are_held_to_their_bounds(
    checking: Checking, bounds: Any, passed: bool, text: str
) -> None:
    found = checking.only([{"n": n} for n in range(3)], row_count=bounds)
    assert (found.passed, found.description) == (passed, text)
    assert (shown(found, "rows"), shown(found, "proved")) == (3, True)


def test_a_hidden_cap_does_not_change_what_is_counted(checking: Checking) -> None:
    checking.server.switches(page_cap=4)
    found = checking.only([{"n": n} for n in range(30)], row_count=(30, 30))
    assert found.passed
    assert shown(found, "pages") > 1


def test_a_query_narrows_what_is_looked_at(checking: Checking) -> None:
    found = checking.only([{"n": n} for n in range(9)], row_count=(2, 2), query={"n": {"$gte": 7}})
    assert found.passed


def test_no_more_than_the_fields_that_are_needed_is_asked_for(checking: Checking) -> None:
    collection = checking.server.collection([{"a": {"b": 1}, "sku": 1, "text": "long" * 10_000}])
    found = checking.found(collection, row_count=(1, 1), unique=["sku"], not_null=["a.b", "a"])
    assert all(each.passed for each in found.values())
    assert max(entry.response_bytes for entry in checking.server.log) < 1000


# ---- a pass is never more than what was read


def test_what_finds_nothing_fails_where_the_end_of_the_read_is_not_proved(
    checking: Checking,
) -> None:
    checking.server.switches(id_form="absent")
    documents = [{"sku": n, "n": n} for n in range(5)]
    asked: Any = {"row_count": (1, 9), "unique": ["sku"], "not_null": ["n"]}
    collection = checking.server.collection(documents)
    found = checking.found(collection, **asked)
    assert {name: each.passed for name, each in found.items()} == {
        "row_count": False,
        "unique_sku": False,
        "not_null_n": False,
    }
    assert "not proved" in (found["unique_sku"].description or "")
    assert all(each.passed for each in checking.found(collection, row_count=(1, None)).values())


# ---- unique


def test_documents_that_share_a_key_are_counted_and_shown(checking: Checking) -> None:
    documents = [{"_id": f"m{n:02}", "sku": n % 7} for n in range(20)]
    found = checking.only(documents, unique=["sku"])
    assert not found.passed
    assert shown(found, "found") == 13
    assert "| m07 | 0 |" in shown(found, "examples")
    assert len(shown(found, "examples").splitlines()) == 2 + 5  # bounded


@pytest.mark.parametrize(
    ("values", "duplicates"),
    [
        ([1, "1", True, "true", 2], 0),
        ([1, 1.0], 1),
        ([9007199254740992, 9007199254740993], 0),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], 1),
        ([[1, 2], [2, 1]], 0),
        ([None, None, 1], 0),
        ([{"$numberDouble": "NaN"}, {"$numberDouble": "NaN"}], 0),
    ],
)
def test_keys_are_the_same_if_their_values_are(
    checking: Checking, values: list[Any], duplicates: int
) -> None:
    found = checking.only([{"v": value} for value in values], unique=["v"])
    assert shown(found, "found") == duplicates
    assert found.passed == (duplicates == 0)


def test_a_key_of_several_fields_is_compared_as_one(checking: Checking) -> None:
    documents = [{"day": d, "at": {"shop": s}} for d in range(3) for s in ("x", "y")]
    collection = checking.server.collection(documents)
    names = {"unique": [["day", "at.shop"], "day"]}
    found = checking.found(collection, **names)
    assert found["unique_day__at_shop"].passed
    assert not found["unique_day"].passed
    checking.server.seed(collection, [{"day": 1, "at": {"shop": "x"}}])
    assert not checking.found(collection, **names)["unique_day__at_shop"].passed


def test_a_key_with_a_null_is_compared_with_none_and_said_so(checking: Checking) -> None:
    found = checking.only([{"a": 1}, {"a": 1}, {"a": 1, "b": None}], unique=[["a", "b"]])
    assert found.passed
    assert shown(found, "uncompared") == 3


# ---- not_null


@pytest.mark.parametrize(
    ("document", "null"),
    [
        ({"a": {"b": 0}}, False),
        ({"a": {"b": ""}}, False),
        ({"a": {"b": False}}, False),
        ({"a": {"b": None}}, True),
        ({"a": {}}, True),
        ({"a": 5}, True),
        ({}, True),
        ({"a": {"b": {"$numberDouble": "NaN"}}}, True),
        ({"a": [{"b": 1}, {"b": 2}]}, False),
        ({"a": [{"b": 1}, {}]}, True),
        ({"a": []}, True),
        ({"a": {"b": []}}, False),
    ],
)
def test_missing_null_and_nan_are_null(checking: Checking, document: Any, null: bool) -> None:
    found = checking.only([{"a": {"b": 1}}, {"_id": "one", **document}], not_null=["a.b"])
    assert found.passed == (not null)
    assert shown(found, "found") == int(null)
    if null:
        assert "| one |" in shown(found, "examples")


# ---- schema

MOVIES = pa.schema([("title", pa.string()), ("amount", pa.int64())])


def test_documents_that_fit_the_schema_pass(checking: Checking) -> None:
    found = checking.only([{"title": "ABC", "amount": 1}, {"title": None}], schema=MOVIES)
    assert found.passed
    assert shown(found, "declared").columns[1].type == "int64"
    assert shown(found, "rows") == 2


@pytest.mark.parametrize(
    ("document", "word"),
    [({"amount": "three"}, "amount"), ({"amount": 1.5}, "amount"), ({"price": 1}, "price")],
)
def test_the_first_document_that_does_not_fit_is_named(
    checking: Checking, document: Any, word: str
) -> None:
    found = checking.only([{"amount": 1}, {"_id": "odd", **document}], schema=MOVIES)
    assert not found.passed
    assert word in shown(found, "conflict")
    assert "odd" in shown(found, "conflict")


def test_further_fields_may_be_let_be(checking: Checking) -> None:
    assert checking.only([{"amount": 1, "x": 1}], schema=MOVIES, extra_fields="drop").passed


def test_a_column_that_may_not_be_null_is_held_to_it(checking: Checking) -> None:
    schema = pa.schema([pa.field("amount", pa.int64(), nullable=False)])
    assert checking.only([{"amount": 1}], schema=schema).passed
    found = checking.only([{"amount": 1}, {"amount": None}], schema=schema)
    assert not found.passed
    assert "amount" in shown(found, "conflict")


def test_the_schema_of_the_latest_materialization_is_what_documents_fit(
    checking: Checking,
) -> None:
    collection = checking.server.collection([{"title": "ABC", "amount": 1, "odd": [1]}])
    [before] = checking.found(collection, schema="materialized").values()
    assert not before.passed
    columns = [
        dg.TableColumn("title", "string"),
        dg.TableColumn("amount", "int64"),
        dg.TableColumn("odd", "list<item: int64>"),
    ]
    checking.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            "movies", metadata={"dagster/column_schema": dg.TableSchema(columns)}
        )
    )
    [after] = checking.found(collection, schema="materialized").values()
    assert after.passed, after.description
    assert shown(after, "unchecked") == "odd"
    checking.server.seed(collection, [{"amount": "one"}])
    [at_last] = checking.found(collection, schema="materialized").values()
    assert not at_last.passed


# ---- fresh


def moment(age: timedelta) -> datetime:
    return datetime.now(timezone.utc) - age


@pytest.mark.parametrize(
    "form",
    [
        lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda at: at.isoformat(timespec="milliseconds"),
        lambda at: int(at.timestamp() * 1000),
        lambda at: {"$date": at.strftime("%Y-%m-%dT%H:%M:%S.000Z")},
    ],
    ids=["text", "offset", "milliseconds", "date"],
)
def test_the_age_of_the_newest_is_what_counts(checking: Checking, form: Any) -> None:
    old, new = form(moment(timedelta(days=9))), form(moment(timedelta(hours=3)))
    documents = [{"time": new}, {"time": old}, {}]
    assert checking.only(documents, fresh=("time", timedelta(hours=4))).passed
    found = checking.only(documents, fresh=("time", timedelta(hours=2)))
    assert not found.passed
    assert 3 * 3600 - 60 < shown(found, "age_seconds") < 3 * 3600 + 600
    assert shown(found, "allowed_seconds") == 7200


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        ([], "no document has a time"),
        ([{"n": 1}], "no document has a time"),
        ([{"time": "yesterday"}], "is no instant"),
        ([{"time": True}], "is no instant"),
    ],
)
def test_where_there_is_no_instant_nothing_is_fresh(
    checking: Checking, documents: Any, text: str
) -> None:
    found = checking.only(documents, fresh=("time", timedelta(days=1)))
    assert not found.passed
    assert text in (found.description or "")


# ---- surplus_copies


def test_surplus_copies_are_found_and_gone_when_the_load_is_reconciled(
    checking: Checking,
) -> None:
    server = checking.server
    collection = server.collection([{"by": "hand"}, {"by": "hand"}])
    with Connectome(
        base_url=server.base_url,
        read_credential=server.read_credential,
        write_credential=server.write_credential,
        settle_seconds=0.0,
    ) as connectome:
        target = connectome.collection(collection)
        target.append([{"n": n} for n in range(10)], load="monday")
        assert checking.found(collection, surplus_copies=True)["surplus_copies"].passed
        server.faults.add("twice", verb="batchwrite", nth=1)
        load = target.append([{"n": n} for n in range(3)], load="tuesday").load
        found = checking.found(collection, surplus_copies=True)["surplus_copies"]
        assert not found.passed
        assert shown(found, "found") == 3
        assert shown(found, "loads") == f"{load} (3)"
        target.reconcile(load_id=load)
    assert checking.found(collection, surplus_copies=True)["surplus_copies"].passed


# ---- in Dagster


def test_all_scans_share_one_read_and_each_is_told_by_its_name(checking: Checking) -> None:
    collection = checking.server.collection([{"sku": 1}, {"sku": None}])
    found = checking.found(
        collection, row_count=(1, 5), unique=["sku"], not_null=["sku"], surplus_copies=True
    )
    assert {name: each.passed for name, each in found.items()} == {
        "row_count": True,
        "unique_sku": True,
        "not_null_sku": False,
        "surplus_copies": True,
    }
    [requests] = {shown(each, "requests") for each in found.values()}
    assert len(checking.server.log) == requests


def test_a_check_that_is_selected_runs_alone(checking: Checking) -> None:
    collection = checking.server.collection([{"sku": 1, "name": "long" * 10_000}])
    checks = build_connectome_checks(
        asset="movies", collection=collection, unique=["sku"], not_null=["name"]
    )
    only = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("movies"), "unique_sku"))
    result = checking.run(checks, movies, selection=only)
    [found] = result.get_asset_check_evaluations()
    assert (found.check_name, found.passed) == ("unique_sku", True)
    assert max(entry.response_bytes for entry in checking.server.log) < 1000


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ({"blocking": True}, False),
        ({"blocking": False}, True),
        ({"severity": dg.AssetCheckSeverity.WARN}, True),
    ],
)
def test_what_is_downstream_waits_for_checks_that_block(
    checking: Checking, asked: Any, runs: bool
) -> None:
    ran = []

    @dg.asset(deps=[movies])
    def charts() -> None:
        ran.append(True)

    checks = build_connectome_checks(
        asset=movies, collection=checking.server.collection(), row_count=(1, None), **asked
    )
    everything = dg.AssetSelection.assets(movies, charts)
    result = checking.run(checks, movies, charts, selection=everything)
    [found] = result.get_asset_check_evaluations()
    assert not found.passed
    assert found.severity == asked.get("severity", dg.AssetCheckSeverity.ERROR)
    assert bool(ran) == runs


@pytest.mark.filterwarnings("ignore:Specifying a partitions_def:dagster.PreviewWarning")
def test_each_partition_is_checked_by_itself(checking: Checking) -> None:
    @dg.asset(partitions_def=DAYS)
    def quakes() -> None:
        pass

    times = ["2018-02-01T00:00:00Z", "2018-02-01T23:59:59Z", "2018-02-02T00:00:00Z"]
    checks = build_connectome_checks(
        asset=quakes,
        collection=checking.server.collection([{"time": time} for time in times]),
        row_count=(2, 2),
        partitions_def=DAYS,
        partition_expr="time",
    )
    counted = {}
    for key in DAYS.get_partition_keys():
        result = checking.run(
            checks, quakes, selection=dg.AssetSelection.assets(quakes), partition_key=key
        )
        [found] = result.get_asset_check_evaluations()
        counted[key] = (shown(found, "rows"), found.passed)
    assert counted == {"2018-02-01": (2, True), "2018-02-02": (1, False), "2018-02-03": (0, False)}


def test_a_wrong_credential_fails_the_run_and_is_nowhere_to_be_read(
    checking: Checking, instance: dg.DagsterInstance
) -> None:
    secret = "credential-that-nobody-may-see"
    checks = build_connectome_checks(
        asset="movies", collection=checking.server.collection(), row_count=(0, None)
    )
    defs = dg.Definitions(
        asset_checks=checks,
        assets=[movies],
        resources={
            "connectome": ConnectomeResource(
                base_url=checking.server.base_url, read_credential=dg.EnvVar("A_CREDENTIAL")
            )
        },
        jobs=[dg.define_asset_job("all", selection=dg.AssetSelection.checks(*checks))],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_CREDENTIAL", secret)
        job = defs.resolve_job_def("all")
        with pytest.raises(AuthenticationError):
            job.execute_in_process(instance=instance)
        kept = everything_kept(instance)
    assert "AuthenticationError" in kept
    assert secret not in kept


def test_a_credential_in_the_data_is_blanked_in_what_is_shown(
    checking: Checking, instance: dg.DagsterInstance
) -> None:
    secret = checking.server.read_credential
    assert not checking.only([{"url": f"see {secret}"}] * 2, unique=["url"]).passed
    assert not checking.only([{"time": f"see {secret}"}], fresh=("time", timedelta(1))).passed
    schema = pa.schema([("url", pa.int64())])
    assert not checking.only([{"url": f"see {secret}"}], schema=schema).passed
    kept = everything_kept(instance)
    assert "see \\\\*\\\\*\\\\*" in kept or "see ***" in kept
    # The resource's own settings are literals of this test, which Dagster keeps in its snapshots.
    assert f"see {secret}" not in kept


# ---- what cannot work is said when checks are built, and nothing is sent


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "nothing is asked"),
        ({"row_count": (None, None)}, "row_count"),
        ({"row_count": (5, 1)}, "row_count"),
        ({"row_count": (-1, None)}, "row_count"),
        ({"row_count": 5}, "row_count"),
        ({"unique": [[]]}, "unique"),
        ({"unique": ["$where"]}, "unique"),
        ({"not_null": ["a..b"]}, "not_null"),
        ({"not_null": ["a.b", "a_b"]}, "not_null_a_b"),
        ({"schema": "declared"}, "schema"),
        ({"schema": MOVIES, "extra_fields": "ignore"}, "extra_fields"),
        ({"fresh": "time"}, "fresh"),
        ({"fresh": ("time", 3600)}, "fresh"),
        ({"row_count": (1, 2), "query": {"n": float("nan")}}, "query"),
        ({"row_count": (1, 2), "collection": "a/b"}, "collection"),
        ({"row_count": (1, 2), "partition_expr": "time"}, "partitions_def"),
        ({"row_count": (1, 2), "partitions_def": DAYS}, "partition_expr"),
        (
            {"row_count": (1, 2), "blocking": True, "severity": dg.AssetCheckSeverity.WARN},
            "blocking",
        ),
    ],
)
def test_what_cannot_work_is_refused(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        build_connectome_checks(**{"asset": "movies", "collection": "movies", **asked})


def test_the_example_says_what_happens() -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
