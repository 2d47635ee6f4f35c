from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path

import pytest
from dagster_shared.libraries import DagsterLibraryRegistry

import connectome_dagster
from connectome_dagster import errors
from connectome_dagster.api import errors as api_errors

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

# The names of the design that exist. Whoever adds one adds it here, and says so in the changelog.
PUBLIC = {
    "Collection",
    "Connectome",
    "ConnectomeError",
    "ConnectomeIOManager",
    "ConnectomeResource",
    "Documents",
    "Encoding",
    "ReadReport",
    "WriteReport",
    "__version__",
    "build_connectome_checks",
    "build_connectome_observable",
    "build_connectome_sensor",
    "build_reconcile_sensor",
}

# Those that it promises and that do not exist yet: a name that is not ready is not there.
TO_COME = {"ConnectomeComponent"}

CLASSES = sorted(PUBLIC - {"__version__"})


def test_all_is_what_the_design_names() -> None:
    assert set(connectome_dagster.__all__) == PUBLIC
    assert len(connectome_dagster.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_there(name: str) -> None:
    assert getattr(connectome_dagster, name) is not None
    assert name in dir(connectome_dagster)


@pytest.mark.parametrize("name", sorted({*TO_COME, "nonsense"}))
def test_a_name_that_is_not_ready_is_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(connectome_dagster, name)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_is_documented(name: str) -> None:
    documented(getattr(connectome_dagster, name))


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_documented_and_one_of_ours(name: str) -> None:
    error = getattr(errors, name)
    documented(error)
    assert issubclass(error, errors.ConnectomeError)
    assert getattr(api_errors, name) is error


@pytest.mark.parametrize(
    ("name", "member"),
    [
        (name, member)
        for name in ("Collection", "Connectome", "Documents")
        for member, value in vars(getattr(connectome_dagster, name)).items()
        if not member.startswith("_") and callable(value)
    ],
)
def test_every_public_method_is_documented(name: str, member: str) -> None:
    documented(getattr(getattr(connectome_dagster, name), member))


def documented(thing: object) -> None:
    # Of its own: `inspect.getdoc` would take that of a base class for one.
    text = inspect.cleandoc(vars(thing).get("__doc__") or thing.__doc__ or "")
    assert re.match(r"[A-Z].*[.:;,]", text), f"{thing!r} says nothing of itself"


def test_the_version_is_that_of_the_distribution() -> None:
    (written,) = re.findall(r'^version = "(.+)"$', PYPROJECT.read_text("utf-8"), re.MULTILINE)
    assert connectome_dagster.__version__ == written == version("connectome-dagster")


def test_dagster_s_registry_of_libraries_has_it() -> None:
    assert DagsterLibraryRegistry.get()["connectome-dagster"] == connectome_dagster.__version__


IMPORTS = [
    ("import connectome_dagster", ["dagster", "pandas", "pyarrow", "requests", "starlette"]),
    ("from connectome_dagster import Connectome", ["dagster", "starlette", "uvicorn"]),
    ("from connectome_dagster import Connectome", ["pandas"]),
    ("from connectome_dagster import ConnectomeError", ["dagster", "pandas", "pyarrow"]),
    ("import connectome_dagster.testing", ["dagster", "pandas", "starlette", "uvicorn"]),
]


@pytest.mark.parametrize(("statement", "absent"), IMPORTS)
def test_nobody_pays_for_what_is_not_used(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("console_scripts", "connectome", "connectome_dagster.cli:main"),
        ("dagster_dg_cli.registry_modules", "connectome_dagster", "connectome_dagster"),
        ("pytest11", "connectome", "connectome_dagster.testing"),
    ],
)
def test_an_entry_point_is_there_and_loads(group: str, name: str, value: str) -> None:
    found: list[EntryPoint] = [each for each in entry_points(group=group) if each.name == name]
    assert {each.value for each in found} == {value}
    assert found[0].load() is not None
