"""What documents carry so that one write can be told from another: load, key and attempt.

Pure. The API has no idempotency header to rely on, so the note travels in the document, in one
field whose name is a setting; readers hide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectome_dagster.errors import ConfigurationError

# The field of the note, unless the setting `bookkeeping` names another.
BOOKKEEPING = "_dagster"


@dataclass(frozen=True)
class Marks:
    """The note in each document of a load, and the filters that find documents by it.

    Load ids, keys and attempts are hexadecimal digits, as `identity` makes them.

    Attributes:
        field: the name of the field.

    Raises:
        ConfigurationError: a name that cannot be one field of a document, or is `_id`.

    Example:
        >>> Marks().mark(b'{"a":1}', "7f", "c0", "01")
        b'{"a":1,"_dagster":{"load":"7f","key":"c0","attempt":"01"}}'
    """

    field: str = BOOKKEEPING

    def __post_init__(self) -> None:
        name = self.field
        if (
            not isinstance(name, str)
            or not name
            or name == "_id"
            or name.startswith("$")
            or not name.isprintable()
            or any(character in name for character in '."\\')
        ):
            raise ConfigurationError(
                f"bookkeeping is {name!r}: give the name of a field that is not '_id', does not"
                " begin with '$', and holds no dot, quote, backslash or control character"
            )

    @property
    def load(self) -> str:
        """The path of the load id."""
        return f"{self.field}.load"

    @property
    def key(self) -> str:
        """The path of the row's key."""
        return f"{self.field}.key"

    @property
    def attempt(self) -> str:
        """The path of the attempt."""
        return f"{self.field}.attempt"

    @property
    def projection(self) -> dict[str, int]:
        """Shows key and attempt alone, beside what every read shows."""
        return {self.key: 1, self.attempt: 1}

    def mark(self, line: bytes, load: str, key: str, attempt: str) -> bytes:
        """Put the note into one encoded document."""
        return self.array([line[:-1]], load, [key.encode()], attempt)[1:-1]

    def array(
        self,
        opened: Sequence[bytes],
        load: str,
        keys: Sequence[bytes],
        attempt: str,
        *,
        as_ids: bool = False,
    ) -> bytes:
        """Make the JSON array of documents, each with its note.

        Args:
            opened: encoded documents without their closing brace.
            load: the load id.
            keys: a key for each, 24 hexadecimal digits in the case of `as_ids`.
            attempt: the attempt that they are sent in.
            as_ids: whether the key is the `_id` as well.

        Example:
            >>> Marks("m").array([b'{"a":1', b"{"], "7f", [b"c0", b"c1"], "01")
            b'[{"a":1,"m":{"load":"7f","key":"c0","attempt":"01"}},\
{"m":{"load":"7f","key":"c1","attempt":"01"}}]'
        """
        lead = f'"{self.field}":{{"load":"{load}","key":"'.encode()
        leads = [b"," + lead] * len(opened)
        if b"{" in opened:  # a document without fields has nothing to part the note from
            leads = [lead if line == b"{" else b"," + lead for line in opened]
        rest = f'","attempt":"{attempt}"}}'.encode()
        columns: list[Sequence[bytes]] = [opened, leads, keys]
        if as_ids:
            columns += [[rest + b',"_id":"'] * len(opened), keys, [b'"},'] * len(opened)]
        else:
            columns += [[rest + b"},"] * len(opened)]
        # Filled by slices and joined once: no Python is run for a row.
        parts = [b""] * (len(opened) * len(columns))
        for at, column in enumerate(columns):
            parts[at :: len(columns)] = column
        return b"[" + b"".join(parts)[:-1] + b"]"

    def bytes_beside(self, load: str, attempt: str, key_digits: int, *, as_ids: bool) -> int:
        """Bytes of a document in `array` beside its own, at most."""
        empty = self.array([b'{"a":1'], load, [b"0" * key_digits], attempt, as_ids=as_ids)
        return len(empty) - len(b'[{"a":1]')

    def of_load(self, load: str, where: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The filter for the documents of a load, or for those of them that `where` finds."""
        return _all(where, {self.load: load})

    def of_keys(self, load: str, keys: Sequence[str]) -> dict[str, Any]:
        """The filter for the documents of a load that have one of these keys."""
        return {self.load: load, self.key: {"$in": list(keys)}}

    def copies(self, load: str, keys: Sequence[str], attempts: Sequence[str]) -> dict[str, Any]:
        """The filter for those of one of these attempts.

        Whoever deletes by it names attempts that it has seen: a delete that arrives late hits
        nothing that was written since.
        """
        return {**self.of_keys(load, keys), self.attempt: {"$in": list(attempts)}}

    def of_run(self, load: str, token: str) -> dict[str, Any]:
        """The filter for what one run has written of a load: the attempts that begin with token."""
        return {self.load: load, **self.run(token)}

    def run(self, token: str) -> dict[str, Any]:
        """The part of a filter that selects one run's attempts: those that begin with its token."""
        return {self.attempt: {"$gte": token, "$lte": f"{token}ff"}}

    def of_attempts(
        self, load: str, attempts: Sequence[str], where: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The filter for what `where` finds of these attempts of a load."""
        return _all(where, {self.load: load, self.attempt: {"$in": list(attempts)}})

    def before(self, token: str, where: Mapping[str, Any]) -> dict[str, Any]:
        """The filter for what `where` finds and neither this run nor a newer one has written."""
        return _all(where, {self.attempt: {"$not": {"$gte": token}}})

    def replaced(self, load: str, token: str, where: Mapping[str, Any]) -> dict[str, Any]:
        """The filter for what `where` finds and neither the load nor a newer run has written."""
        others = {self.load: {"$ne": load}}
        return _all(where, others, {self.attempt: {"$not": {"$gte": token}}})


def _all(where: Mapping[str, Any] | None, *filters: dict[str, Any]) -> dict[str, Any]:
    """Everything at once; beside `where`, which may name the same fields."""
    if where:
        return {"$and": [dict(where), *filters]}
    return filters[0] if len(filters) == 1 else {"$and": list(filters)}
