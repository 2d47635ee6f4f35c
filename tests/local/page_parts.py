"""What a person finds on the page, out of its HTML: snippets, texts, rows, the script's token."""

from __future__ import annotations

from html.parser import HTMLParser

Snippet = list[tuple[str, tuple[str, str] | None]]


class PageParts(HTMLParser):
    """Reads a page.

    Attributes:
        snippets: by verb and language; pieces of text, each with role and form if a credential
            belongs there.
        documents: the text of each document that is shown.
        rows: the texts of the cells of each request.
        links: the texts of the collections, by address.
        tags: all tags that are there.
        token: what the script proves itself with.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.snippets: dict[tuple[str, str], Snippet] = {}
        self.documents: list[str] = []
        self.rows: list[list[str]] = []
        self.links: dict[str, str] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.token = ""
        self._verb = self._language = self._link = ""
        self._place: tuple[str, str] | None = None
        self._open: list[str] = []
        self._in_documents = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += given.items()
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)
        self.token = given.get("data-token", self.token)
        self._verb = given.get("data-verb", self._verb)
        self._language = given.get("data-language", self._language)
        if tag == "section":
            self._in_documents = given.get("id") == "documents"
        if given.get("class") == "credential":
            self._place = (given["data-role"], given["data-form"])
        if tag == "a":
            self._link = given["href"]
        if tag == "pre" and self._in_documents:
            self.documents.append("")
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"a stray </{tag}>"
        self._place = None

    def handle_data(self, data: str) -> None:
        if self._open[-2:] == ["pre", "code"] or self._open[-3:] == ["pre", "code", "span"]:
            self.snippets.setdefault((self._verb, self._language), []).append((data, self._place))
        elif "pre" in self._open and self._in_documents:
            self.documents[-1] += data
        elif "td" in self._open:
            self.rows[-1][-1] += data
        elif "nav" in self._open and "a" in self._open:
            self.links[self._link] = self.links.get(self._link, "") + data


def with_variables(snippet: Snippet) -> str:
    """A snippet as it is shown: credentials come from the environment."""
    return "".join(text for text, _ in snippet)


def with_values(snippet: Snippet, credentials: dict[str, dict[str, str]]) -> str:
    """A snippet once credentials were asked for."""
    return "".join(
        text if place is None else credentials[place[0]][place[1]] for text, place in snippet
    )
