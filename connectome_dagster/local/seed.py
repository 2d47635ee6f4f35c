"""Files to the documents that a collection starts with. Knows no storage.

A file is a JSON array, NDJSON, or a GeoJSON FeatureCollection, whose features are the documents.
"""

from __future__ import annotations

from pathlib import Path

from connectome_dagster.local.collection import Document
from connectome_dagster.local.http_errors import BadRequest
from connectome_dagster.local.text import decode


class SeedError(Exception):
    """A seed file is not there or holds no documents."""


def read_seed(path: Path) -> tuple[list[Document], bool]:
    """The documents of a file, and whether they are plain JSON.

    Args:
        path: a JSON array, NDJSON, or a GeoJSON FeatureCollection; UTF-8, `.gz` is not unpacked.

    Raises:
        SeedError: the file cannot be read, is not JSON, or holds something else than documents.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        trouble = error.strerror or type(error).__name__
    else:
        trouble = ""
    if trouble:
        raise SeedError(f"cannot read {path}: {trouble}")
    return _documents(path, text.removeprefix(b"\xef\xbb\xbf"))


def _documents(path: Path, text: bytes) -> tuple[list[Document], bool]:
    try:
        value, plain = decode(text, str(path))
    except BadRequest as error:
        if text.lstrip()[:1] != b"{":
            raise SeedError(str(error)) from None
        value, plain = _lines(path, text)
    if type(value) is dict:
        collection = value.get("type") == "FeatureCollection" and "features" in value
        value = value["features"] if collection else [value]
    if type(value) is not list:
        raise SeedError(f"{path}: neither an array, nor NDJSON, nor a FeatureCollection")
    for position, document in enumerate(value):
        if type(document) is not dict:
            raise SeedError(f"{path}: element {position} is not an object")
    return value, plain


def _lines(path: Path, text: bytes) -> tuple[list[Document], bool]:
    documents, all_plain = [], True
    # Lines end with b"\n" alone: other line ends of Unicode may stand raw in a JSON string.
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            document, plain = decode(line, f"{path}, line {number},")
        except BadRequest as error:
            raise SeedError(str(error)) from None
        documents.append(document)
        all_plain = all_plain and plain
    return documents, all_plain
