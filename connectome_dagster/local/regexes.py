"""Regular expressions as MongoDB understands them (PCRE), run with a time limit.

The `regex` library runs them: unlike `re` it has a timeout, and it knows possessive quantifiers,
atomic groups, recursion and POSIX classes. This module translates what still differs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import regex  # type: ignore[import-untyped]  # ships no types

from connectome_dagster.local.refusal import QueryError, shown

__all__ = ["check_options", "compile_search", "one_budget"]

OPTIONS = "imsux"
MAX_PATTERN_CHARACTERS = 32_764  # PCRE's own bound, which MongoDB documents
# Letters of a pattern with its counted repetitions written out, as they are compiled: PCRE allows
# 64 kilobytes. Without a bound ((a{1000}){1000}){1000} alone takes all memory.
MAX_SIZE = 65_535
# A query spends at most so long in all its patterns, over all documents and with their compilation:
# ordinary patterns need about a microsecond each, a catastrophic one would need years for a single
# document.
SECONDS_PER_QUERY = 5.0


class _Budget:
    """The seconds that are left for the patterns of one query."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = SECONDS_PER_QUERY

    def spend(self, seconds: float) -> None:
        self.left = max(self.left - seconds, 0.0)


_budget: ContextVar[_Budget | None] = ContextVar(
    "seconds left for a query's patterns", default=None
)


@contextmanager
def one_budget() -> Iterator[None]:
    """Let every pattern that is compiled inside share one budget of time, for its whole life."""
    if _budget.get() is not None:
        yield
        return
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def compile_search(pattern: str, options: str = "") -> Callable[[str], bool]:
    """A function that says whether the pattern is found anywhere in a text.

    Its time is bounded over its whole life, so it belongs to one query; see `one_budget`.

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
    if _size(pattern) > MAX_SIZE:
        raise QueryError(f"$regex: the pattern {shown(pattern)} is too large with its repetitions")
    budget = _budget.get() or _Budget()
    began = time.perf_counter()
    compiled = _compiled(pattern, options)
    budget.spend(time.perf_counter() - began)
    if not budget.left:
        raise _spent(pattern)
    if not options:
        if not _SPECIAL & set(pattern):
            return lambda text: pattern in text
        if pattern[0] == "^" and not _SPECIAL & set(pattern[1:]):
            start = pattern[1:]
            return lambda text: text.startswith(start)
    if not _CHOICES & set(pattern):
        search = compiled.search
        return lambda text: search(text) is not None
    return _bounded(compiled, pattern, budget)


def check_options(options: str) -> None:
    """Refuse letters that are no options.

    Raises:
        QueryError: the text names the letter.
    """
    for letter in options:
        if letter not in OPTIONS:
            raise QueryError(f"$options: {letter!r} is not one of the options i, m, s, x, u")


def _compiled(pattern: str, options: str) -> Any:
    ucp, rest = _start_options(pattern)
    # Without (*UCP) PCRE's \w, \d, \s, \b are ASCII while its caseless matching and \p are not.
    # ASCII mode says so at full speed; they are spelled out where a pattern can tell a difference.
    spelled_out = not ucp and (not rest.isascii() or _NEEDS_UNICODE.search(rest) is not None)
    flags = regex.VERSION0 | (regex.UNICODE if ucp or spelled_out else regex.ASCII)
    for letter, flag in (("i", regex.I), ("m", regex.M), ("s", regex.S), ("x", regex.X)):
        if letter in options:
            flags |= flag
    try:
        translated = _Translation(rest, spelled_out, "x" in options, ucp).result()
        return regex.compile(translated, flags)
    except QueryError:
        raise
    except (regex.error, RecursionError, OverflowError, ValueError, KeyError) as error:
        reason = str(error)
    raise QueryError(f"$regex: the pattern {shown(pattern)} is not valid: {reason}")


_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*(?:\]|\Z)|\{([0-9]+)(?:,([0-9]*))?\}|.", re.DOTALL
)


def _size(pattern: str) -> int:
    """Letters of the pattern with every counted repetition written out."""
    sizes, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        if token[1]:
            last *= max(int(token[1][:6]), int((token[2] or "0")[:6]), 1)
        else:
            sizes[-1] += last
            last = 1
            if token[0] == "(":
                sizes.append(0)
            elif token[0] == ")" and len(sizes) > 1:
                last = sizes.pop() + 1
        if last > MAX_SIZE:
            return last
    return sum(sizes) + last


_NEEDS_UNICODE = re.compile(r"\\[pPXx]")
_START = re.compile(r"\(\*(UCP|UTF8?)\)")


def _start_options(pattern: str) -> tuple[bool, str]:
    """PCRE's options at the start of a pattern: whether `(*UCP)` is there, and what follows."""
    ucp = False
    while found := _START.match(pattern):
        ucp |= found[1] == "UCP"
        pattern = pattern[found.end() :]
    return ucp, pattern


