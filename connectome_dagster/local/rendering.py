"""The page at `/` as HTML. Values in, text out: every text that is not ours is escaped here.

Knows neither HTTP nor storage, and is never given a credential.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

from connectome_dagster.local.calls import LANGUAGES, VARIABLES, Call, Credential, Snippet, calls
from connectome_dagster.local.log import Entry
from connectome_dagster.local.preview import pieces, visible

# A person looks a list of names over; a session of tests may make thousands of collections.
MAX_COLLECTIONS = 200
# A name has no bound of its own.
NAME_CHARACTERS = 120
DOTS = "••••••••"
_ESCAPES = (
    "These credentials hold characters that a URL takes only percent-encoded: Python, curl and "
    "JavaScript want them so in the variable, Dagster as they are."
)

_KINDS = {"key": "key", "mark": "mark", "note": "left-out"}


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


_PAGE = Template(_part("page.html"))
_STYLE = _part("page.css")
_SCRIPT = _part("page.js")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# Nothing from elsewhere, no style and no script but the page's own, in no frame.
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{_hash(_STYLE)}'",
        f"script-src 'sha256-{_hash(_SCRIPT)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@dataclass(frozen=True)
class Shown:
    """The collection that the page shows.

    Attributes:
        name: its id.
        count: how many documents it has.
        documents: the first of them, decoded.
        escapes: whether a credential holds what a URL takes only escaped.
    """

    name: str
    count: int
    documents: Sequence[Any]
    escapes: bool


def page(
    *,
    base_url: str,
    token: str,
    counts: Sequence[tuple[str, int]],
    shown: Shown | None,
    chosen: bool,
    requests: Iterable[Entry],
) -> str:
    """The whole page.

    Args:
        base_url: where the server answers, as the person's browser reached it.
        token: what the page's script proves itself with.
        counts: all collections with the number of their documents.
        shown: the collection that is shown, None if there is none.
        chosen: whether the person asked for a certain one.
        requests: the last requests, newest first.
    """
    if shown is not None:
        main, title = _collection(base_url, shown), f"{_name(shown.name)} · Connectome local server"
    else:
        main, title = _nothing(chosen), "Connectome local server"
    return _PAGE.substitute(
        title=title,
        style=_STYLE,
        script=_SCRIPT,
        token=escape(token),
        base_url=escape(base_url),
        collections=collections(counts, None if shown is None else shown.name),
        attributes="" if shown is None else f' data-collection="{escape(shown.name)}"',
        collection=main,
        requests=request_rows(requests),
    )


def collections(counts: Sequence[tuple[str, int]], selected: str | None) -> str:
    """The list of collections, bounded; the selected one is always in it."""
    listed = list(counts[:MAX_COLLECTIONS])
    if selected is not None and selected not in dict(listed):
        listed += [one for one in counts[MAX_COLLECTIONS:] if one[0] == selected]
    items = [_item(name, count, current=name == selected) for name, count in listed]
    if len(listed) < len(counts):
        items.append(f'<li class="more">and {len(counts) - len(listed):,} more</li>')
    return "".join(items)


def documents(shown: Shown) -> str:
    """The first documents of a collection."""
    many = f"first {len(shown.documents):,} of {shown.count:,}"
    count = many if shown.count > len(shown.documents) else f"{shown.count:,}"
    if not shown.documents:
        box = '<p class="sheet empty">No documents yet. “Write a batch” below makes the first.</p>'
    else:
        sheets = "".join(f"<pre>{_document(one)}</pre>" for one in shown.documents)
        box = (
            '<div class="sheet documents" tabindex="0" role="region" '
            f'aria-labelledby="documents-title">{sheets}</div>'
        )
    return (
        '<div class="heading"><h3 id="documents-title">Documents</h3>'
        f'<span class="count">{count}</span></div>{box}'
    )


def request_rows(requests: Iterable[Entry]) -> str:
    """Rows of the table of requests."""
    rows = "".join(map(_row, requests))
    return rows or '<tr data-sequence=""><td class="none" colspan="7">No request yet.</td></tr>'


def _text(text: str) -> str:
    return escape(visible(text))


def _name(name: str) -> str:
    cut = name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
    return _text(cut)


def _item(name: str, count: int, *, current: bool) -> str:
    mark = ' aria-current="page"' if current else ""
    return (
        f'<li><a href="/?collection={quote(name, safe="")}"{mark}>'
        f'<span class="name">{_name(name)}</span> <span class="count">{count:,}</span></a></li>'
    )


def _nothing(chosen: bool) -> str:
    if chosen:
        return "<h2>No such collection</h2><p>This server has no collection of that name.</p>"
    return (
        "<h2>No collections yet</h2>"
        '<p class="sheet empty">Start the server with one: '
        "<code>connectome serve --collection movies</code></p>"
    )


def _collection(base_url: str, shown: Shown) -> str:
    sample = next((one for one in shown.documents if isinstance(one, dict)), None)
    offered = calls(base_url, shown.name, sample)
    return (
        f"<h2>{_name(shown.name)}</h2>"
        f'<section id="documents" aria-labelledby="documents-title">{documents(shown)}</section>'
        '<section class="api" aria-labelledby="api-title">'
        '<div class="heading"><h3 id="api-title">Integration → API</h3>'
        '<button id="reveal" type="button" hidden>Show credentials</button></div>'
        f"{_credentials(shown.escapes)}"
        f"{_choices(offered)}"
        f'<div class="sheet">{"".join(map(_call, offered))}</div>'
        "</section>"
    )


def _credentials(escapes: bool) -> str:
    rows = "".join(
        f"<dt>{variable}</dt>"
        f'<dd><span class="credential" data-role="{role}" data-form="value">{DOTS}</span></dd>'
        for role, variable in VARIABLES.items()
    )
    note = f'<p class="note">{_ESCAPES}</p>' if escapes else ""
    return f'<dl class="credentials">{rows}</dl>{note}'


def _choices(offered: Sequence[Call]) -> str:
    verbs = [(f"call-{call.verb}", call.title) for call in offered]
    languages = [(f"in-{language}", title) for language, title in LANGUAGES.items()]
    return (
        f'<div class="choices">{_choice("call", "Call", verbs)}'
        f"{_choice('language', 'Language', languages)}</div>"
    )


def _choice(name: str, legend: str, values: Sequence[tuple[str, str]]) -> str:
    inputs = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (not place)}>'
        f"<span>{title}</span></label>"
        for place, (value, title) in enumerate(values)
    )
    return f"<fieldset><legend>{legend}</legend>{inputs}</fieldset>"


def _call(call: Call) -> str:
    place = _snippet((f"/collection/{call.verb}/", Credential(call.role, "path", DOTS)))
    snippets = "".join(
        f'<div class="snippet" data-language="{language}">'
        f'<pre tabindex="0" aria-label="{call.title}, {LANGUAGES[language]}">'
        f"<code>{_snippet(snippet)}</code></pre>"
        '<button type="button" hidden>Copy</button></div>'
        for language, snippet in call.snippets.items()
    )
    return (
        f'<div data-verb="{call.verb}"><p class="endpoint"><b>{call.method}</b> '
        f"{place}/{_text(call.collection)}</p>{snippets}</div>"
    )


def _snippet(snippet: Snippet) -> str:
    return "".join(
        escape(part)
        if isinstance(part, str)
        else f'<span class="credential" data-role="{part.role}" data-form="{part.form}">'
        f"{escape(part.stand_in)}</span>"
        for part in snippet
    )


def _document(document: Any) -> str:
    return "\n".join(
        "".join(
            f'<span class="{_KINDS[kind]}">{escape(text)}</span>'
            if kind in _KINDS
            else escape(text)
            for kind, text in line
        )
        for line in pieces(document)
    )


def _row(entry: Entry) -> str:
    if entry.status is None:
        status, grade = ("…" if entry.milliseconds is None else "none"), "warn"
    else:
        status = str(entry.status)
        grade = "good" if entry.status < 400 else "warn" if entry.status < 500 else "bad"
    took = "…" if entry.milliseconds is None else f"{entry.milliseconds:,.1f}"
    fault = "" if entry.fault is None else f" <small>{_text(entry.fault)}</small>"
    return (
        f'<tr data-sequence="{entry.sequence}">'
        f'<td class="sequence">{entry.sequence}</td>'
        f'<td class="verb"><small>{_text(entry.method)}</small> {_text(entry.verb) or "—"}</td>'
        f'<td class="collection">{_name(entry.collection) or "—"}</td>'
        f'<td class="status"><span class="{grade}">{status}</span>{fault}</td>'
        f'<td class="number milliseconds">{took}</td>'
        f'<td class="number in">{entry.request_bytes:,}</td>'
        f'<td class="number out">{entry.response_bytes:,}</td></tr>'
    )
