"""File operations: atomic writes, downloads, caches and hashes."""

from .atomic import atomic_file, write_text
from .cache import cache_folder, cache_home

__all__ = ['atomic_file', 'cache_folder', 'cache_home', 'write_text']