def _bounded(compiled: Any, pattern: str, budget: _Budget) -> Callable[[str], bool]:
    search, clock = compiled.search, time.perf_counter

    def found(text: str) -> bool:
        start = clock()
        try:
            # 0 would mean no limit at all
            return search(text, timeout=max(budget.left, 1e-6)) is not None
        except (TimeoutError, MemoryError):
            budget.left = 0.0
        finally:
            budget.spend(clock() - start)
        raise _spent(pattern)

    return found


def _spent(pattern: str) -> QueryError:
    return QueryError(
        f"$regex: the pattern {shown(pattern)} takes too much; "
        f"a query may spend {SECONDS_PER_QUERY:g} seconds in its patterns"
    )


class _Translation:
    r"""A pattern of PCRE in the terms of `regex`, read from left to right.

    Differs: `\Z`, `\z`, `\h`, `\Q…\E`, `\k<name>`, `\g{1}`, `\x{…}`, and ASCII classes.
    """

    def __init__(self, pattern: str, spelled_out: bool, extended: bool, ucp: bool) -> None:
        self.pattern = pattern
        self.spelled_out = spelled_out
        self.extended = extended
        self.ucp = ucp
        self.at = 0
        self.in_class = False

    def result(self) -> str:
        out: list[str] = []
        while self.at < len(self.pattern):
            out.append(self._next())
        return "".join(out)

    def _next(self) -> str:
        letter = self.pattern[self.at]
        if letter == "\\" and self.at + 1 < len(self.pattern):
            return self._escape()
        if self.in_class:
            if letter == "[":
                return self._posix_class() or self._skip(1, "\\[")
            self.in_class = letter != "]"
            # doubled, these are operations on sets for `regex` and letters for PCRE
            return self._skip(1, f"\\{letter}" if letter in "&|~" else letter)
        if letter == "[":
            self.in_class = True
            return self._take(_CLASS_OPENING).replace("]", "\\]")
        if letter == "{" and not _COUNT.match(self.pattern, self.at):
            return self._skip(1, "\\{")  # for `regex` it could open an approximate match
        if letter == "(" and _RECURSION.match(self.pattern, self.at):
            raise QueryError("$regex: recursion is not supported by the local server")
        if letter == "(" and (verb := _VERB.match(self.pattern, self.at)):
            return self._skip(len(verb[0]), _verb(verb[1], named=verb[2] is not None))
        if letter == "#" and self.extended:
            return self._take(_COMMENT)
        return self._skip(1, letter)

    def _skip(self, count: int, replacement: str) -> str:
        self.at += count
        return replacement

    def _take(self, what: re.Pattern[str]) -> str:
        found = what.match(self.pattern, self.at)
        return self._skip(len(found[0]), found[0]) if found else ""

    def _posix_class(self) -> str:
        name = self._take(_POSIX_CLASS)
        return _UCP_DIGITS.get(name, name) if self.ucp else name

    def _escape(self) -> str:
        letter = self.pattern[self.at + 1]
        if letter == "Q":
            quoted, _, _ = self.pattern[self.at + 2 :].partition("\\E")
            return self._skip(len(quoted) + 4, regex.escape(quoted, special_only=False))
        if letter in "pP" and (property_name := self._take(_PROPERTY)):
            return self._property(property_name)
        if letter == "x" and (found := _CODE_POINT.match(self.pattern, self.at)):
            return self._skip(len(found[0]), f"\\U{int(found[1], 16):08x}")
        if not self.in_class and (found := _REFERENCE.match(self.pattern, self.at)):
            name = next(group for group in found.groups() if group)
            return self._skip(len(found[0]), f"\\g<{name}>")
        return self._skip(2, self._class_escape(letter))

    def _property(self, text: str) -> str:
        inside = _OWN_PROPERTIES.get(text[3:-1].strip())
        if inside is None:
            return text
        if not self.in_class:
            return f"[{'^' if text[1] == 'P' else ''}{inside}]"
        if text[1] == "P":
            raise QueryError(f"$regex: {text} in a class is not supported by the local server")
        return inside

    def _class_escape(self, letter: str) -> str:
        if letter == "E":
            return ""
        if letter == "h":
            return r"\t " if self.in_class else r"[\t ]"
        if self.spelled_out and letter in _ASCII_CLASSES:
            inside = _ASCII_CLASSES[letter]
            return inside if self.in_class else f"[{inside}]"
        if not self.in_class and letter in _OUTSIDE:
            return _OUTSIDE[letter]
        if self.spelled_out and not self.in_class and letter in _SPELLED_OUT:
            return _SPELLED_OUT[letter]
        return f"\\{letter}"


