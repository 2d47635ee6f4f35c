"""Decodes one piece of documents into plain Python: as they are, every digit kept.

Pure. Knows neither Arrow nor the table of types.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import msgspec

from connectome_dagster.frames.exact import NotDocuments, check_utf8


def plain_documents(piece: bytes) -> list[dict[str, Any]]:
    """Decode the inside of a JSON array of documents.

    Raises:
        NotDocuments: it is none; or the cut was wrong, if the cut was guessed.

    Example:
        >>> plain_documents(b'{"n": 12345678901234567890}, {"x": 1e400}')
        [{'n': 12345678901234567890}, {'x': Decimal('1E+400')}]
    """
    check_utf8(piece)
    text = b"[" + piece + b"]"
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]])
    except msgspec.ValidationError as error:
        reason, beyond_floats = str(error), "out of range" in str(error)
    except (msgspec.DecodeError, RecursionError) as error:
        reason, beyond_floats = str(error), False
    if not beyond_floats:
        raise NotDocuments(reason)
    return _with_decimals(text)


def _with_decimals(text: bytes) -> list[dict[str, Any]]:
    """Decode documents with numbers beyond the range of floats, as strictly as all others."""
    try:
        documents = json.loads(text, parse_float=_exact_float, parse_constant=_no_constant)
        msgspec.json.encode(documents)  # refuses half a surrogate pair, which json lets pass
    except (ValueError, RecursionError) as error:
        reason = type(error).__name__ if isinstance(error, UnicodeError) else str(error)
    else:
        if all(isinstance(document, dict) for document in documents):
            return list(documents)
        reason = "an item is not an object"
    raise NotDocuments(reason)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _exact_float(text: str) -> float | Decimal:
    number = float(text)
    return number if math.isfinite(number) else Decimal(text)
