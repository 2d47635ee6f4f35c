"""Reads every import of the package and fails on one that the floors of the house forbid."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "connectome_dagster"
ROOT = Path(__file__).parents[1] / PACKAGE

SURFACE = "surface"

# What each floor may import of the package, itself included.
MAY_IMPORT = {
    "errors": frozenset[str](),
    "frames": frozenset({"frames", "errors"}),
    "api": frozenset({"api", "errors"}),
    "transfer": frozenset({"transfer", "api", "frames", "errors"}),
    "local": frozenset({"local"}),
    SURFACE: frozenset({SURFACE, "transfer", "api", "frames", "local", "errors"}),
}

HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "aiohttp", "http.client", "urllib.request")
HTTP_HOME = f"{PACKAGE}.api.client"

DYNAMIC = ("import_module", "__import__")


def floor_of(module: str) -> str:
    """The floor of a module of the package: its folder, `errors`, or the surface."""
    name = module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    return name if name in MAY_IMPORT else SURFACE


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is imported, wherever in the file that happens.

    `from a import b` counts as `a.b`, which is a module or a name in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in DYNAMIC:
                first = node.args[0] if node.args else None
                known = isinstance(first, ast.Constant) and isinstance(first.value, str)
                yield node.lineno, first.value if known else "?"  # type: ignore[union-attr]


def is_of(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


def complaint(module: str, imported: str) -> str | None:
    """What is wrong with an import; None if nothing is."""
    floor = floor_of(module)
    if imported == "?":
        return None if floor == SURFACE else "imports something that cannot be told beforehand"
    if is_of(imported, PACKAGE):
        target = floor_of(imported)
        if target not in MAY_IMPORT[floor]:
            return f"{floor} may not import {target}"
    elif floor != SURFACE and imported.split(".")[0].split("_")[0] == "dagster":
        return "only the surface may import dagster"
    elif module != HTTP_HOME and any(is_of(imported, library) for library in HTTP_LIBRARIES):
        return f"only {HTTP_HOME} may import an HTTP library"
    return None


def complaints(source: str, module: str, *, is_package: bool = False) -> list[str]:
    return [
        f"{module}:{line} imports {imported}: {wrong}"
        for line, imported in imports(source, module, is_package=is_package)
        if (wrong := complaint(module, imported)) is not None
    ]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_no_import_goes_against_the_floors() -> None:
    found = [
        wrong
        for module, path in modules()
        for wrong in complaints(
            path.read_text("utf-8"), module, is_package=path.name == "__init__.py"
        )
    ]
    assert found == []


def test_every_floor_is_there_and_is_looked_at() -> None:
    assert {floor_of(module) for module, _ in modules()} == set(MAY_IMPORT)
    seen = {
        imported
        for module, path in modules()
        for _, imported in imports(path.read_text("utf-8"), module)
    }
    assert any(is_of(name, "dagster") for name in seen)
    assert any(is_of(name, "urllib3") for name in seen)


def test_no_module_is_a_room_for_what_has_no_home() -> None:
    homeless = {"utils", "util", "helpers", "common", "misc"}
    assert [m for m, _ in modules() if homeless & set(m.split("."))] == []


BAD = [
    ("transfer.write", "import dagster", "only the surface"),
    ("transfer.write", "from dagster import Config", "only the surface"),
    ("frames.encode", "import dagster_shared.libraries", "only the surface"),
    ("errors", "from dagster_shared import x", "only the surface"),
    ("local.app", "def f():\n    import dagster as dg", "only the surface"),
    ("api.client", "if TYPE_CHECKING:\n    import dagster", "only the surface"),
    ("frames.encode", "from connectome_dagster.api import client", "frames may not import api"),
    ("api.client", "from connectome_dagster.frames.split import Splitter", "may not import frames"),
    ("api.client", "import connectome_dagster.transfer.read", "api may not import transfer"),
    ("frames.decode", "from connectome_dagster.transfer import rows", "may not import transfer"),
    ("frames.decode", "from connectome_dagster import Connectome", "may not import surface"),
    ("frames.decode", "import connectome_dagster", "frames may not import surface"),
    ("transfer.read", "from connectome_dagster.resource import R", "may not import surface"),
    ("transfer.read", "from connectome_dagster.local.server import S", "may not import local"),
    ("transfer.read", "from connectome_dagster import local", "may not import local"),
    ("transfer.read", "from .. import local", "may not import local"),
    ("transfer.read", "from ..local import server", "may not import local"),
    ("transfer.read", "from ...connectome_dagster.local import server", "may not import local"),
    ("local.app", "from connectome_dagster.errors import ConfigurationError", "local may not"),
    ("local.app", "from ..api import endpoints", "local may not import api"),
    ("local.app", "def f():\n  def g():\n    from connectome_dagster.frames import exact", "local"),
    ("errors", "from connectome_dagster.api import errors", "errors may not import api"),
    ("errors", "if TYPE_CHECKING:\n    import connectome_dagster.frames.schema", "errors may not"),
    ("api.retry", "import requests", "only connectome_dagster.api.client"),
    ("api.endpoints", "from urllib3.util import Retry", "only connectome_dagster.api.client"),
    ("resource", "import httpx", "only connectome_dagster.api.client"),
    ("resource", "async def f():\n    import aiohttp", "only connectome_dagster.api.client"),
    ("local.server", "from http import client", "only connectome_dagster.api.client"),
    ("cli", "import http.client as h", "only connectome_dagster.api.client"),
    ("cli", "from urllib.request import urlopen", "only connectome_dagster.api.client"),
    ("transfer.read", "importlib.import_module('dagster')", "only the surface"),
    ("transfer.read", "__import__('connectome_dagster.local')", "may not import local"),
    ("transfer.read", "import_module(f'{x}.y')", "cannot be told"),
]


@pytest.mark.parametrize(("module", "source", "expected"), BAD)
def test_the_check_bites(module: str, source: str, expected: str) -> None:
    (found,) = complaints(source, f"{PACKAGE}.{module}")
    assert expected in found
    assert f"{PACKAGE}.{module}:" in found


def test_the_check_bites_in_a_package_s_own_file() -> None:
    (found,) = complaints("from ..local import x", f"{PACKAGE}.api", is_package=True)
    assert "api may not import local" in found
    assert complaints("from .errors import x", f"{PACKAGE}.api", is_package=True) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "resource",
            "import dagster as dg\nfrom connectome_dagster.transfer.read import Documents",
        ),
        ("cli", "from connectome_dagster.local.server import LocalServer"),
        ("", "import_module(f'{a}.{b}')"),
        ("transfer.read", "from connectome_dagster.api.client import Client"),
        ("transfer.read", "from connectome_dagster.frames import schema"),
        ("transfer.read", "from connectome_dagster import errors"),
        ("api.client", "import requests, urllib3\nfrom http.client import HTTPResponse"),
        ("local.app", "from http import HTTPStatus\nfrom connectome_dagster.local import store"),
        ("frames.decode", "import pyarrow as pa\nimport requests_like"),
    ],
)
def test_the_check_lets_pass_what_the_design_allows(module: str, source: str) -> None:
    assert complaints(source, f"{PACKAGE}.{module}" if module else PACKAGE) == []
