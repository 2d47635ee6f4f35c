"""Moves frames: collections read and written through `api`, translated by `frames`."""
