"""Whether keys are said in filters as the documents have them, found out before anything is sent.

What a response shows as text may be an ObjectId or a date, which text finds nothing of (U4): an
update that is to find a document by such a key would create a second one beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from connectome_dagster.errors import ConfigurationError, QueryError
from connectome_dagster.transfer.readback import read
from connectome_dagster.transfer.target import Tally, Target

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,}Z")

# What to write instead where a form of Extended JSON is shown, or text is.
_AS_THEY_ARE = {
    "$date": "encoding=Encoding(timestamps='ejson')",
    "$numberDecimal": "encoding=Encoding(decimals='ejson')",
    "$binary": "encoding=Encoding(binary='ejson')",
    "$uuid": "encoding=Encoding(binary='ejson')",
}


def are_object_ids(target: Target, tally: Tally) -> bool:
    """Find out whether the collection's documents are found by `{"$oid": …}`, not by its digits.

    Asks for the first and the last `_id`, which differ in kind if any two do, and looks how each
    is found.

    Args:
        target: the collection.
        tally: told what the looks cost: two requests to six.

    Returns:
        False if it is empty, if its `_id` are found as they are shown, and if none are shown.

    Raises:
        ConfigurationError: some are found this way and some the other; or they are shown and not
            found either way.
        ConnectomeError: the service refused, or could not be reached.
    """
    kinds = set()
    for direction in (1, -1):
        ends = read(target, tally, {}, project={"_id": 1}, sort={"_id": direction}, limit=1)
        kinds |= {_is_object_id(target, tally, document.get("_id")) for document in ends}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"collection {target.collection!r} has documents whose _id is text and others whose "
            "_id is an ObjectId, so that a key of digits may be either: give other columns in on"
        )
    return True in kinds


def _is_object_id(target: Target, tally: Tally, shown: Any) -> bool:
    digits = shown.get("$oid") if isinstance(shown, Mapping) and len(shown) == 1 else shown
    if not (isinstance(digits, str) and _OBJECT_ID.fullmatch(digits)):
        return False
    if _finds(target, tally, "_id", digits):
        return False
    if _finds(target, tally, "_id", {"$oid": digits}):
        return True
    raise ConfigurationError(
        f"collection {target.collection!r} shows an _id that no filter finds, as text or as an "
        "ObjectId, so that documents cannot be told by it: give other columns in on"
    )


def check_found(target: Target, tally: Tally, key: Mapping[str, Any]) -> None:
    """Look whether the values of a key, as they are said, can find documents.

    Text and numbers that nothing else is shown as are taken for what they are.

    Args:
        target: the collection.
        tally: told what the looks cost: up to two requests for each column that may mislead.
        key: the key of one row, as its filter has it.

    Raises:
        ConfigurationError: documents have such a field in another form.
        ConnectomeError: the service refused, or could not be reached.
    """
    for name, said in key.items():
        misleading = isinstance(said, str) and (_OBJECT_ID.fullmatch(said) or _INSTANT.match(said))
        if name == "_id" or not (misleading or isinstance(said, Mapping)):
            continue
        found = read(target, tally, {name: {"$ne": None}}, project={name: 1, "_id": 0}, limit=1)
        shown = found[0].get(name) if found else None
        if isinstance(shown, str):
            is_text = _finds(target, tally, name, shown)
        elif isinstance(shown, Mapping) and next(iter(shown), "").startswith("$"):
            is_text = False
        else:  # none there, or a number, which is told from both
            continue
        if is_text != isinstance(said, str):
            raise _other_form(target, name, said, shown)


def check_compared(target: Target, tally: Tally, key: Mapping[str, Any]) -> None:
    """As `check_found`, for who looks for documents by text alone, also by their `_id`.

    Raises:
        ConfigurationError: documents have such a field in another form, or ObjectIds for `_id`.
        ConnectomeError: the service refused, or could not be reached.
    """
    if "_id" in key and are_object_ids(target, tally):
        raise ConfigurationError(
            f"the _id of collection {target.collection!r} are ObjectIds, which text does not find, "
            "so that all rows would seem to be missing: upsert(on=['_id']) finds them, or give "
            "other columns in on. Nothing was sent"
        )
    check_found(target, tally, key)


def _other_form(target: Target, name: str, said: Any, shown: Any) -> ConfigurationError:
    here = f"the key column {name!r} of collection {target.collection!r}"
    if isinstance(said, Mapping):
        form = next(iter(said))
        return ConfigurationError(
            f"{here} is text in its documents, which {form} in a filter does not find: write it as"
            " text, as encoding=Encoding() does. Nothing was sent"
        )
    form = next(iter(shown)) if isinstance(shown, Mapping) else ""
    form = form or ("$date" if _INSTANT.match(shown) else "$oid")
    way = _AS_THEY_ARE.get(form, "give other columns in on")
    return ConfigurationError(
        f"{here} is no text in its documents ({form} in Extended JSON), and text does not find it: "
        f"{way}. Nothing was sent"
    )


def _finds(target: Target, tally: Tally, name: str, said: Any) -> bool:
    try:
        return bool(read(target, tally, {name: said}, project={"_id": 1}, limit=1))
    except QueryError:  # a service that takes $oid for an operator
        return False
