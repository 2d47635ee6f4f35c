"""Integration → API: the calls that the service documents, ready to copy, in four languages (F9).

Text in, text out. Where a credential belongs, a snippet holds a `Credential` and never a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

Role = Literal["read", "write"]
Form = Literal["value", "path", "quoted", "literal"]

VARIABLES: dict[Role, str] = {
    "read": "CONNECTOME_READ_CREDENTIAL",
    "write": "CONNECTOME_WRITE_CREDENTIAL",
}
LANGUAGES = {
    "python": "Python",
    "curl": "curl",
    "javascript": "JavaScript",
    "dagster": "Dagster",
}

# An example names fields and values of the collection's own that are short enough to be read.
NAME_CHARACTERS = 40
VALUE_CHARACTERS = 60
EXAMPLE_FIELDS = 3
# JavaScript holds integers up to here.
SAFE_INTEGER = 2**53 - 1

# What the writing examples write: no collection has it already, so running them harms nothing.
EXAMPLES = [{"title": "Example A", "amount": 10}, {"title": "Example B", "amount": 100}]


@dataclass(frozen=True)
class Credential:
    """The place of a credential in a snippet.

    Attributes:
        role: which credential.
        form: how its value is written there, a key of `forms`.
        stand_in: what is there as long as the value is not: how the language reads it from the
            environment.
    """

    role: Role
    form: Form
    stand_in: str


Snippet = tuple[str | Credential, ...]


@dataclass(frozen=True)
class Call:
    """One documented call of a collection.

    Attributes:
        verb: the verb of the path.
        title: what it does.
        method: its HTTP method.
        role: the credential it takes (F2).
        collection: the collection id, as it stands in a URL.
        snippets: the call by language, a key of `LANGUAGES`.
    """

    verb: str
    title: str
    method: str
    role: Role
    collection: str
    snippets: Mapping[str, Snippet]


def forms(value: str) -> dict[Form, str]:
    """A credential's value as each `Credential.form` has it.

    `value` is the credential itself, `literal` the same as a text of Python; `path` is its segment
    of a URL, `quoted` that as a text of Python or JavaScript.

    >>> forms("a/b")
    {'value': 'a/b', 'literal': '"a/b"', 'path': 'a%2Fb', 'quoted': '"a%2Fb"'}
    """
    path = quote(value, safe="")
    literal = _inline(value, "python")
    return {"value": value, "literal": literal, "path": path, "quoted": f'"{path}"'}


def calls(base_url: str, collection: str, sample: Mapping[str, Any] | None = None) -> list[Call]:
    """The four documented calls (F3, F6, F7, F8) of one collection.

    Args:
        base_url: where the server answers, without a slash at the end.
        collection: the collection id.
        sample: a document of the collection, whose fields the reading example then asks for.

    >>> [call.verb for call in calls("http://127.0.0.1:8787", "movies")]
    ['readwithquery', 'batchwrite', 'updatewithupsert', 'batchdelete']
    """
    search = _search(sample)
    titles = [example["title"] for example in EXAMPLES]
    query = {"title": {"$in": titles}}
    update = {"search query": {"title": titles[0]}, "data": {"amount": 12}, "upsert": True}
    place = _Place(base_url, collection)
    return [
        place.call(
            "readwithquery", "Read with query", "POST", "read", search, _find(collection, search)
        ),
        place.call(
            "batchwrite",
            "Write a batch",
            "POST",
            "write",
            EXAMPLES,
            _writing("appended", "append", [_block(EXAMPLES, "python")], collection),
        ),
        place.call(
            "updatewithupsert",
            "Update or insert",
            "POST",
            "write",
            update,
            _writing(
                "upserted",
                "upsert",
                [_block([{"title": titles[0], "amount": 12}], "python"), 'on=["title"]'],
                collection,
            ),
        ),
        place.call(
            "batchdelete",
            "Delete with query",
            "DELETE",
            "write",
            query,
            _writing("deleted", "delete", [_inline(query, "python")], collection),
        ),
    ]


@dataclass(frozen=True)
class _Place:
    """Where the calls go."""

    base_url: str
    collection: str

    def call(self, verb: str, title: str, method: str, role: Role, body: Any, asset: str) -> Call:
        collection = quote(self.collection, safe="")
        where = (self.base_url, verb, method, role, collection, body)
        return Call(
            verb,
            title,
            method,
            role,
            collection,
            {
                "python": _python(*where),
                "curl": _curl(*where),
                "javascript": _javascript(*where),
                "dagster": _dagster(self.base_url, asset),
            },
        )


def _python(
    base_url: str, verb: str, method: str, role: Role, collection: str, body: Any
) -> Snippet:
    return (
        "import os\n\nimport requests\n\ncredential = ",
        Credential(role, "quoted", f'os.environ["{VARIABLES[role]}"]'),
        f"\n\nresponse = requests.{method.lower()}(\n"
        f'    f"{base_url}/collection/{verb}/{{credential}}/{collection}",\n'
        f"    json={_indented(_block(body, 'python'), 1)},\n"
        "    timeout=60,\n"
        ")\n"
        "response.raise_for_status()\n"
        "print(response.json())\n",
    )


def _curl(base_url: str, verb: str, method: str, role: Role, collection: str, body: Any) -> Snippet:
    text = _block(body, "json").replace("'", r"'\''")
    return (
        "curl --fail-with-body --silent --show-error \\\n"
        f"  --request {method} \\\n"
        "  --header 'Content-Type: application/json' \\\n"
        f"  --data '{_indented(text, 1, '  ')}' \\\n"
        f'  "{base_url}/collection/{verb}/',
        Credential(role, "path", f"${VARIABLES[role]}"),
        f'/{collection}"\n',
    )


def _javascript(
    base_url: str, verb: str, method: str, role: Role, collection: str, body: Any
) -> Snippet:
    return (
        "const credential = ",
        Credential(role, "quoted", f"process.env.{VARIABLES[role]}"),
        ";\n\nconst response = await fetch(\n"
        f"  `{base_url}/collection/{verb}/${{credential}}/{collection}`,\n"
        "  {\n"
        f'    method: "{method}",\n'
        '    headers: { "Content-Type": "application/json" },\n'
        f"    body: JSON.stringify({_indented(_block(body, 'json', '  '), 2, '  ')}),\n"
        "  },\n"
        ");\n"
        "if (!response.ok) throw new Error(await response.text());\n"
        "console.log(await response.json());\n",
    )


def _dagster(base_url: str, asset: str) -> Snippet:
    return (
        f"{asset}\n\n"
        "defs = dg.Definitions(\n"
        f"    assets=[{_asset_name(asset)}],\n"
        "    resources={\n"
        '        "connectome": ConnectomeResource(\n'
        f'            base_url="{base_url}",\n'
        "            read_credential=",
        Credential("read", "literal", f'dg.EnvVar("{VARIABLES["read"]}")'),
        ",\n            write_credential=",
        Credential("write", "literal", f'dg.EnvVar("{VARIABLES["write"]}")'),
        ",\n        )\n    },\n)\n",
    )


def _asset_name(asset: str) -> str:
    return asset.partition("\ndef ")[2].partition("(")[0]


def _find(collection: str, search: Mapping[str, Any]) -> str:
    arguments = "".join(
        f"        {'' if name == 'query' else name + '='}{_inline(value, 'python')},\n"
        for name, value in search.items()
    )
    return (
        "import dagster as dg\n"
        "import pandas as pd\n\n"
        "from connectome_dagster import ConnectomeResource\n\n\n"
        "@dg.asset\n"
        "def found(connectome: ConnectomeResource) -> pd.DataFrame:\n"
        f"    collection = connectome.collection({_inline(collection, 'python')})\n"
        "    documents = collection.find(\n"
        f"{arguments}"
        "    )\n"
        "    return documents.to_pandas()\n"
    )


def _writing(name: str, operation: str, arguments: Iterable[str], collection: str) -> str:
    inside = "".join(f"        {_indented(argument, 2)},\n" for argument in arguments)
    return (
        "import dagster as dg\n\n"
        "from connectome_dagster import ConnectomeResource\n\n\n"
        "@dg.asset\n"
        f"def {name}(connectome: ConnectomeResource) -> None:\n"
        f"    collection = connectome.collection({_inline(collection, 'python')})\n"
        f"    collection.{operation}(\n"
        f"{inside}"
        "    )\n"
    )


def _search(sample: Mapping[str, Any] | None) -> dict[str, Any]:
    """A query that finds the sample; without one, the service's own example (F3)."""
    fields = {name: value for name, value in (sample or {}).items() if _shows_well(name, value)}
    if not fields:
        if sample is not None:
            return {"query": {}, "limit": 10}
        fields = {"amount": 30, "title": ""}
    shown = list(fields)[:EXAMPLE_FIELDS]
    numbers = [name for name in shown if not isinstance(fields[name], str)]
    first = (numbers or shown)[0]
    value = fields[first]
    return {
        "query": {first: value if isinstance(value, str) else {"$gte": value}},
        "project": dict.fromkeys(shown, 1),
        "sort": {first: 1},
        "limit": 10,
    }


