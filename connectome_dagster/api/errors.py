"""The error tree under the name that users import it by; see `connectome_dagster.errors`."""

from connectome_dagster.errors import *  # noqa: F403 - the tree's own __all__ is the list
from connectome_dagster.errors import __all__ as __all__
