"""The two credentials of a collection, checked before use, and their removal from foreign text.

Knows how a credential may look and how others may write it down; does not know where it comes
from, nor how it is sent.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from connectome_dagster.api.endpoints import Needs
from connectome_dagster.errors import ConfigurationError

REDACTED = "***"

ENVIRONMENT = {"read": "CONNECTOME_READ_CREDENTIAL", "write": "CONNECTOME_WRITE_CREDENTIAL"}

# A service that shortens what it quotes leaves the beginning of a credential. This many of its
# characters in a row are taken for one: fewer would hit ordinary words.
TELLTALE_CHARACTERS = 8


# The longest way to write one character: four bytes of UTF-8, percent-encoded twice.
LONGEST_SPELLING = 20


@dataclass(frozen=True, repr=False)
class Credentials:
    """A read and a write credential (F2), either of which may be missing.

    Args:
        read: serves reads, None if there is none.
        write: serves writes, updates and deletes, None if there is none.

    Raises:
        ConfigurationError: a credential that cannot be one. The message never holds its value.

    Example:
        >>> Credentials(read="r-123", write=None)
        Credentials(read='***', write=None)
    """

    read: str | None = None
    write: str | None = None

    def __post_init__(self) -> None:
        for needs, value in (("read", self.read), ("write", self.write)):
            if value is not None and (complaint := _complaint(value)) is not None:
                raise ConfigurationError(
                    f"the {needs} credential {complaint}. Copy it again from the collection's"
                    f" Integration > API page, or set {ENVIRONMENT[needs]}"
                )

    def __repr__(self) -> str:
        shown = (None if value is None else REDACTED for value in (self.read, self.write))
        return "Credentials(read={!r}, write={!r})".format(*shown)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen: the credentials that are there."""
        return tuple(value for value in (self.read, self.write) if value is not None)

    def for_(self, needs: Needs, verb: str, collection: str) -> str:
        """Return the credential that a call needs.

        Args:
            needs: `"read"` or `"write"` (F2).
            verb: the verb of the call, for the message.
            collection: the collection id, for the message.

        Raises:
            ConfigurationError: there is none; names the environment variable to set.

        Example:
            >>> Credentials(read="r-123").for_("read", "readwithquery", "movies")
            'r-123'
        """
        value = self.read if needs == "read" else self.write
        if value is None:
            raise ConfigurationError(
                f"{verb} of collection {collection!r} needs a {needs} credential and there is none:"
                f" give {needs}_credential or set {ENVIRONMENT[needs]}. Nothing was sent"
            )
        return value


def _complaint(value: object) -> str | None:
    # A subclass of str is how Dagster hands over an EnvVar that nobody resolved: its text is the
    # variable's name, and sending that would look like a wrong credential.
    if type(value) is not str:
        return (
            f"is a {type(value).__name__}, not a plain str (an environment variable that was not"
            " resolved?)"
        )
    if not value:
        return "is empty"
    if value in (".", ".."):
        return "is a dot segment, which has no place in a URL"
    if "/" in value:
        return "holds a '/': give the credential alone, not a URL or a path"
    if any(character.isspace() or not character.isprintable() for character in value):
        return "holds whitespace or control characters (a line end from a file?)"
    return None


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every occurrence of a secret, however it is written down.

    Each character counts as itself, percent-encoded, JSON-escaped or HTML-escaped, in either
    case and any mixture; the first eight characters of a longer secret count as the secret.

    Args:
        text: what came from outside.
        secrets: what must not be seen; an empty one is skipped.

    Returns:
        The text with `***` in place of each occurrence.

    Example:
        >>> redact("no /read/r%2D123 here", ["r-123"])
        'no /read/*** here'
    """
    for secret in sorted((secret for secret in secrets if secret), key=len, reverse=True):
        pieces = [_spellings(character) for character in secret]
        text = _without(text, pieces)
    return text


def redacted_start(text: str, secrets: Iterable[str], *, length: int, cut: bool) -> str:
    """Redact a text and shorten it, in this order, so that no half of a secret is left.

    Args:
        text: what came from outside.
        secrets: what must not be seen.
        length: characters to keep at most.
        cut: whether `text` itself is only a beginning, so that a secret may stand half at its end.

    Returns:
        At most `length` characters, and an ellipsis if something is missing.

    Example:
        >>> redacted_start("known: r-1", ["r-123"], length=80, cut=True)
        'known: …'
    """
    secrets = [secret for secret in secrets if secret]
    if cut:
        text = text[: min((_start_of_half(text, secret) for secret in secrets), default=len(text))]
    text = redact(text, secrets)
    return text[:length] + "…" if cut or len(text) > length else text


def _spellings(character: str) -> re.Pattern[str]:
    encoded = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    forms = {
        character,
        encoded,
        encoded.replace("%", "%25"),  # encoded twice, as by a proxy that quotes what it was given
        json.dumps(character)[1:-1],
        json.dumps(character, ensure_ascii=False)[1:-1],
        "".join(f"\\u{unit:04x}" for unit in _utf16_units(character)),
        html.escape(character),
        f"&#{ord(character)};",
        f"&#x{ord(character):x};",
    }
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _utf16_units(character: str) -> Iterable[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def _without(text: str, pieces: list[re.Pattern[str]]) -> str:
    patterns = [f"(?:{piece.pattern})" for piece in pieces]
    telltale = re.compile("".join(patterns[:TELLTALE_CHARACTERS]), re.IGNORECASE)
    whole = re.compile("".join(patterns), re.IGNORECASE)
    kept: list[str] = []
    done = 0
    while (found := telltale.search(text, done)) is not None:
        kept += (text[done : found.start()], REDACTED)
        full = whole.match(text, found.start())
        done = full.end() if full else _matched(text, found.end(), pieces[TELLTALE_CHARACTERS:])
    return "".join(kept) + text[done:]


def _matched(text: str, position: int, pieces: list[re.Pattern[str]]) -> int:
    for piece in pieces:
        found = piece.match(text, position)
        if found is None:
            break
        position = found.end()
    return position


def _start_of_half(text: str, secret: str) -> int:
    """Where the beginning of a secret starts that the end of the text cuts off."""
    pieces = [_spellings(character) for character in secret]
    for start in range(max(0, len(text) - LONGEST_SPELLING * len(pieces)), len(text)):
        end = _matched(text, start, pieces)
        # What is left over may be a character that is cut off within its escape, whose first sign
        # may have been taken for itself.
        seam = text[max(start, end - 1) : end + 1]
        if end == len(text) or (
            len(text) - end < LONGEST_SPELLING and any(sign in seam for sign in "%\\&")
        ):
            return start
    return len(text)
