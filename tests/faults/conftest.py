"""The collections that `tests.transfer` has, for tests of what goes wrong on the way."""

from __future__ import annotations

from tests.transfer.conftest import local, open_collection

__all__ = ["local", "open_collection"]