def _shows_well(name: str, value: Any) -> bool:
    # "__proto__" is no field in a literal of JavaScript.
    if name in ("", "_id", "__proto__") or "." in name or name.startswith("$"):
        return False
    if not name.isprintable() or len(name) > NAME_CHARACTERS:
        return False
    if isinstance(value, str):
        return value.isprintable() and len(value) <= VALUE_CHARACTERS
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= SAFE_INTEGER


def _inline(value: Any, language: Literal["json", "python"]) -> str:
    """A value in one line; JSON's texts and numbers are Python's too, its words are not."""
    if isinstance(value, dict):
        members = (
            f"{_inline(name, language)}: {_inline(member, language)}"
            for name, member in value.items()
        )
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(member, language) for member in value)}]"
    if language == "python" and isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _block(value: Any, language: Literal["json", "python"], indent: str | None = None) -> str:
    """A value with each of its members on a line of its own."""
    indent = indent or ("    " if language == "python" else "  ")
    if isinstance(value, dict):
        marks = "{}"
        lines = [
            f"{indent}{_inline(name, language)}: {_inline(member, language)}"
            for name, member in value.items()
        ]
    else:
        marks = "[]"
        lines = [f"{indent}{_inline(member, language)}" for member in value]
    last = ",\n" if language == "python" else "\n"
    return f"{marks[0]}\n" + ",\n".join(lines) + f"{last}{marks[1]}"


def _indented(text: str, levels: int, indent: str = "    ") -> str:
    return text.replace("\n", "\n" + indent * levels)
