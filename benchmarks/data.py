"""The documents that are read and appended: the same bytes on every machine, kept between runs.

As a program it writes them as a JSON array and as a pickled DataFrame, in a process of its own,
so that whoever asks for them stays small. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Part of the files' names: raise it when the documents change.
EDITION = 1

_SEED = 20180201
_FIRST_DAY = datetime(2018, 2, 1, tzinfo=timezone.utc)
_SECONDS = 5 * 365 * 86_400

_CITIES = ("Zürich", "São Paulo", "東京", "Kraków", "Reykjavík", "Oslo", "Αθήνα", "Lyon")
_TAGS = ("new", "sale", "süß", "fragile", "dry goods", "B-stock", "été")
_NAMES = ('Lamp "Ida"', "Crème brûlée set", "Chair", 'Shelf 24"', "Ложка", "Desk\\table", "Jar")
_NOTES = ('said "no", twice', "call back\nafter noon", "— paid —", "50% up front")


# One title in so many is a number where documents are mixed.
_MIXED_EVERY = 3000


def documents(count: int, *, mixed: bool = False) -> Iterator[dict[str, Any]]:
    """Make documents with nested objects, lists, nulls, quotes and non-ASCII text.

    Every document has every field: a frame that was made of them says the same documents again.
    """
    draw = random.Random(_SEED).random  # its sequence is the same in every version of Python

    def one_of(values: tuple[str, ...]) -> str:
        return values[int(draw() * len(values))]

    for number in range(count):
        made = _FIRST_DAY + timedelta(milliseconds=int(draw() * _SECONDS * 1000))
        stamp = made.replace(tzinfo=None).isoformat(timespec="milliseconds")
        place = {
            "city": one_of(_CITIES),
            "geo": {"lat": round(draw() * 180 - 90, 2), "lon": round(draw() * 360 - 180, 2)},
        }
        yield {
            "_id": f"{int(made.timestamp()):08x}{number:016x}",
            "title": _title(number, f"{one_of(_NAMES)} {int(draw() * 100)}", mixed),
            "sold": int(draw() * 10_000),
            "price": round(draw() * 500, 2),
            "stock": None if draw() < 0.2 else int(draw() * 100),
            "open": draw() < 0.5,
            "made": f"{stamp}Z",
            "place": None if draw() < 0.1 else place,
            "tags": [one_of(_TAGS) for _ in range(int(draw() * 3))],
            "note": one_of(_NOTES) if draw() < 0.2 else None,
        }


def _title(number: int, title: str, mixed: bool) -> str | int:
    return number if mixed and number % _MIXED_EVERY == 0 else title


def documents_file(folder: Path, count: int, *, mixed: bool = False) -> Path:
    """Where the JSON array of so many documents is kept."""
    return folder / f"{'mixed' if mixed else 'documents'}-{EDITION}-{count}.json"


def frame_file(folder: Path, count: int) -> Path:
    """Where the DataFrame of the same documents is kept; pickles belong to a version of pandas."""
    return folder / f"frame-{EDITION}-{count}-pandas-{version('pandas')}.pickle"


def _write_documents(path: Path, count: int, *, mixed: bool = False) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, document in enumerate(documents(count, mixed=mixed)):
            file.write("," if number else "[")
            file.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        file.write("]" if count else "[]")


def _write_frame(path: Path, source: Path) -> None:
    import pandas as pd  # only this step needs it, and it takes long to import

    pd.DataFrame(json.loads(source.read_bytes())).to_pickle(path)


def prepare(folder: Path, count: int) -> None:
    """Write the files that are not there yet; one that is there is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    array, frame = documents_file(folder, count), frame_file(folder, count)
    unfinished = folder / f"unfinished-{os.getpid()}"
    for mixed in (False, True):
        path = documents_file(folder, count, mixed=mixed)
        if not path.exists():
            _write_documents(unfinished, count, mixed=mixed)
            unfinished.replace(path)
    if not frame.exists():
        _write_frame(unfinished, array)
        unfinished.replace(frame)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), int(sys.argv[2]))
