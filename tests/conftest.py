"""What holds for all tests: laws have no deadline, and a failing one says how to repeat it."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is not a failure, and a test that measures time is none.
settings.register_profile("connectome", deadline=None, print_blob=True)
settings.load_profile("connectome")
