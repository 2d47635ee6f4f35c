"""The package against what a user would write by hand, in one run: `python -m benchmarks`.

Not a test: nothing here fails for being slow. Knows the package by its public surface alone.
"""
