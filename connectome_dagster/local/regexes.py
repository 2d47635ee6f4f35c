"""Regular expressions as MongoDB understands them (PCRE), run with a time limit.

The `regex` library runs them: unlike `re` it has a timeout, and it knows possessive quantifiers,
atomic groups, recursion and POSIX classes. This module translates what still differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import regex  # type: ignore[import-untyped]  # ships no types

from connectome_dagster.local.refusal import QueryError, shown

__all__ = ["check_options", "compile_search"]

OPTIONS = "imsux"
MAX_PATTERN_CHARACTERS = 32_764  # PCRE's own bound, which MongoDB documents
# A compiled filter spends at most so long in one pattern over all its documents: ordinary patterns
# need about a microsecond each, a catastrophic one would need years for a single document.
SECONDS_PER_FILTER = 5.0

_ASCII_CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": r"\t\n\v\f\r "}


def compile_search(pattern: str, options: str = "") -> Callable[[str], bool]:
    """A function that says whether the pattern is found anywhere in a text.

    Its time is bounded over its whole life, so it belongs to one query.

    Args:
        pattern: in PCRE's syntax.
        options: letters of i, m, s, x and u, as in `$options`.

    Raises:
        QueryError: an unknown option, an invalid pattern; while searching, the time is spent.
    """
    check_options(options)
    if "\0" in pattern:
        raise QueryError("$regex: the pattern must not contain a NUL character")
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise QueryError(f"$regex: the pattern is longer than {MAX_PATTERN_CHARACTERS} characters")
    compiled = _compiled(pattern, options)
    if not set("*+?{(|\\[.^$") & set(pattern) and not options:
        return lambda text: pattern in text
    return _bounded(compiled, pattern)


def check_options(options: str) -> None:
    """Refuse letters that are no options.

    Raises:
        QueryError: the text names the letter.
    """
    for letter in options:
        if letter not in OPTIONS:
            raise QueryError(f"$options: {letter!r} is not one of the options i, m, s, x, u")


def _compiled(pattern: str, options: str) -> Any:
    flags = regex.VERSION0
    # without Unicode properties PCRE's \w, \d, \b are ASCII, but its caseless matching is not
    flags |= regex.ASCII if pattern.isascii() else regex.UNICODE
    for letter, flag in (("i", regex.I), ("m", regex.M), ("s", regex.S), ("x", regex.X)):
        if letter in options:
            flags |= flag
    try:
        return regex.compile(_translated(pattern), flags)
    except (regex.error, RecursionError, OverflowError, ValueError, KeyError) as error:
        reason = str(error)
    raise QueryError(f"$regex: the pattern {shown(pattern)} is not valid: {reason}")


def _bounded(compiled: Any, pattern: str) -> Callable[[str], bool]:
    search, clock = compiled.search, time.perf_counter
    left = SECONDS_PER_FILTER

    def found(text: str) -> bool:
        nonlocal left
        start = clock()
        try:
            return search(text, timeout=left) is not None
        except TimeoutError:
            left = 0.0
        finally:
            left = max(left - (clock() - start), 1e-6)
        raise QueryError(
            f"$regex: the pattern {shown(pattern)} takes too long; "
            f"a query may spend {SECONDS_PER_FILTER:g} seconds in it"
        )

    return found


def _translated(pattern: str) -> str:
    r"""The pattern with PCRE's `\Z`, `\z`, `\h`, `\Q…\E` and ASCII classes in `regex`'s terms."""
    out: list[str] = []
    position, in_class = 0, False
    while position < len(pattern):
        letter = pattern[position]
        if letter == "\\" and position + 1 < len(pattern):
            escaped = pattern[position + 1]
            position += 2
            if escaped == "Q":
                end = pattern.find("\\E", position)
                end = len(pattern) if end < 0 else end
                out.append(regex.escape(pattern[position:end], special_only=False))
                position = end + 2
            elif escaped != "E":
                out.append(_escape(escaped, in_class))
            continue
        if in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
            taken = _class_opening(pattern, position)
            out.append(pattern[position : position + taken])
            position += taken
            continue
        if in_class and letter == "[" and pattern[position + 1 : position + 2] == ":":
            end = pattern.find(":]", position)
            if end > 0:
                out.append(pattern[position : end + 2])
                position = end + 2
                continue
        out.append(letter)
        position += 1
    return "".join(out)


def _class_opening(pattern: str, start: int) -> int:
    """Length of `[`, `[^`, `[]` or `[^]`: a bracket right after the opening is a literal."""
    taken = 2 if pattern[start + 1 : start + 2] == "^" else 1
    return taken + (pattern[start + taken : start + taken + 1] == "]")


def _escape(letter: str, in_class: bool) -> str:
    if letter in _ASCII_CLASSES:
        inside = _ASCII_CLASSES[letter]
        return inside if in_class else f"[{inside}]"
    if letter.lower() in _ASCII_CLASSES and not in_class:
        return f"[^{_ASCII_CLASSES[letter.lower()]}]"
    if letter == "h":
        return r"\t " if in_class else r"[\t ]"
    if in_class:
        return f"\\{letter}"
    if letter == "Z":
        return r"(?=\n?\Z)"
    if letter == "z":
        return r"\Z"
    return f"\\{letter}"
