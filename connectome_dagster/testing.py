"""Fixtures for those who test their pipelines against the local server."""
