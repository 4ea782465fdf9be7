"""File operations: atomic writes, downloads, caches and hashes."""
