"""The Extended JSON corpus of MongoDB's drivers, which ships in pymongo's source package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.schema import MAX_DIGITS

bson = pytest.importorskip("bson", reason="the extra `local` brings bson")
json_util = pytest.importorskip("bson.json_util")
DatetimeMS = pytest.importorskip("bson.datetime_ms").DatetimeMS

TEXT_FORMS = (*("$code", "$dbPointer", "$maxKey", "$minKey", "$regularExpression", "$timestamp"),)
WANTED = os.environ.get("CONNECTOME_TEST_DOWNLOADS") == "1"
DOWNLOAD_SECONDS = 240  # pip prepares a source package even if it only downloads it
OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    datetime_conversion=json_util.DatetimeConversion.DATETIME_MS,
)


class Case(NamedTuple):
    name: str
    text: str


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not WANTED:
        pytest.skip("CONNECTOME_TEST_DOWNLOADS=1 would download pymongo's source package")
    pymongo = pytest.importorskip("pymongo")
    folder = tmp_path_factory.mktemp("pymongo")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    command += [":all:", "--dest", str(folder), f"pymongo=={pymongo.version}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=DOWNLOAD_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"pymongo's source package cannot be had here ({type(error).__name__})")
    (archive,) = folder.glob("pymongo-*.tar.gz")
    with tarfile.open(archive) as members:
        return [
            json.loads(members.extractfile(member).read())  # type: ignore[union-attr]  # a file
            for member in members
            if "/test/bson_corpus/" in member.name and member.name.endswith(".json")
        ]


def valid_cases(document: dict[str, Any]) -> Iterator[Case]:
    for valid in document.get("valid", []):
        for form in ("canonical", "relaxed", "degenerate", "converted"):
            if f"{form}_extjson" in valid:
                name = f"{document['description']}: {valid['description']} ({form})"
                yield Case(name, valid[f"{form}_extjson"])


def refused_cases(document: dict[str, Any]) -> Iterator[Case]:
    is_decimal = "Decimal128" in document["description"]
    for refused in document.get("parseErrors", []):
        text = refused["string"]
        text = json.dumps({"d": {"$numberDecimal": text}}) if is_decimal else text
        yield Case(f"{document['description']}: {refused['description']}", text)


def test_every_valid_document_is_decoded_as_json_util_does(corpus: list[dict[str, Any]]) -> None:
    cases = [case for document in corpus for case in valid_cases(document)]
    assert len(cases) > 1000
    wrong = [f"{case.name}: {told}" for case in cases if (told := difference(case.text))]
    assert not wrong


def test_what_is_no_extended_json_keeps_its_members(corpus: list[dict[str, Any]]) -> None:
    cases = [case for document in corpus for case in refused_cases(document)]
    assert len(cases) > 100
    for case in cases:
        (row,) = decode(case.text.encode(), Hints()).batch.to_pylist()
        raw = json.loads(case.text)
        assert is_kept(row, raw), f"{case.name}: {row!r} of {raw!r}"


def is_kept(value: Any, raw: Any) -> bool:
    """Whether a value is all that was written, in whichever way."""
    if isinstance(raw, dict) and isinstance(value, dict):
        return value.keys() == raw.keys() and all(is_kept(value[name], raw[name]) for name in raw)
    if isinstance(value, Decimal):  # more digits than MongoDB has, but not more than Arrow
        return value == Decimal(raw["$numberDecimal"])
    if isinstance(value, datetime):  # of the form before the one that is specified
        return value.timestamp() * 1000 == raw["$date"]
    if isinstance(raw, dict) and len(raw) == 1 and str(value) == next(iter(raw.values())):
        return True
    return bool(value == raw or (isinstance(value, str) and json.loads(value) == raw))


def difference(text: str) -> str:
    """How a document differs from what json_util makes of it; empty if it does not."""
    batch = decode(text.encode(), Hints()).batch
    batch.validate(full=True)
    for name, raw in json.loads(text).items():
        ours = plain(batch.column(name))
        if not same(ours, raw):
            return f"{name!r} is {ours!r} of {batch.schema.field(name).type}, from {raw!r}"
    return ""


def plain(array: pa.Array) -> Any:
    # Python has no years beyond 9999.
    return (array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array)[0].as_py()


def same(ours: Any, raw: Any) -> bool:
    """Whether a value means what json_util reads from its JSON, whose text stands where Arrow has
    no type for it."""
    theirs = json_util.loads(json.dumps(raw), json_options=OPTIONS)
    if isinstance(raw, dict) and isinstance(ours, dict):  # an object, or what is one by its parts
        return ours.keys() == raw.keys() and all(same(ours[name], raw[name]) for name in raw)
    if isinstance(raw, list):
        return len(ours) == len(raw) and all(map(same, ours, raw))
    if isinstance(raw, dict) and not raw.keys().isdisjoint(TEXT_FORMS):
        return bool(json.loads(ours) == raw)
    if isinstance(theirs, bson.ObjectId):
        return bool(ours == str(theirs))
    if isinstance(theirs, DatetimeMS):
        return bool(ours == int(theirs))
    if isinstance(theirs, bson.Decimal128):
        return same_decimal(ours, theirs.to_decimal(), raw)
    if isinstance(theirs, bson.Binary):
        return bool(ours == bytes(theirs) if theirs.subtype == 4 else json.loads(ours) == raw)
    if isinstance(theirs, bson.Int64):
        return type(ours) is int and bool(ours == theirs)
    return type(ours) is type(theirs) and repr(ours) == repr(theirs)


def same_decimal(ours: Any, theirs: Decimal, raw: Any) -> bool:
    if isinstance(ours, Decimal):
        return ours == theirs
    # As it is written: bson leaves out zeros beyond the digits that it has.
    _, digits, exponent = Decimal(raw["$numberDecimal"]).as_tuple()
    if isinstance(exponent, str):  # NaN and infinities
        return bool(json.loads(ours) == raw)
    in_arrow = max(len(digits) + exponent, 0) + max(-exponent, 0) <= MAX_DIGITS
    return not in_arrow and bool(json.loads(ours) == raw)
