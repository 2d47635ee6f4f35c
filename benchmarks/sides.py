"""What is compared: the package and, by hand, what a user would write without it.

As a program it runs one side once, in an interpreter of its own, and prints what it cost as one
line of JSON. Before that the side handles a few documents, so that lazy imports are not measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from benchmarks.cost import measured
from benchmarks.replay import KEPT

# The default of both: documents in one request of an append.
BATCH_ROWS = 1000

# Rows that are sent once more, where they are kept, to see what was sent.
KEPT_ROWS = 2500

PARSER_THREADS = 2

# Names of collections of the replaying server.
FEW, ALL, MIXED = "few", "all", "mixed"
SINK = "sink"

CREDENTIAL = "made-up"


Documents: TypeAlias = "list[dict[str, Any]]"
Run: TypeAlias = "Callable[[str, str, Any], Any]"
Read: TypeAlias = "Callable[[str, str, Any], Documents]"


class Side(NamedTuple):
    """One side of a comparison; both take an address, a collection and a frame (reads: None).

    Attributes:
        run: does the work; returns what it made, or the number of its rows.
        documents: does it again and gives what was moved, as plain documents.
        prepare: what happens before the measurement.
    """

    run: Run
    documents: Read
    prepare: Callable[[str, str], Any] | None = None


@contextmanager
def _found(address: str, collection: str) -> Iterator[Any]:
    from connectome_dagster import Connectome  # each side pays for its own imports alone

    with Connectome(base_url=address, read_credential=CREDENTIAL) as connectome:
        yield connectome.collection(collection).find()


def _read_batches(address: str, collection: str, _: Any) -> int:
    with _found(address, collection) as found:
        return sum(batch.num_rows for batch in found.reader())


def _batches_documents(address: str, collection: str, _: Any) -> Documents:
    with _found(address, collection) as found:
        return [document for batch in found.reader() for document in batch.to_pylist()]


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
    return pd.DataFrame(requests.post(url, json={"query": {}}, timeout=600).json())


@cache
def _in_memory(address: str, collection: str) -> bytes:
    """The documents as lines of JSON, which pyarrow's reader is made for."""
    import requests

    url = f"{address}/collection/readwithquery/{CREDENTIAL}/{collection}"
    body = requests.post(url, json={"query": {}}, timeout=600).content
    return body[1:-1].replace(b'},{"_id"', b'}\n{"_id"') + b"\n"


def _parse_in_memory(address: str, collection: str, _: Any) -> Any:
    import pyarrow as pa
    import pyarrow.json

    pa.set_cpu_count(PARSER_THREADS)
    return pa.json.read_json(pa.BufferReader(_in_memory(address, collection)))


def _append(address: str, collection: str, frame: Any) -> int:
    from connectome_dagster import Connectome

    with Connectome(
        base_url=address, write_credential=CREDENTIAL, batch_rows=BATCH_ROWS
    ) as connectome:
        report = connectome.collection(collection).append(frame)
    return report.rows


def _append_by_hand(address: str, collection: str, frame: Any) -> int:
    import requests

    url = f"{address}/collection/batchwrite/{CREDENTIAL}/{collection}"
    # The whole frame at once: by batches, pandas takes half as long again.
    documents = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for at in range(0, len(documents), BATCH_ROWS):
        batch = documents[at : at + BATCH_ROWS]
        requests.post(url, json=batch, timeout=600).raise_for_status()
    return len(documents)


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


def _of_kept(run: Run) -> Read:
    def documents(address: str, _: str, frame: Any) -> Documents:
        import requests

        run(address, KEPT, frame.head(KEPT_ROWS))
        batches = requests.get(f"{address}/{KEPT}", timeout=600).json()
        kept = [document for batch in batches for document in batch]
        return sorted(kept, key=lambda document: str(document["_id"]))

    return documents


SIDES = {
    "batches": Side(_read_batches, _batches_documents),
    "arrow": Side(_read_arrow, _of_table(_read_arrow)),
    "pandas": Side(_read_pandas, _of_frame(_read_pandas)),
    "parquet": Side(_read_parquet, _parquet_documents),
    "read by hand": Side(_read_by_hand, _of_frame(_read_by_hand)),
    "pyarrow in memory": Side(_parse_in_memory, _of_table(_parse_in_memory), _in_memory),
    "append": Side(_append, _of_kept(_append)),
    "append by hand": Side(_append_by_hand, _of_kept(_append_by_hand)),
}


def _plain(value: Any) -> Any:
    """One form for what the sides hold differently: arrays, timestamps, kinds of numbers."""
    if isinstance(value, dict):
        return {name: _plain(below) for name, below in value.items()}
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value


def digest(documents: Documents) -> str:
    """A hash of every field of every document, in their order."""
    text = json.dumps([_plain(document) for document in documents], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def run_side(
    name: str, address: str, frame_file: str, collection: str = ALL, *, prove: bool
) -> dict[str, Any]:
    """Run a side once and say what it cost, how many rows went through and, if asked, which."""
    side = SIDES[name]
    frame, few, everything = None, FEW, collection
    if frame_file:
        import pandas as pd

        frame, few, everything = pd.read_pickle(frame_file), SINK, SINK
    side.run(address, few, None if frame is None else frame.head(10))
    if side.prepare is not None:
        side.prepare(address, everything)
    made, cost = measured(lambda: side.run(address, everything, frame))
    rows = made if isinstance(made, int) else len(made)
    del made
    proof = digest(side.documents(address, everything, frame)) if prove else None
    return {**asdict(cost), "rows": rows, "digest": proof}


if __name__ == "__main__":
    side_name, server, pickled, asked, proving = sys.argv[1:]
    print(json.dumps(run_side(side_name, server, pickled, asked, prove=proving == "prove")))
