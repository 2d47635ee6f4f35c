"""What `make demo` and `make ui` run: the example project against a local server. Not packaged."""
