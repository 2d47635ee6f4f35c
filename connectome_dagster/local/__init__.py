"""The embedded server: the Data API over HTTP on this machine. Imports nothing of the rest."""