def _verb(name: str, *, named: bool) -> str:
    if name in {"F", "FAIL"}:
        return "(?!)"
    if name == "SKIP" and named:
        return ""  # to a mark, and there are none: PCRE passes over it
    if name in {"PRUNE", "SKIP"}:
        return f"(*{name})"
    raise QueryError(f"$regex: the verb (*{name}) is not supported by the local server")


_POSIX_CLASS = re.compile(r"\[:\^?[a-z]+:\]")
_CLASS_OPENING = re.compile(r"\[\^?\]?")  # a bracket right after the opening is a letter
_COUNT = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
# `regex` follows an endless recursion until the memory is gone, whatever its timeout
_RECURSION = re.compile(r"\(\?(?:R|[+-]?[0-9]|&|P>)")
_VERB = re.compile(r"\(\*([A-Z]+)(:[^)]*)?\)")
_UCP_DIGITS = {"[:digit:]": r"\d", "[:^digit:]": r"\D"}  # ASCII for `regex`, whatever its mode
_OWN_PROPERTIES = {"Xan": r"\p{L}\p{N}", "Xwd": r"\p{L}\p{N}_", "Xsp": r"\s", "Xps": r"\s"}
_COMMENT = re.compile(r"#[^\n]*")
_PROPERTY = re.compile(r"\\[pP]\{[^}]*\}")
_CODE_POINT = re.compile(r"\\x\{([0-9a-fA-F]{1,6})\}")
_REFERENCE = re.compile(r"\\k(?:<(\w+)>|\{(\w+)\}|'(\w+)')|\\g(?:\{(\w+)\}|([0-9]+))")
_SPECIAL = frozenset("*+?{}()|\\[].^$")  # a pattern without these is a plain text
_CHOICES = frozenset("*+?{(|")  # without these there is one way to match: no clock needed
_ASCII_CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": r"\t\n\v\f\r "}
_OUTSIDE = {"Z": r"(?=\n?\Z)", "z": r"\Z"}
_WORD = "[a-zA-Z0-9_]"
_SPELLED_OUT = {
    **{name.upper(): f"[^{inside}]" for name, inside in _ASCII_CLASSES.items()},
    "b": f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    "B": f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
}
