"""The sides that read: the package, and what a user would write without it.

Each takes the server's address, a collection and no frame. Each pays for its own imports alone, so
they stand inside the functions.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.proof import Documents
from benchmarks.side import CREDENTIAL, REQUEST_SECONDS, Did, Read, Run, Side

PARSER_THREADS = 2

# A consumer that is slow sleeps so long after a batch, until it has slept so long in all: in the
# first pause everything that can fill up does.
PAUSE_SECONDS = 0.05
PAUSES_SECONDS = 2.0


@contextmanager
def _found(address: str, collection: str) -> Iterator[Any]:
    from connectome_dagster import Connectome

    with Connectome(base_url=address, read_credential=CREDENTIAL) as connectome:
        yield connectome.collection(collection).find()


def _batches(address: str, collection: str) -> Iterator[Any]:
    with _found(address, collection) as found:
        yield from found.reader()


def _batches_slowly(address: str, collection: str) -> Iterator[Any]:
    left = PAUSES_SECONDS
    for batch in _batches(address, collection):
        yield batch
        if left > 0:
            time.sleep(PAUSE_SECONDS)
            left -= PAUSE_SECONDS


def _count_of(batches: Callable[[str, str], Iterator[Any]]) -> Run:
    def run(address: str, collection: str, _: Any) -> int:
        return sum(batch.num_rows for batch in batches(address, collection))

    return run


def _documents_of(batches: Callable[[str, str], Iterator[Any]]) -> Read:
    def documents(address: str, collection: str, _: Any) -> Documents:
        return [
            document for batch in batches(address, collection) for document in batch.to_pylist()
        ]

    return documents


def _read_first_batch(address: str, collection: str, _: Any) -> Did:
    batches = _batches(address, collection)
    rows = next(batches).num_rows
    share = _sent_share(address, collection)
    return Did(rows + sum(batch.num_rows for batch in batches), sent_share=share)


def _sent_share(address: str, collection: str) -> float:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", f"/sent/{collection}")
        return float(connection.getresponse().read())
    finally:
        connection.close()


def _read_arrow(address: str, collection: str, _: Any) -> Any:
    with _found(address, collection) as found:
        return found.to_arrow()


def _read_pandas(address: str, collection: str, _: Any) -> Any:
    with _found(address, collection) as found:
        return found.to_pandas()


def _read_parquet(address: str, collection: str, _: Any) -> int:
    with _found(address, collection) as found, tempfile.TemporaryDirectory() as folder:
        return int(found.to_parquet(Path(folder) / "documents.parquet").rows)


def _parquet_documents(address: str, collection: str, _: Any) -> Documents:
    import pyarrow.parquet as pq

    with _found(address, collection) as found, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.parquet"
        found.to_parquet(path)
        documents: Documents = pq.read_table(path).to_pylist()
    return documents


def _read_by_hand(address: str, collection: str, _: Any) -> Any:
    import pandas as pd
    import requests

    url = f"{address}/collection/readwithquery/{CREDENTIAL}/{collection}"
    return pd.DataFrame(requests.post(url, json={"query": {}}, timeout=REQUEST_SECONDS).json())


@cache
def _in_memory(address: str, collection: str) -> bytes:
    """The documents as lines of JSON, which pyarrow's reader is made for."""
    import requests

    url = f"{address}/collection/readwithquery/{CREDENTIAL}/{collection}"
    body = requests.post(url, json={"query": {}}, timeout=REQUEST_SECONDS).content
    return body[1:-1].replace(b'},{"_id"', b'}\n{"_id"') + b"\n"


def _parse_in_memory(address: str, collection: str, _: Any) -> Any:
    import pyarrow as pa
    import pyarrow.json

    pa.set_cpu_count(PARSER_THREADS)
    return pa.json.read_json(pa.BufferReader(_in_memory(address, collection)))


def _load_by_dlt(address: str, collection: str, folder: Path) -> list[Path]:
    """Load a collection with dlt's source for REST services; give the Parquet files."""
    # They are in an environment of their own.
    dlt, destinations = import_module("dlt"), import_module("dlt.destinations")
    rest_api = import_module("dlt.sources.rest_api")

    dlt.config["runtime.dlthub_telemetry"] = False
    dlt.config["runtime.log_level"] = "ERROR"
    source = rest_api.rest_api_source(
        {
            "client": {"base_url": address, "paginator": "single_page"},
            "resources": [
                {
                    "name": "documents",
                    "endpoint": {
                        "path": f"collection/readwithquery/{CREDENTIAL}/{collection}",
                        "method": "POST",
                        "json": {"query": {}},
                        "data_selector": "$",
                    },
                }
            ],
        }
    )
    source.max_table_nesting = 0  # one table, which takes it half the time of one for each list
    pipeline = dlt.pipeline(
        f"benchmark_{collection}",
        pipelines_dir=str(folder / "pipelines"),
        destination=destinations.filesystem(bucket_url=(folder / "loaded").as_uri()),
        dataset_name="loaded",
    )
    pipeline.run(source, loader_file_format="parquet")
    return sorted((folder / "loaded" / "loaded" / "documents").glob("*.parquet"))


def _read_by_dlt(address: str, collection: str, _: Any) -> int:
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        files = _load_by_dlt(address, collection, Path(folder))
        return sum(int(pq.read_metadata(file).num_rows) for file in files)


def _dlt_documents(address: str, collection: str, _: Any) -> Documents:
    """What dlt loaded, without what it adds; it keeps what is nested as JSON text."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        files = _load_by_dlt(address, collection, Path(folder))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    for row in rows:
        for name in [name for name in row if name.startswith("_dlt_")]:
            del row[name]
        for name in ("place", "tags"):
            row[name] = row[name] and json.loads(row[name])
    return rows


def _of_table(run: Run) -> Read:
    def documents(address: str, collection: str, frame: Any) -> Documents:
        made: Documents = run(address, collection, frame).to_pylist()
        return made

    return documents


def _of_frame(run: Run) -> Read:
    def documents(address: str, collection: str, frame: Any) -> Documents:
        made = run(address, collection, frame)
        plain: Documents = made.astype(object).where(made.notna(), None).to_dict("records")
        return plain

    return documents


SIDES = {
    "batches": Side(_count_of(_batches), _documents_of(_batches)),
    "batches, slowly": Side(_count_of(_batches_slowly), _documents_of(_batches_slowly)),
    "first batch": Side(_read_first_batch, _documents_of(_batches)),
    "arrow": Side(_read_arrow, _of_table(_read_arrow)),
    "pandas": Side(_read_pandas, _of_frame(_read_pandas)),
    "parquet": Side(_read_parquet, _parquet_documents),
    "read by hand": Side(_read_by_hand, _of_frame(_read_by_hand)),
    "pyarrow in memory": Side(_parse_in_memory, _of_table(_parse_in_memory), _in_memory),
    "dlt": Side(_read_by_dlt, _dlt_documents),
}
