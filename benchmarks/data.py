"""The documents that are read and written: the same bytes on every machine, kept between runs.

As a program it writes them as JSON arrays and as pickled DataFrames, in a process of its own, so
that whoever asks for them stays small. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Part of the files' names: raise it when the documents change.
EDITION = 1

# The shapes that there are: many small fields, nested; the same with a field of two types; few
# fields, some of them long texts; these under a key beside their `_id`; numbers alone; the first
# again and again, to be large.
DOCUMENTS, MIXED, PLAIN, KEYED = "documents", "mixed", "plain", "keyed"
FLIGHTS, LARGE = "flights", "large"

KEY = "sku"

# The shapes that are written as DataFrames as well, and what these call the `_id`.
FRAMED = {DOCUMENTS: "_id", PLAIN: KEY}

# A large collection is the documents so many times over, each time with other `_id`s.
LARGE_TIMES = 10

# 200,000 real flights stand beside the checkout where the project is developed.
FLIGHTS_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "flights-200k.json"
FLIGHTS_COUNT = 200_000

_SEED = 20180201
_FIRST_DAY = datetime(2018, 2, 1, tzinfo=timezone.utc)
_SECONDS = 5 * 365 * 86_400

_CITIES = ("Zürich", "São Paulo", "東京", "Kraków", "Reykjavík", "Oslo", "Αθήνα", "Lyon")
_TAGS = ("new", "sale", "süß", "fragile", "dry goods", "B-stock", "été")
_NAMES = ('Lamp "Ida"', "Crème brûlée set", "Chair", 'Shelf 24"', "Ложка", "Desk\\table", "Jar")
_NOTES = ('said "no", twice', "call back\nafter noon", "— paid —", "50% up front")
_WORDS = ("oak", "table", "with", "four", "drawers", "and", "brass", "handles", "from", "the")

# So that a document has 232 bytes, as the others do.
_TITLE_WORDS = 7
_DESCRIPTION_WORDS = 11

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
        place = {
            "city": one_of(_CITIES),
            "geo": {"lat": round(draw() * 180 - 90, 2), "lon": round(draw() * 360 - 180, 2)},
        }
        yield {
            "_id": _id(made, number),
            "title": _title(number, f"{one_of(_NAMES)} {int(draw() * 100)}", mixed),
            "sold": int(draw() * 10_000),
            "price": round(draw() * 500, 2),
            "stock": None if draw() < 0.2 else int(draw() * 100),
            "open": draw() < 0.5,
            "made": _instant(made),
            "place": None if draw() < 0.1 else place,
            "tags": [one_of(_TAGS) for _ in range(int(draw() * 3))],
            "note": one_of(_NOTES) if draw() < 0.2 else None,
        }


def plain_documents(count: int) -> Iterator[dict[str, Any]]:
    """Make documents of few fields without nesting, of which two are long texts."""
    draw = random.Random(_SEED).random

    def words(many: int) -> str:
        return " ".join([_WORDS[int(draw() * len(_WORDS))] for _ in range(many)])

    for number in range(count):
        made = _FIRST_DAY + timedelta(milliseconds=int(draw() * _SECONDS * 1000))
        yield {
            "_id": _id(made, number),
            "title": f"{words(_TITLE_WORDS)} {number}",
            "description": words(_DESCRIPTION_WORDS),
            "amount": round(draw() * 500, 2),
            "quantity": int(draw() * 100),
            "created": _instant(made),
        }


def keyed_documents(count: int) -> Iterator[dict[str, Any]]:
    """Make the plain documents as a service has them: what a frame calls the key is not `_id`."""
    for number, document in enumerate(plain_documents(count)):
        key = document.pop("_id")
        yield {"_id": f"{number:024x}", KEY: key, **document}


def made_up_flights(count: int) -> Iterator[dict[str, Any]]:
    """Make documents of the shape of the real flights: two integers and the hour of the day."""
    draw = random.Random(_SEED).random
    for number in range(count):
        yield {
            "delay": int(draw() ** 4 * 300) - 20,
            "distance": 100 + int(draw() * 2_500),
            "time": number * 1439 // count / 60,
        }


def _id(made: datetime, number: int) -> str:
    return f"{int(made.timestamp()):08x}{number:016x}"


def _instant(made: datetime) -> str:
    return f"{made.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _title(number: int, title: str, mixed: bool) -> str | int:
    return number if mixed and number % _MIXED_EVERY == 0 else title


def flights_are_real() -> bool:
    return FLIGHTS_FILE.exists()


def body_file(folder: Path, shape: str, count: int) -> Path:
    """Where the JSON array of so many documents is kept."""
    name = f"{shape}-real" if shape == FLIGHTS and flights_are_real() else shape
    return folder / f"{name}-{EDITION}-{count}.json"


def frame_file(folder: Path, shape: str, count: int) -> Path:
    """Where the DataFrame of the same documents is kept; pickles belong to a version of pandas."""
    name = "frame" if shape == DOCUMENTS else f"frame-{shape}-{FRAMED[shape]}"
    return folder / f"{name}-{EDITION}-{count}-pandas-{version('pandas')}.pickle"


def prepare(folder: Path, shape: str, count: int) -> None:
    """Write the files that are not there yet; one that is there is complete.

    Args:
        folder: where they are kept.
        shape: one of the shapes.
        count: how many documents; of a large collection a multiple of `LARGE_TIMES`, of flights
            `FLIGHTS_COUNT` at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array = body_file(folder, shape, count)
    unfinished = folder / f"unfinished-{os.getpid()}"
    if not array.exists():
        if shape == LARGE:
            once = body_file(folder, DOCUMENTS, count // LARGE_TIMES)
            prepare(folder, DOCUMENTS, count // LARGE_TIMES)
            _repeat(unfinished, once.read_bytes())
        elif shape == FLIGHTS and flights_are_real():
            unfinished.write_bytes(_first(FLIGHTS_FILE.read_bytes(), count))
        else:
            _write(unfinished, _made(shape, count))
        unfinished.replace(array)
    if shape in FRAMED and not (frame := frame_file(folder, shape, count)).exists():
        _write_frame(unfinished, array, FRAMED[shape])
        unfinished.replace(frame)


def _made(shape: str, count: int) -> Iterator[dict[str, Any]]:
    if shape == PLAIN:
        return plain_documents(count)
    if shape == KEYED:
        return keyed_documents(count)
    if shape == FLIGHTS:
        return made_up_flights(count)
    return documents(count, mixed=shape == MIXED)


def _write(path: Path, made: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        between = "["
        for document in made:
            file.write(between)
            file.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
            between = ","
        file.write("]")


def _repeat(path: Path, once: bytes) -> None:
    """Write an array's documents again and again; the digit before the number tells which time."""
    number = re.compile(rb'(\{"_id":"[0-9a-f]{8})0')
    with path.open("wb") as file:
        for time in range(LARGE_TIMES):
            file.write(b"," if time else b"[")
            file.write(number.sub(rb"\g<1>%x" % time, once[1:-1]))
        file.write(b"]")


def _first(array: bytes, count: int) -> bytes:
    """Cut an array of flat documents after so many, each as it stands."""
    ends = re.finditer(rb"\}[,\]]", array)
    end = next(found.start() for at, found in enumerate(ends, 1) if at == count)
    return array[: end + 1] + b"]"


def _write_frame(path: Path, source: Path, key: str) -> None:
    import pandas as pd  # only this step needs it, and it takes long to import

    frame = pd.DataFrame(json.loads(source.read_bytes()))
    frame.rename(columns={"_id": key}).to_pickle(path)


if __name__ == "__main__":
    for told in sys.argv[2:]:
        shape_name, _, many = told.partition("=")
        prepare(Path(sys.argv[1]), shape_name, int(many))
