"""The sides that write: the package, and what a user would write without it.

Each takes the server's address, a collection and a DataFrame. Each pays for its own imports alone,
so they stand inside the functions.
"""

from __future__ import annotations

from typing import Any

from benchmarks.data import KEY, KEYED
from benchmarks.proof import Documents
from benchmarks.replay import DELAYED, KEPT, SINK
from benchmarks.side import CREDENTIAL, REQUEST_SECONDS, Did, Read, Run, Side

# The default of the package: documents in one request of an append.
BATCH_ROWS = 1000

UPSERT_ROWS = 4000
# By hand it is one request after the other, so a tenth of them tells how many go in a second.
LOOP_ROWS = 400
UPSERT_CONCURRENCY = 32
SYNC_ROWS = 100_000
CHANGED_EVERY = 100

# Rows that are sent once more, where they are kept, to see what was sent.
KEPT_ROWS = 2500
KEPT_UPSERTS = 200

# What the package adds to a document so that a write is recognized; it hides it from readers.
_BOOKKEEPING = "_dagster"


def _append(address: str, collection: str, frame: Any) -> Did:
    from connectome_dagster import Connectome

    with Connectome(
        base_url=address,
        read_credential=CREDENTIAL,
        write_credential=CREDENTIAL,
        batch_rows=BATCH_ROWS,
    ) as connectome:
        report = connectome.collection(collection).append(frame)
    return Did(report.rows, requests=report.requests, guarantee=report.guarantee)


def _plain(frame: Any) -> Documents:
    documents: Documents = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return documents


def _append_by_hand(address: str, collection: str, frame: Any) -> int:
    import requests

    url = f"{address}/collection/batchwrite/{CREDENTIAL}/{collection}"
    documents = _plain(
        frame
    )  # the whole frame at once: by batches, pandas takes half as long again
    for at in range(0, len(documents), BATCH_ROWS):
        batch = documents[at : at + BATCH_ROWS]
        requests.post(url, json=batch, timeout=REQUEST_SECONDS).raise_for_status()
    return len(documents)


def _upsert(address: str, collection: str, frame: Any) -> Did:
    from connectome_dagster import Connectome

    with Connectome(
        base_url=address,
        read_credential=CREDENTIAL,
        write_credential=CREDENTIAL,
        concurrency=UPSERT_CONCURRENCY,
    ) as connectome:
        report = connectome.collection(collection).upsert(frame, on=[KEY])
    return Did(report.rows, requests=report.requests, guarantee=report.guarantee)


def _upsert_by_hand(address: str, collection: str, frame: Any) -> int:
    import requests

    url = f"{address}/collection/updatewithupsert/{CREDENTIAL}/{collection}"
    documents = _plain(frame)
    for document in documents:
        body = {
            "search query": {KEY: document.pop(KEY)},
            "data": document,
            "upsert": True,
        }
        requests.post(url, json=body, timeout=REQUEST_SECONDS).raise_for_status()
    return len(documents)


def _sync(address: str, collection: str, frame: Any) -> Did:
    from connectome_dagster import Connectome

    with Connectome(
        base_url=address,
        read_credential=CREDENTIAL,
        write_credential=CREDENTIAL,
        concurrency=UPSERT_CONCURRENCY,
    ) as connectome:
        report = connectome.collection(collection).sync(frame, on=[KEY])
    return Did(
        report.rows,
        requests=report.requests,
        guarantee=report.guarantee,
        written=(report.inserted or 0) + (report.updated or 0),
    )


def _change(frame: Any) -> Any:
    """Change a value in one of so many rows."""
    changed = frame.copy()
    changed.loc[::CHANGED_EVERY, "amount"] += 1
    return changed


def _of_kept(run: Run, rows: int) -> Read:
    def documents(address: str, _: str, frame: Any) -> Documents:
        import requests

        run(address, KEPT, frame.head(rows))
        bodies = requests.get(f"{address}/{KEPT}", timeout=REQUEST_SECONDS).json()
        kept = [document for body in bodies for document in _documents_in(body)]
        return sorted(kept, key=lambda document: str(document[frame.columns[0]]))

    return documents


def _documents_in(body: Any) -> Documents:
    """The documents that a request told: those of a batch, or the one of an upsert."""
    if isinstance(body, dict):
        return [{**body["search query"], **body["data"]}]
    return [{k: v for k, v in document.items() if k != _BOOKKEEPING} for document in body]


def _of_synced(run: Run) -> Read:
    """What the collection holds afterwards: what it held, with what was sent."""

    def documents(address: str, _: str, frame: Any) -> Documents:
        import requests

        some, synced = frame.head(KEPT_UPSERTS), f"{KEPT}-{KEYED}"
        run(address, synced, some)
        url = f"{address}/collection/readwithquery/{CREDENTIAL}/{synced}"
        asked = {"query": {KEY: {"$in": some[KEY].tolist()}}}
        held = requests.post(url, json=asked, timeout=REQUEST_SECONDS).json()
        there = {document[KEY]: {**document, "_id": None} for document in held}
        for told in requests.get(f"{address}/{KEPT}", timeout=REQUEST_SECONDS).json():
            there[told["search query"][KEY]].update(told["data"])
        for document in there.values():
            del document["_id"]
        return [there[key] for key in sorted(there)]

    return documents


def _appending(run: Run) -> Side:
    return Side(run, _of_kept(run, KEPT_ROWS), rows=0, writes_to=SINK)


def _upserting(run: Run, rows: int) -> Side:
    return Side(run, _of_kept(run, KEPT_UPSERTS), rows=rows, writes_to=DELAYED, change=_change)


SIDES = {
    "append": _appending(_append),
    "append by hand": _appending(_append_by_hand),
    "upsert": _upserting(_upsert, UPSERT_ROWS),
    "upsert by hand": _upserting(_upsert_by_hand, LOOP_ROWS),
    "sync": Side(
        _sync,
        _of_synced(_sync),
        rows=SYNC_ROWS,
        writes_to=f"{DELAYED}-{KEYED}",
        beside=KEYED,
        change=_change,
        written=lambda rows: -(-rows // CHANGED_EVERY),
    ),
    "sync, all new": Side(
        _sync,
        _of_kept(_sync, KEPT_ROWS),
        rows=SYNC_ROWS,
        writes_to=SINK,
        written=lambda rows: rows,
    ),
}
