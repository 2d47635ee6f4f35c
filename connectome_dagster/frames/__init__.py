"""Documents to Arrow and back, pure: bytes and batches in, batches and bytes out. Knows no HTTP."""
